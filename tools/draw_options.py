"""Draws docs/options.jpg: what an option of training does to the new face.

    python tools/draw_options.py WORKSPACE NAME docs/options.jpg [--iterations 300]

WORKSPACE is one that the demo has made, and NAME its run in there. Each option goes on from this
run's weights for so many iterations, with all else equal, as the run WORKSPACE/models/option_*;
what is trained already is not trained again. Each pair of cells is one frame of dst: what comes out
without the option, and with it.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import cv2
import numpy as np
from omegaconf import OmegaConf

from odfs_jax.config import compose
from odfs_jax.conversion.convert import convert
from odfs_jax.data import atomic
from odfs_jax.data.aligned_png import read_face
from odfs_jax.data.media.frame_io import open_frames
from odfs_jax.data.workspace import aligned_files
from odfs_jax.training.train import train

FRONT, TURNED = 56, 76  # frames of dst
CELL, TITLE, PAIRS_A_ROW = 112, 16, 4  # pixels; pixels; pairs of cells
# The demo's recipe as it ends: nothing is warped, turned or moved, and the rate falls to zero.
USUAL = (
    "experiment=demo",
    "augment.warp=0",
    "augment.rotation=0",
    "augment.scale=0",
    "augment.shift=0",
    "optimizer.learning_rate=1e-3",
    "optimizer.warmup=20",
    "preview_every=0",
)


class Option(NamedTuple):
    """Settings of training, the frame that shows them, and those of the merge."""

    settings: tuple[str, ...]
    frame: int = FRONT
    merge: tuple[str, ...] = ()


PATCHES = (
    "discriminator=patch",
    "discriminator.patch_size=16",
    "discriminator.dims=32",
    "discriminator.power=0.3",
)
WHOLE = ("merge=raw_predict",)  # what lies around the face, too
OPTIONS = {
    "warp=0.24": Option(("augment.warp=0.24",)),
    "rotation=10 scale=.05": Option(
        ("augment.rotation=10", "augment.scale=0.05", "augment.shift=0.05")
    ),
    "hsv=0.3": Option(("augment.hsv=0.3",)),
    "color_transfer=rct": Option(("augment.color_transfer=rct",)),
    "blur shrink noise jpeg": Option(
        ("augment.blur=2", "augment.shrink=0.75", "augment.noise=0.1", "augment.jpeg=0.95")
    ),
    "flip_src=0": Option(("augment.flip_src=0",), TURNED),
    "sampling=uniform_yaw": Option(("data.sampling=uniform_yaw",), TURNED),
    "eyes_mouth=30": Option(("loss.eyes_mouth=30",)),
    "light=0, in place of 6": Option(("loss.light=0",), TURNED),
    "true_face=0.1": Option(("loss.true_face=0.1",)),
    "face_style=10": Option(("loss.face_style=10",)),
    "background_style=1": Option(("loss.background_style=1",), FRONT, WHOLE),
    # The recipe's targets go on in skin outside the face; these two are about what lies there.
    "blur_outside": Option(("loss.blur_outside=true", "loss.extend_skin=false"), FRONT, WHOLE),
    "masked=false": Option(("loss.masked=false", "loss.extend_skin=false"), FRONT, WHOLE),
    "discriminator=patch": Option(PATCHES),
    "the same, of_swap": Option((*PATCHES, "discriminator.of_swap=true")),
    "dropout=0.3": Option(("optimizer.dropout=0.3",)),
}


def main(workspace: Path, name: str, picture: Path, iterations: int) -> None:
    def trained(settings: tuple[str, ...]) -> str:
        """The name of the run with these settings."""
        run = "_".join((f"option_{iterations}", *(s.replace("=", "-") for s in settings)))
        start = (f"init_from={workspace / 'models' / name}", f"iterations={iterations}")
        own = (f"workspace={workspace}", *start, f"name={run}")
        config = compose("train", [*USUAL, *settings, *own])
        OmegaConf.resolve(config)
        train(config)
        return run

    without, squares = trained(()), squares_of(workspace)
    pairs = []
    for title, option in OPTIONS.items():
        cells = [
            cut(frame_of(workspace, run, option), squares[option.frame])
            for run in (without, trained(option.settings))
        ]
        label = np.full((TITLE, 2 * CELL, 3), 255, np.uint8)
        cv2.putText(label, title, (2, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 1, 16)
        pairs.append(np.vstack([label, np.hstack(cells)]))
    pairs += [np.full_like(pairs[0], 255)] * (-len(pairs) % PAIRS_A_ROW)
    rows = [np.hstack(pairs[i : i + PAIRS_A_ROW]) for i in range(0, len(pairs), PAIRS_A_ROW)]
    quality = (cv2.IMWRITE_JPEG_QUALITY, 90)
    content = cv2.imencode(".jpg", np.vstack(rows)[..., ::-1], quality)[1]
    atomic.write_bytes(picture, content.tobytes())


def frame_of(workspace: Path, run: str, option: Option) -> np.ndarray:
    """uint8 RGB: the option's frame of dst, converted with `run`, without loss."""
    with TemporaryDirectory() as folder:
        result = Path(folder) / "result.mkv"
        output = (f"output.path={result}", "output.codec=ffv1", f"frames={option.frame}")
        own = (f"workspace={workspace}", "data=dst", f"name={run}")
        config = compose("convert", [*own, *option.merge, *output])
        OmegaConf.resolve(config)
        convert(config)
        with open_frames(result) as source:
            return next(f.image for f in source if f.index == option.frame)


def squares_of(workspace: Path) -> dict[int, tuple[tuple[float, float], int]]:
    """((x, y) of the middle, side) of a square around the face of each of dst's frames."""
    squares = {}
    for path in aligned_files(workspace / "dst" / "aligned", "dst"):
        source = read_face(path).source
        low, high = source.landmarks.min(0), source.landmarks.max(0)
        squares[source.frame] = tuple((low + high) / 2), round(1.3 * (high - low).max())
    return squares


def cut(frame: np.ndarray, square: tuple[tuple[float, float], int]) -> np.ndarray:
    middle, side = square
    face = cv2.getRectSubPix(frame, (side, side), middle)
    return cv2.resize(face, (CELL, CELL), interpolation=cv2.INTER_AREA)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workspace", type=Path)
    parser.add_argument("name")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--iterations", type=int, default=300)
    options = parser.parse_args()
    main(options.workspace, options.name, options.picture, options.iterations)
