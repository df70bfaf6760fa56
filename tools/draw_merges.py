"""Draws docs/merge_*.jpg and measures flicker, from a workspace that the demo has made.

    python tools/draw_merges.py WORKSPACE docs

Each picture shows one frame converted with each merge mode, color transfer, mask or finish; the
table (printed) says how much the mean color of the face changes from frame to frame.
"""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from omegaconf import OmegaConf

from odfs_jax.config import compose
from odfs_jax.conversion.convert import convert
from odfs_jax.conversion.masks import OWN_MASKS
from odfs_jax.conversion.modes import MODES
from odfs_jax.data import atomic
from odfs_jax.data.aligned_png import read_face
from odfs_jax.data.media.frame_io import open_frames
from odfs_jax.data.workspace import aligned_files
from odfs_jax.faces.colors import TRANSFERS
from odfs_jax.faces.hull import face_mask

SHOWN, CELL, COLUMNS = 40, 220, 4
SETTINGS = ("merge.anchor=eyes", "merge.blur=80", "merge.feather=smooth")
FINISHES = {
    "nothing": (),
    "scale=-15": ("merge.scale=-15",),
    "sharpen=100": ("merge.sharpen=100",),
    "degrade.jpeg=90": ("merge.degrade.jpeg=90",),
    "degrade.denoise=100": ("merge.degrade.denoise=100",),
    "motion_blur=1": ("merge.motion_blur=1",),
    "opacity=50": ("merge.opacity=50",),
    "keep=[eyes,mouth]": ("merge.keep=[eyes,mouth]",),
}


def main(workspace: Path, docs: Path) -> None:
    dst = frames_of(workspace / "dst.mp4")
    points = landmarks(workspace)
    modes = {name: (f"merge={name}",) for name in MODES}
    colors = {name: (f"merge.color={name}",) for name in TRANSFERS}
    masks = {name: (f"merge.mask={name}", "merge.color=light") for name in OWN_MASKS}
    finishes = {name: (*changes, "merge.color=light") for name, changes in FINISHES.items()}
    for title, choices in (("modes", modes), ("masks", masks), ("finishes", finishes)):
        cells = {"dst": dst[SHOWN]}
        cells |= {name: swapped(workspace, *chosen)[SHOWN] for name, chosen in choices.items()}
        draw(docs / f"merge_{title}.jpg", cells, points[SHOWN])
    cells, source = {"dst": dst[SHOWN]}, flicker(dst, points)
    rows = [f"| dst itself | {source:.3f} | |"]
    for name, chosen in colors.items():
        steady = swapped(workspace, *chosen)
        alone = swapped(workspace, *chosen, "merge.color_smoothing=0")
        cells[name] = steady[SHOWN]
        values = flicker(steady, points), flicker(alone, points)
        rows.append(f"| `{name}` | {values[0]:.3f} | {values[1]:.3f} |")
    draw(docs / "merge_colors.jpg", cells, points[SHOWN])
    sys.stdout.write("| | averaged | `color_smoothing=0` |\n| --- | --- | --- |\n")
    sys.stdout.write("\n".join(rows) + "\n")


def swapped(workspace: Path, *changes: str) -> list[np.ndarray]:
    """The frames of dst, converted with `changes`, without loss."""
    with TemporaryDirectory() as folder:
        result = Path(folder) / "result.mkv"
        settings = [f"workspace={workspace}", "hardware.compilation_cache=null", *SETTINGS]
        output = [f"output.path={result}", "output.codec=ffv1"]
        config = compose("convert", [*settings, *changes, *output])
        OmegaConf.resolve(config)
        convert(config)
        return frames_of(result)


def frames_of(clip: Path) -> list[np.ndarray]:
    with open_frames(clip) as source:
        return [frame.image for frame in source]


def landmarks(workspace: Path) -> dict[int, np.ndarray]:
    """[68, 2] of each frame's face, as extracted."""
    sources = [read_face(p).source for p in aligned_files(workspace / "dst" / "aligned", "dst")]
    return {source.frame: source.landmarks for source in sources}


def flicker(frames: list[np.ndarray], points: dict[int, np.ndarray]) -> float:
    """Mean absolute change, from a frame to the next, of the hull's mean RGB, in steps of 255."""
    numbers = sorted(points)
    means = []
    for number in numbers:
        inside = face_mask(points[number], *frames[number].shape[:2]) > 0
        means.append(frames[number][inside].mean(0))
    return float(np.abs(np.diff(means, axis=0)).mean())


def draw(path: Path, cells: dict[str, np.ndarray], points: np.ndarray) -> None:
    low, high = points.min(0), points.max(0)
    half = 0.75 * (high - low).max()
    left, top = np.maximum((low + high) / 2 - half, 0).astype(int)
    side = int(2 * half)
    drawn = [
        _cell(name, image[top : top + side, left : left + side]) for name, image in cells.items()
    ]
    blank = np.full((CELL, CELL, 3), 255, np.uint8)
    drawn += [blank] * (-len(drawn) % COLUMNS)
    rows = [np.hstack(drawn[i : i + COLUMNS]) for i in range(0, len(drawn), COLUMNS)]
    picture = np.ascontiguousarray(np.vstack(rows)[..., ::-1])
    quality = [cv2.IMWRITE_JPEG_QUALITY, 88]
    atomic.write_bytes(path, cv2.imencode(".jpg", picture, quality)[1].tobytes())


def _cell(name: str, image: np.ndarray) -> np.ndarray:
    cell = cv2.resize(image, (CELL, CELL), interpolation=cv2.INTER_AREA)
    for color, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        place = (6, CELL - 8)
        cv2.putText(cell, name, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, width, cv2.LINE_AA)
    return cell


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("workspace", type=Path)
    arguments.add_argument("docs", type=Path)
    options = arguments.parse_args()
    main(options.workspace, options.docs)
