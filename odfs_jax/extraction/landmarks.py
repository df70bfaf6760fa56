"""The 68 points of a detected face. A landmarker is anything that keeps to `Landmarker`."""

from typing import Protocol

import dlib
import numpy as np

from odfs_jax.extraction.mtcnn import Detection
from odfs_jax.extraction.weights import dlib68_path
from odfs_jax.faces import align
from odfs_jax.faces.crop import cut

# dlib's predictor starts from a box and was trained on boxes of dlib's own detector, so MTCNN's
# five points are turned into a square of that kind. The constants gave the least error over all
# frames of the synthetic actors (docs/accuracy.md).
BOX_PER_FACE = 1.65  # side of the box / distance from the eyes' to the mouth's centre
TOWARDS_EARS = (
    0.25  # the box follows a turned head: its centre moves against the nose by this share
)
CROP = 300  # pixels of the upright square that dlib sees
BOX = 160  # pixels of the box in its middle


class Landmarker(Protocol):
    """Finds points in frames. `name` is written into the aligned PNG."""

    name: str

    def __call__(self, frame: np.ndarray, face: Detection) -> np.ndarray:
        """Points [68,2] of `face`, in pixels of `frame` (uint8 RGB [H,W,3]), float64."""
        ...


class Dlib68:
    """dlib's 68-point shape predictor on an upright crop of fixed size.

    Source: Kazemi and Sullivan, "One millisecond face alignment with an ensemble of regression
    trees", CVPR 2014.
    """

    name = "dlib68"

    def __init__(self) -> None:
        self._predict = dlib.shape_predictor(str(dlib68_path()))
        low = (CROP - BOX) // 2
        self._box = dlib.rectangle(low, low, low + BOX - 1, low + BOX - 1)

    def __call__(self, frame: np.ndarray, face: Detection) -> np.ndarray:
        matrix = crop_matrix(face.points)
        shape = self._predict(cut(frame, matrix, CROP), self._box)
        points = np.array([(p.x, p.y) for p in shape.parts()], np.float64)
        return align.transform(align.invert(matrix), points)


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
    corners = (left + right + mouth[0] + mouth[1]) / 4
    centre = linear @ points.mean(axis=0) - TOWARDS_EARS * np.array(
        [(linear @ (nose - corners))[0], 0]
    )
    return np.concatenate([linear, ((CROP - 1) / 2 - centre)[:, None]], axis=1)
