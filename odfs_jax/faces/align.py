"""Alignment: from 68 points in any picture to the affine matrix of an aligned face.

Points are (x, y) in pixels with integer coordinates at pixel centres, as OpenCV has them. A matrix
is float64 [2, 3] and maps (x, y, 1) of the source picture to (x, y) of the aligned one.
Sources: docs/reference_2018.md section 2; Umeyama, "Least-squares estimation of
transformation parameters between two point patterns", PAMI 13(4), 1991.
"""

import numpy as np

from odfs_jax.faces.types import FaceType

INNER = slice(17, 68)  # brows, nose, eyes, mouth: the points that alignment uses

# fmt: off
MEAN_FACE_X = (
    0.000213256, 0.0752622, 0.18113, 0.29077, 0.393397, 0.586856, 0.689483, 0.799124, 0.904991,
    0.98004, 0.490127, 0.490127, 0.490127, 0.490127, 0.36688, 0.426036, 0.490127, 0.554217,
    0.613373, 0.121737, 0.187122, 0.265825, 0.334606, 0.260918, 0.182743, 0.645647, 0.714428,
    0.793132, 0.858516, 0.79751, 0.719335, 0.254149, 0.340985, 0.428858, 0.490127, 0.551395,
    0.639268, 0.726104, 0.642159, 0.556721, 0.490127, 0.423532, 0.338094, 0.290379, 0.428096,
    0.490127, 0.552157, 0.689874, 0.553364, 0.490127, 0.42689,
)
MEAN_FACE_Y = (
    0.106454, 0.038915, 0.0187482, 0.0344891, 0.0773906, 0.0773906, 0.0344891, 0.0187482, 0.038915,
    0.106454, 0.203352, 0.307009, 0.409805, 0.515625, 0.587326, 0.609345, 0.628106, 0.609345,
    0.587326, 0.216423, 0.178758, 0.179852, 0.231733, 0.245099, 0.244077, 0.231733, 0.179852,
    0.178758, 0.216423, 0.244077, 0.245099, 0.780233, 0.745405, 0.727388, 0.742578, 0.727388,
    0.745405, 0.780233, 0.864805, 0.902192, 0.909281, 0.902192, 0.864805, 0.784792, 0.778746,
    0.785343, 0.778746, 0.784792, 0.824182, 0.831803, 0.824182,
)
# fmt: on
MEAN_FACE = np.stack([MEAN_FACE_X, MEAN_FACE_Y], axis=-1)  # [51, 2] in the unit square


def umeyama(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares similarity [2, 3] that maps `source` [n, 2] onto `target` [n, 2].

    Raises ValueError when the source points coincide (no scale can be found).
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    mean_s, mean_t = source.mean(0), target.mean(0)
    s, t = source - mean_s, target - mean_t
    variance = (s**2).sum() / len(s)
    if not variance > 1e-12:
        raise ValueError("points coincide: no alignment can be found")
    u, d, vt = np.linalg.svd(t.T @ s / len(s))
    sign = np.array([1.0, np.sign(np.linalg.det(u @ vt)) or 1.0])  # never mirror
    rotation = u @ np.diag(sign) @ vt
    linear = rotation * ((d * sign).sum() / variance)
    return np.concatenate([linear, (mean_t - linear @ mean_s)[:, None]], axis=1)


def alignment_matrix(landmarks: np.ndarray, face_type: FaceType, size: int) -> np.ndarray:
    """Matrix [2, 3] from the picture of `landmarks` [68, 2] to a `size` x `size` aligned face.

    Of `mark_only`, which is not cut, the identity. Raises ValueError when the points coincide.
    """
    if face_type is FaceType.MARK_ONLY:
        return np.eye(2, 3)
    if face_type is FaceType.AVATAR:
        return _upright_matrix(landmarks, size)
    margin = face_type.padding * size
    shift = (margin, margin + face_type.shift * size)
    return umeyama(landmarks[INNER], MEAN_FACE * (size - 2 * margin) + shift)


def _upright_matrix(landmarks: np.ndarray, size: int) -> np.ndarray:
    """The mean of all points in the middle, the mean face a third of the picture, not turned."""
    similarity = umeyama(landmarks[INNER], MEAN_FACE)
    scale = np.sqrt(np.linalg.det(similarity[:, :2])) * size / 3
    linear = scale * np.eye(2)
    return np.concatenate([linear, (size / 2 - linear @ landmarks.mean(0))[:, None]], axis=1)


def invert(matrix: np.ndarray) -> np.ndarray:
    """The inverse of an affine matrix [..., 2, 3]."""
    inverse = np.linalg.inv(matrix[..., :2])
    return np.concatenate([inverse, -inverse @ matrix[..., 2:]], axis=-1)


def transform(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Applies `matrix` [2, 3] to `points` [..., 2]."""
    return points @ matrix[:, :2].T + matrix[:, 2]
