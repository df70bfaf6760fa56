"""Where a person's eyes are in an aligned face, and laying one person's face on another's by them.

Alignment fits all inner points, so a person with a short nose and chin is enlarged, and their eyes
end up at another height than a long-faced person's. Swapped as they are, the features take dst's
places. Anchored at the eyes, src's face keeps its own proportions.
"""

import numpy as np

from odfs_jax.faces.align import MEAN_FACE_X, alignment_matrix, transform
from odfs_jax.faces.landmarks68 import MIRROR
from odfs_jax.faces.types import FaceType

EYES = slice(36, 48)
FRONTAL_SHARE = 0.25  # of the faces: those with the smallest yaw, in which both eyes are seen alike
BRIDGE = 10  # of the mean face's points: the top of the nose, on its middle line


def frontal_eyes(landmarks: list[np.ndarray], yaws: list[float], face_type: FaceType) -> np.ndarray:
    """The mean eye points [12, 2] of a person's most frontal faces, made symmetric.

    `landmarks` are [68, 2] each in any picture, `yaws` in degrees; the result is in shares of the
    aligned picture of `face_type`. Faces whose points make no alignment must not be given.
    """
    count = max(1, round(FRONTAL_SHARE * len(yaws)))
    chosen = np.argsort(np.abs(yaws), kind="stable")[:count]
    faces = [transform(alignment_matrix(landmarks[i], face_type, 1), landmarks[i]) for i in chosen]
    mean = np.mean(faces, axis=0)
    mirrored = mean[list(MIRROR)]
    middle = MEAN_FACE_X[BRIDGE] * (1 - 2 * face_type.padding) + face_type.padding
    mirrored[:, 0] = 2 * middle - mirrored[:, 0]
    return ((mean + mirrored) / 2)[EYES]


def anchor_matrix(src_eyes: np.ndarray, dst_eyes: np.ndarray) -> np.ndarray:
    """Matrix [2, 3] that scales and moves `src_eyes` [n, 2] onto `dst_eyes`, without turning them.

    Least squares; in the units of the points, from src's aligned picture to dst's.
    """
    middle_src, middle_dst = src_eyes.mean(0), dst_eyes.mean(0)
    src, dst = src_eyes - middle_src, dst_eyes - middle_dst
    scale = (src * dst).sum() / (src**2).sum()
    shift = middle_dst - scale * middle_src
    return np.array([[scale, 0.0, shift[0]], [0.0, scale, shift[1]]])
