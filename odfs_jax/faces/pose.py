"""Head pose from 68 points: the mean head turned, scaled and moved until it lies on them.

Scaled orthography: a point X of the head appears at s * (R X)[:2] + t, with x to the picture's
right, y up and z to the viewer; R is a rotation.
"""

import cv2
import numpy as np

from odfs_jax.faces.landmarks68 import MEAN_HEAD

ROUNDS = 10  # of Gauss-Newton; it converges in about five
USED = slice(17, 68)  # not the jaw: its points follow the visible outline when a head turns


def rotation_of(landmarks: np.ndarray) -> np.ndarray:
    """Rotation [3,3] of the head whose points in the picture (y down) are `landmarks` [68,2].

    Least squares over rotation, scale and place. Raises ValueError when the points coincide.
    """
    head = MEAN_HEAD[USED] - MEAN_HEAD[USED].mean(0)
    seen = landmarks[USED] * (1.0, -1.0)
    seen = seen - seen.mean(0)  # the best place is where the centres meet, whatever the rotation
    affine = np.linalg.lstsq(head, seen, rcond=None)[0].T  # start: any linear map, made a rotation
    u, d, vt = np.linalg.svd(affine, full_matrices=False)
    if not d[1] > 1e-6:
        raise ValueError("points coincide: no head pose can be found")
    rows, scale = u @ vt, d.mean()
    rotation = np.stack([*rows, np.cross(*rows)])
    for _ in range(ROUNDS):
        x, y, z = rotation @ head.T
        zero = np.zeros_like(x)
        turned = scale * np.array([[zero, z, -y], [-z, zero, x]])  # d(picture) / d(small turn)
        jacobian = np.concatenate([turned, [[x], [y]]], axis=1)  # [2, 4, n], the last is scale
        residual = seen.T - scale * np.stack([x, y])
        step = np.linalg.lstsq(_rows(jacobian), residual.reshape(-1), rcond=None)[0]
        rotation = cv2.Rodrigues(step[:3])[0] @ rotation
        scale += step[3]
    return rotation


def angles_of(rotation: np.ndarray) -> tuple[float, float, float]:
    """(yaw, pitch, roll) in degrees of a head turned by roll first, then pitch, then yaw.

    yaw > 0: towards the picture's right; pitch > 0: up; roll > 0: counter-clockwise, the top of the
    head towards the picture's left.
    """
    yaw = np.arctan2(rotation[0, 2], rotation[2, 2])
    pitch = np.arcsin(np.clip(rotation[1, 2], -1, 1))
    roll = np.arctan2(rotation[1, 0], rotation[1, 1])
    return tuple(float(a) for a in np.degrees((yaw, pitch, roll)))


def rotation_from(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """The rotation [3,3] of these angles in degrees; the inverse of `angles_of`."""
    (cy, cp, cr), (sy, sp, sr) = np.cos(a := np.radians((yaw, pitch, roll))), np.sin(a)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def _rows(jacobian: np.ndarray) -> np.ndarray:
    """[2, k, n] to one row a residual, [2n, k]."""
    return jacobian.transpose(0, 2, 1).reshape(-1, jacobian.shape[1])
