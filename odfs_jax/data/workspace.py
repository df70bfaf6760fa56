"""The layout of a workspace, and finding the files that the user put there.

src.mp4 or src/       the clip, or its frames as pictures      (the same for dst)
src/aligned/          the aligned faces
models/<name>/        a training run
result.mp4            the swapped clip
"""

import logging
import os
import re
from functools import cache
from pathlib import Path

from odfs_jax.config import SideConfig
from odfs_jax.errors import UserError

log = logging.getLogger(__name__)

# Of what libav reads; others can be named with data.SIDE.input=.
CLIP_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v", ".mkv", ".webm", ".avi", ".divx"),
    *(".mpg", ".mpeg", ".mpe", ".m2v", ".vob", ".mod", ".ts", ".mts", ".m2ts", ".m2t", ".mxf"),
    *(".wmv", ".asf", ".flv", ".ogv", ".ogg", ".rm", ".rmvb", ".dv", ".nut", ".y4m", ".ivf"),
    *(".gif", ".apng", ".mjpeg", ".mjpg", ".h264", ".264", ".h265", ".hevc", ".265", ".wtv"),
)
IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp"),
    *(".gif", ".tga", ".avif", ".jp2", ".ppm", ".pgm", ".pnm"),
)
# Beside pictures these are nothing that a user would miss.
NOTE_SUFFIXES = (
    "",
    ".txt",
    ".json",
    ".c2pa",
    ".yaml",
    ".yml",
    ".md",
    ".ini",
    ".db",
    ".log",
    ".xml",
)
# In a workspace: what odfs-swap has finished there; bytes.
SWAP_RECORD, LARGEST_SWAP_RECORD = "swap.json", 1 << 20


def default_result(workspace: Path, clip: Path) -> Path:
    """Where a conversion of `clip`, frames in a folder or a file, goes unless it is told."""
    return workspace / ("result" if clip.is_dir() else "result.mp4")


def find_input(workspace: str, side: str, config: SideConfig) -> Path:
    """The clip (file) or frames (folder) of `side`: the configured path, else one in the workspace.

    Raises UserError when there is none, or more than one candidate.
    """
    if config.input is not None:
        path = Path(config.input)
        if not path.exists():
            raise UserError(f"data.{side}.input={path}: no such file or folder")
        return path
    root = Path(workspace)
    if not root.is_dir():
        raise UserError(f"workspace={workspace}: no such folder; make it and put {side}.mp4 in it")
    found = [p for p in root.iterdir() if p.stem == side and p.suffix.lower() in CLIP_SUFFIXES]
    found = sorted(path for path in found if not path.is_dir())
    if image_files(root / side):
        found.append(root / side)
    if not found:
        raise UserError(f"{root / side}.mp4: no such clip, and no frames in {root / side}/")
    if len(found) > 1:
        names = " and ".join(str(path) for path in found)
        raise UserError(f"both {names} exist; say which with data.{side}.input=")
    return found[0]


def image_files(folder: Path) -> list[Path]:
    """The picture files directly in `folder`, by name, numbers in it by their value: 9.png, 10.png.

    Empty when there is no such folder.
    """
    return sorted(_files(folder, IMAGE_SUFFIXES), key=_natural)


def aligned_files(folder: Path, side: str) -> list[Path]:
    """The aligned PNGs of `side`, by name. Raises UserError when the folder is missing or empty."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; run: python extract.py data={side}")
    files = sorted(png_files(folder))
    if not files:
        raise UserError(f"{folder}: no aligned PNG in it; run: python extract.py data={side}")
    log_passed_over(folder, (".png",))
    return files


def png_files(folder: Path) -> list[Path]:
    """The PNGs directly in `folder` that are not hidden, in any order."""
    return _files(folder, (".png",))


def log_passed_over(folder: Path, suffixes: tuple[str, ...]) -> None:
    """Logs how many files of `folder` are passed over: their suffix is none of `suffixes`.

    So are pipes, devices and broken links with such a suffix. Notes and lists beside pictures are
    not counted.
    """
    with os.scandir(folder) as entries:
        names = sorted(
            entry.name
            for entry in entries
            if not entry.name.startswith(".")
            and not entry.is_dir()
            and Path(entry.name).suffix.lower() not in NOTE_SUFFIXES
            and not (entry.is_file() and Path(entry.name).suffix.lower() in suffixes)
        )
    if names:
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        kinds = " ".join(suffixes)
        _warn_once(f"{folder}: {len(names)} files passed over, no files like {kinds} ({shown})")


@cache
def _warn_once(message: str) -> None:
    log.warning("%s", message)


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The regular files in `folder` that are not hidden and have one of `suffixes`."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [
            folder / entry.name
            for entry in entries
            if not entry.name.startswith(".")
            and Path(entry.name).suffix.lower() in suffixes
            and entry.is_file()
        ]


def _natural(path: Path) -> tuple[list[str | int], str]:
    parts = re.split(r"([0-9]+)", path.stem)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], path.name
