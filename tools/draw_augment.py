"""Draws docs/augment.jpg: what the settings of `augment` do to what a network takes in.

    python tools/draw_augment.py WORKSPACE docs/augment.jpg

WORKSPACE is one that the demo has made. Each column is a setting, each row a face of src; all else
is drawn alike.
"""

import argparse
from functools import partial
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from odfs_jax.config import compose
from odfs_jax.data import atomic, augment
from odfs_jax.data.faceset import load_faceset
from odfs_jax.faces.spec import FaceSpec
from odfs_jax.faces.types import FaceType

SPEC = FaceSpec(FaceType.FULL, 112)
FACES = (40, 200)  # of src, and as many of dst that lend their colors
STILL = {name: 0.0 for name in ("rotation", "scale", "shift", "flip", "warp")}
COLUMNS = {
    "the face": {},
    "warp=0.24": {"warp": 0.24},
    "hsv=0.3": {"hsv": 0.3},
    "color_transfer=rct": {"color_transfer": "rct"},
    "color_transfer=sot": {"color_transfer": "sot"},
    "blur=2": {"blur": 2.0},
    "shrink=0.75": {"shrink": 0.75},
    "noise=0.1": {"noise": 0.1},
    "jpeg=0.95": {"jpeg": 0.95},
}
TITLE = 18  # pixels


def main(workspace: Path, picture: Path) -> None:
    src, dst = (load_faceset(workspace / side / "aligned", side, SPEC) for side in ("src", "dst"))
    usual = augment.of_side(compose("train").augment, "src") | STILL
    columns = []
    for title, changes in COLUMNS.items():
        settings = usual | changes
        cells = [np.full((TITLE, SPEC.resolution, 3), 255, np.uint8)]
        cv2.putText(cells[0], title, (2, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.32, (0, 0, 0), 1, 16)
        cells += [drawn(settings, src, dst, number) for number in FACES]
        columns.append(np.concatenate(cells))
    options = (cv2.IMWRITE_JPEG_QUALITY, 85)
    content = cv2.imencode(".jpg", np.concatenate(columns, axis=1)[..., ::-1], options)[1]
    atomic.write_bytes(picture, content.tobytes())


def drawn(settings: dict, src, dst, number: int) -> np.ndarray:
    """uint8 RGB [R, R, 3]: the input that the face `number` of src gives."""
    own = jnp.asarray(src.images[number]), jnp.asarray(src.store_from_model[number])
    other = number % len(dst)
    lender = jnp.asarray(dst.images[other]), jnp.asarray(dst.store_from_model[other]), SPEC
    draw = partial(augment.sample, input_spec=SPEC, target_specs={}, masks=src.masks)
    key = jax.random.key(11)  # a strong one of each
    lender = None if settings["color_transfer"] == "none" else lender
    face, _ = jax.jit(partial(draw, augment_cfg=settings, lender=lender))(key, *own)
    return np.asarray(jnp.round(255 * face)).astype(np.uint8)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    main(options.workspace, options.picture)
