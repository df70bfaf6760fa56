"""2DFAN-4 as a landmarker: crops of all faces of a batch go through the device together.

Source: see `nets.detectors.fan`; how a face is placed in the crop is as in face-alignment 1.5.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from odfs_jax.config import within
from odfs_jax.extraction.detection import Detection, axis_of, crop_from_frame
from odfs_jax.extraction.weights import FAN, find_weights, load_variables
from odfs_jax.faces import affine
from odfs_jax.faces.crop import crop_face
from odfs_jax.faces.landmarks68 import MIRROR
from odfs_jax.nets.detectors import fan as nets

SIDE = 200 / 195  # side of the crop / (width + height of the face)
ABOVE = 0.12  # heights of the face by which the crop lies above the face's middle


@dataclass(frozen=True)
class FanSettings:
    """What `configs/landmarks/fan.yaml` sets under `args`; the meanings stand there."""

    weights: str | None
    flip: bool
    batch_size: int = within(1, 1 << 10)


class FanLandmarker:
    """The landmarker. Compiles once; the last chunk of faces is padded."""

    name = "fan"

    def __init__(self, settings: FanSettings) -> None:
        self.settings = settings
        self.variables = jax.device_put(fan_variables(find_weights(FAN, settings.weights)))
        self._run = jax.jit(points_of, static_argnames="flip")

    def __call__(
        self, images: Sequence[np.ndarray], faces: Sequence[Detection]
    ) -> list[np.ndarray]:
        """Points [68,2] of each face; NaN for a face without extent."""
        found = [np.full((nets.POINTS, 2), np.nan) for _ in faces]
        placed = [(i, matrix) for i, face in enumerate(faces) if (matrix := crop(face)) is not None]
        size = self.settings.batch_size
        for start in range(0, len(placed), size):
            chunk = placed[start : start + size]
            crops = np.zeros((size, nets.INPUT, nets.INPUT, 3), np.uint8)
            for row, (i, matrix) in zip(crops, chunk, strict=False):
                row[:] = crop_face(images[i], matrix, nets.INPUT)
            points = jax.device_get(self._run(self.variables, crops, flip=self.settings.flip))
            for (i, matrix), in_crop in zip(chunk, points, strict=False):
                found[i] = affine.transform(affine.invert(matrix), in_crop.astype(np.float64))
        return found


def fan_variables(path: Path) -> dict:
    """The variables of `nets.detectors.fan.Fan` from a weight file. Raises UserError."""
    return load_variables(nets.FanNet(), (1, 64, 64, 3), path)


def points_of(variables: dict, crops: jax.Array, flip: bool) -> jax.Array:
    """Points [N,68,2] in pixels of uint8 `crops` [N,256,256,3].

    With `flip` the heat maps of the mirrored crops are added, which costs twice the time.
    """
    pixels = crops.astype(jnp.float32) / 255
    maps = nets.FanNet().apply(variables, pixels)
    if flip:
        mirrored = nets.FanNet().apply(variables, pixels[:, :, ::-1])
        maps = maps + mirrored[:, :, ::-1, jnp.array(MIRROR)]
    points, _ = nets.peaks(maps)
    return points * nets.CELL + (nets.CELL - 1) / 2


def crop(face: Detection) -> np.ndarray | None:
    """Matrix [2,3] from the frame to the crop of `face`; None when the face has no extent.

    The face's box, or the extent of its landmarks where it has them, upright as the face stands.
    """
    try:
        axis = axis_of(face)
    except ValueError:
        return None
    down = np.array([-axis[1], axis[0]])
    if face.landmarks is None:
        low, high = face.box[:2].astype(np.float64), face.box[2:].astype(np.float64)
        center, (width, height) = (low + high) / 2, high - low
    else:
        along = face.landmarks @ np.stack([axis, down], axis=1)
        low, high = along.min(axis=0), along.max(axis=0)
        center, (width, height) = np.array([axis, down]).T @ ((low + high) / 2), high - low
    if not min(width, height) > 1:
        return None
    scale = nets.INPUT / (SIDE * (width + height))
    return crop_from_frame(center - ABOVE * height * down, axis, scale, nets.INPUT)
