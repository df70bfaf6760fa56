"""Which way a face stands in its frame, and upright crops of it."""

import numpy as np

from odfs_jax.extraction.detection import Detection
from odfs_jax.faces import align
from odfs_jax.faces.align import INNER, MEAN_FACE


def axis_of_points(points: np.ndarray) -> np.ndarray:
    """Unit vector [2] from left to right of a face with five `points` [5,2], if it stood upright.

    The points are both eyes, the nose and both corners of the mouth, the left ones first. Raises
    ValueError when eyes and mouth coincide.
    """
    left, right, _, *mouth = points.astype(np.float64)
    across, down = right - left, np.mean(mouth, axis=0) - (left + right) / 2
    length, width = np.linalg.norm(down), np.linalg.norm(across)
    if min(length, width) < 1:
        raise ValueError("eyes and mouth coincide")
    # both axes vote for what is upright: a turned head tilts one of them
    axis = across / width + np.array([down[1], -down[0]]) / length
    return axis / np.linalg.norm(axis)


def axis_of(face: Detection) -> np.ndarray:
    """Unit vector [2] of the frame from the left to the right of `face` if it stood upright.

    From its landmarks if it has them, else from its five points, else from how far the picture was
    turned. Raises ValueError when the points coincide.
    """
    if face.landmarks is not None:
        axis = align.umeyama(MEAN_FACE, face.landmarks[INNER])[:, 0]
        return axis / np.linalg.norm(axis)
    if face.points is not None:
        return axis_of_points(face.points)
    angle = np.radians(face.turned)
    return np.array([np.cos(angle), np.sin(angle)])


def crop_from_frame(center: np.ndarray, axis: np.ndarray, scale: float, size: int) -> np.ndarray:
    """Matrix [2,3] that brings `center` to the middle of a square of `size` pixels.

    `axis` (a unit vector of the frame) comes to lie along the square's rows; `scale` is pixels of
    the square per pixel of the frame.
    """
    linear = scale * np.array([axis, [-axis[1], axis[0]]])
    return np.concatenate([linear, ((size - 1) / 2 - linear @ center)[:, None]], axis=1)
