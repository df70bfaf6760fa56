"""The points of a face that somebody framed with a square.

A square drawn by hand is off by a share of the face, and a landmarker that starts from there goes
astray. So MTCNN's last network looks at many squares around it in one call; the five points of the
one that is a face most surely are what the landmarker starts from, as in automatic extraction.
"""

from itertools import product

import jax
import numpy as np

from odfs_jax.extraction.detection import Detection, Landmarker
from odfs_jax.extraction.weights import mtcnn_params
from odfs_jax.faces.align import MEAN_FACE
from odfs_jax.faces.crop import crop_face
from odfs_jax.nets.detectors.mtcnn import ONET_SIZE, ONet

# Around the square: shifts right and down, and sizes, as shares of its side.
SQUARES = tuple(product((-0.15, 0.0, 0.15), (-0.15, 0.0, 0.15), (1.0, 1.2, 1.45)))
SURE = 0.5  # the network's probability of a face; below it, the mean face is put into the square
# Of the mean face: the eyes, the tip of the nose, the corners of the mouth.
FIVE = np.stack([MEAN_FACE[19:25].mean(0), MEAN_FACE[25:31].mean(0), *MEAN_FACE[[13, 31, 37]]])


class SquareLandmarks:
    """Finds the 68 points in squares with `landmarker`. Not for several threads at once."""

    def __init__(self, landmarker: Landmarker) -> None:
        self.landmarker = landmarker
        self._params = jax.device_put(mtcnn_params()["onet"])
        self._onet = jax.jit(ONet().apply)

    def __call__(self, image: np.ndarray, center: np.ndarray, side: float) -> np.ndarray:
        """Points [68,2] of the face in the square around `center` [2], in pixels of `image`.

        `image` is uint8 RGB [H,W,3]; the square, `side` pixels wide, reaches from the brows to the
        chin. Raises ValueError when the landmarker finds no face there.
        """
        box = np.concatenate([center - side / 2, center + side / 2])
        face = Detection(box, self._five_points(image, center, side), 1.0)
        points = self.landmarker([image], [face])[0]
        if not np.isfinite(points).all():
            raise ValueError("no face in this square")
        return points

    def _five_points(self, image: np.ndarray, center: np.ndarray, side: float) -> np.ndarray:
        """The five points [5,2] of the face in or near the square."""
        sides = np.array([side * size for _, _, size in SQUARES])
        shifts = np.array([shift for *shift, _ in SQUARES]) * side
        lows = center + shifts - sides[:, None] / 2
        crops = [_crop_square(image, low, width) for low, width in zip(lows, sides, strict=True)]
        pixels = (np.stack(crops).astype(np.float32) - 127.5) * 0.0078125
        scores, _, points = jax.device_get(self._onet(self._params, pixels))
        best = scores.argmax()
        if scores[best] < SURE:
            return (FIVE - 0.5) * side + center
        return lows[best] + points[best] * sides[best]


def _crop_square(image: np.ndarray, low: np.ndarray, width: float) -> np.ndarray:
    """uint8 [ONET_SIZE, ONET_SIZE, 3] of the square whose first corner is `low`."""
    scale = ONET_SIZE / width
    shift = -scale * low
    return crop_face(image, np.array([[scale, 0, shift[0]], [0, scale, shift[1]]]), ONET_SIZE)
