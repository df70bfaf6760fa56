"""Alignment by the 68 points: of a face to its aligned picture, of one person's face to another's.

Points are (x, y) in pixels of any picture. A matrix is float64 [2, 3], see `affine`.
Sources: docs/reference_2018.md section 2; docs/from_deepfacelab.md; Umeyama, "Least-squares
estimation of transformation parameters between two point patterns", PAMI 13(4), 1991.
"""

import numpy as np

from odfs_jax.faces.affine import transform
from odfs_jax.faces.landmarks68 import EYES, MIRROR
from odfs_jax.faces.types import FaceType

INNER = slice(17, 68)  # brows, nose, eyes, mouth: the points that alignment uses
DFL_POINTS = (*range(17, 49), 54)  # DeepFaceLab 2.0: brows, nose, eyes, corners of the mouth
FRONTAL_SHARE = 0.25  # of a person's faces: those with the smallest yaw, both eyes seen alike
BRIDGE = 10  # of the mean face's points: the top of the nose, on its middle line

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
    """The least-squares similarity [2, 3] that maps points `source` [n, 2] onto `target` [n, 2].

    Raises ValueError when the source points coincide, for then no scale can be found.
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
    """face_from_image [2, 3]: from the picture of `landmarks` [68, 2] to its aligned face.

    The face is `size` x `size` pixels. The mean face is fitted to the points INNER, of DeepFaceLab
    2.0's types to DFL_POINTS, which leave out the lips: a mouth that opens does not make the face
    smaller. `mark_only` is not aligned: its matrix is the identity. Raises ValueError when the
    points coincide.
    """
    if face_type is FaceType.MARK_ONLY:
        return np.eye(2, 3)
    if face_type is FaceType.AVATAR:
        return _upright_matrix(landmarks, size)
    if face_type.is_dfl:
        return _dfl_matrix(landmarks, face_type, size)
    margin = face_type.padding * size
    shift = (margin, margin + face_type.shift * size)
    return umeyama(landmarks[INNER], MEAN_FACE * (size - 2 * margin) + shift)


def frontal_eyes(landmarks: list[np.ndarray], yaws: list[float], face_type: FaceType) -> np.ndarray:
    """The mean eye points [12, 2] of a person's most frontal faces, made symmetric.

    They tell a short face from a long one. Alignment fits all inner points, so it enlarges a person
    with a short nose and chin, and their eyes end up at another height than a long-faced person's.

    Args:
      landmarks: [68, 2] of each face, in any picture. Points that coincide raise ValueError.
      yaws: degrees, one a face.
      face_type: of the aligned picture, in shares of which the result is.
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
    """dst_from_src [2, 3]: scales and moves `src_eyes` [n, 2] onto `dst_eyes`, without a rotation.

    A swapped face laid so on dst's keeps src's own proportions, instead of taking dst's places for
    its features. The least-squares fit, in the units of the points.
    """
    middle_src, middle_dst = src_eyes.mean(0), dst_eyes.mean(0)
    src, dst = src_eyes - middle_src, dst_eyes - middle_dst
    scale = (src * dst).sum() / (src**2).sum()
    shift = middle_dst - scale * middle_src
    return np.array([[scale, 0.0, shift[0]], [0.0, scale, shift[1]]])


def _dfl_matrix(landmarks: np.ndarray, face_type: FaceType, size: int) -> np.ndarray:
    """As DeepFaceLab 2.0 has it; a head's square is moved to the side to which the head turns."""
    landmarks = np.asarray(landmarks, np.float64)
    points = list(DFL_POINTS)
    unit = umeyama(landmarks[points], MEAN_FACE[np.subtract(points, INNER.start)])
    scale = (1 - 2 * face_type.padding) * size
    aside = _turned_aside(transform(unit, landmarks)[:, 0]) if face_type is FaceType.DFL_HEAD else 0
    margin = face_type.padding * size
    shift = np.array([margin - aside * scale, margin + face_type.shift * size])
    return np.concatenate([unit[:, :2] * scale, (unit[:, 2] * scale + shift)[:, None]], axis=1)


def _turned_aside(x: np.ndarray) -> float:
    """How far a head's square is moved to the right, in sides of the mean face's unit square.

    `x` [68] are the points' in that square. The farther the nose is from one cheek than from the
    other, the farther the back of the head reaches out there.
    """
    right, left = x[[16, 15, 14]] - x[27:30], x[27:30] - x[:3]
    turned = right.mean() - left.mean()
    return turned * abs(np.tanh(2 * turned)) / 2


def _upright_matrix(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Places the mean of all points in the middle and the mean face over a third of it, upright."""
    similarity = umeyama(landmarks[INNER], MEAN_FACE)
    scale = np.sqrt(np.linalg.det(similarity[:, :2])) * size / 3
    linear = scale * np.eye(2)
    return np.concatenate([linear, (size / 2 - linear @ landmarks.mean(0))[:, None]], axis=1)
