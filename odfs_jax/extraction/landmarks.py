"""The 68 points of detected faces, by dlib."""

from collections.abc import Sequence

import dlib
import numpy as np

from odfs_jax.extraction.detection import Detection
from odfs_jax.extraction.weights import dlib68_path
from odfs_jax.faces import align
from odfs_jax.faces.align import INNER
from odfs_jax.faces.crop import cut

# dlib's predictor starts from a box and was trained on boxes of dlib's own detector, so MTCNN's
# five points are turned into a square of that kind. The constants gave the least error over all
# frames of the synthetic actors (docs/accuracy.md).
BOX_PER_FACE = 1.65  # side of the box / distance from the eyes' to the mouth's centre
AGAINST_NOSE = 0.25  # share by which the box moves back from the nose of a turned head
# MTCNN misplaces the mouth of a head in profile, and from a wrong box the predictor goes astray. So
# it starts from boxes of several sizes, eyes kept in place, and the two results nearest to each
# other are averaged: good starts end up together, bad ones do not.
BOX_SIZES = (1.15, 1.0, 0.87, 0.75)
CROP = 300  # pixels of the upright square that dlib sees
BOX = 160  # pixels of the box in its middle


class Dlib68:
    """dlib's 68-point shape predictor on an upright crop of fixed size.

    Source: Kazemi and Sullivan, "One millisecond face alignment with an ensemble of regression
    trees", CVPR 2014.
    """

    name = "dlib68"

    def __init__(self) -> None:
        self._predict = dlib.shape_predictor(str(dlib68_path()))

    def __call__(
        self, images: Sequence[np.ndarray], faces: Sequence[Detection]
    ) -> list[np.ndarray]:
        return [self._points(image, face) for image, face in zip(images, faces, strict=True)]

    def _points(self, image: np.ndarray, face: Detection) -> np.ndarray:
        try:
            matrix = crop_matrix(face.points)
        except ValueError:
            return np.full((68, 2), np.nan)
        crop = cut(image, matrix, CROP)
        eyes = align.transform(matrix, face.points[:2].astype(np.float64).mean(axis=0))
        shapes = np.stack([self._from_box(crop, eyes, size) for size in BOX_SIZES])
        return align.transform(align.invert(matrix), agreed(shapes))

    def _from_box(self, crop: np.ndarray, eyes: np.ndarray, size: float) -> np.ndarray:
        """Points [68,2] in `crop` from a box `size` times the usual one, scaled about `eyes`."""
        centre = eyes + ((CROP - 1) / 2 - eyes) * size
        low = np.rint(centre - (BOX * size - 1) / 2).astype(int)
        high = low + round(BOX * size) - 1
        shape = self._predict(crop, dlib.rectangle(*low.tolist(), *high.tolist()))
        return np.array([(p.x, p.y) for p in shape.parts()], np.float64)


def agreed(shapes: np.ndarray) -> np.ndarray:
    """The mean [68,2] of the two of `shapes` [k,68,2] that are nearest to each other."""
    distance = np.linalg.norm(shapes[:, None] - shapes[None], axis=-1)[..., INNER].mean(axis=-1)
    distance[np.diag_indices(len(shapes))] = np.inf
    i, j = np.unravel_index(distance.argmin(), distance.shape)
    return (shapes[i] + shapes[j]) / 2


def crop_matrix(points: np.ndarray) -> np.ndarray:
    """Matrix [2,3] from the frame of MTCNN's five `points` to the upright crop around the face.

    Raises ValueError when eyes and mouth coincide.
    """
    left, right, nose, *mouth = points.astype(np.float64)
    across, down = right - left, np.mean(mouth, axis=0) - (left + right) / 2
    length, width = np.linalg.norm(down), np.linalg.norm(across)
    if min(length, width) < 1:
        raise ValueError("eyes and mouth coincide")
    # both axes vote for what is upright: a turned head tilts one of them
    x_axis = across / width + np.array([down[1], -down[0]]) / length
    x_axis *= BOX / (BOX_PER_FACE * length * np.linalg.norm(x_axis))
    linear = np.array([x_axis, [-x_axis[1], x_axis[0]]])
    nose_offset = linear @ (nose - (left + right + mouth[0] + mouth[1]) / 4)
    centre = linear @ points.mean(axis=0) - (AGAINST_NOSE * nose_offset[0], 0)
    return np.concatenate([linear, ((CROP - 1) / 2 - centre)[:, None]], axis=1)
