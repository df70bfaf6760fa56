"""The layout of a workspace, and finding the files that the user put there.

src.mp4 or src/       the clip, or its frames as pictures      (the same for dst)
src/aligned/          the aligned faces
models/<name>/        a training run
result.mp4            the swapped clip
"""

from pathlib import Path

from odfs_jax.config import SideConfig
from odfs_jax.errors import UserError

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


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
    found = [root / f"{side}{suffix}" for suffix in VIDEO_SUFFIXES]
    found = [path for path in found if path.is_file()]
    if image_files(root / side):
        found.append(root / side)
    if not found:
        raise UserError(f"{root / side}.mp4: no such clip, and no frames in {root / side}/")
    if len(found) > 1:
        names = " and ".join(str(path) for path in found)
        raise UserError(f"both {names} exist; say which with data.{side}.input=")
    return found[0]


def image_files(folder: Path) -> list[Path]:
    """The picture files directly in `folder`, by name; empty when there is no such folder."""
    if not folder.is_dir():
        return []
    files = (p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(p for p in files if p.is_file() and not p.name.startswith("."))


def aligned_files(folder: Path, side: str) -> list[Path]:
    """The aligned PNGs of `side`, by name. Raises UserError when the folder is missing or empty."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; run: python extract.py data={side}")
    files = sorted(p for p in folder.glob("*.png") if not p.name.startswith("."))
    if not files:
        raise UserError(f"{folder}: no aligned PNG in it; run: python extract.py data={side}")
    return files
