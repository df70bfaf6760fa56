"""Head pose from the 68 points: the mean head, rotated, scaled and moved until it lies on them.

By scaled orthography a point X of the head appears at s * (R X)[:2] + t, with x to the picture's
right, y up and z to the viewer; R is a rotation.
"""

import cv2
import numpy as np

from odfs_jax.faces.landmarks68 import MEAN_HEAD

NEAR = 12.0  # degrees of yaw and pitch within which a pose of src serves one of dst
ITERATIONS = 10  # of Gauss-Newton; it converges in about five
RIGID = slice(17, 68)  # not the jaw: its points follow the visible outline when a head turns


def rotation_of(landmarks: np.ndarray) -> np.ndarray:
    """Rotation [3,3] of the head whose points in a picture (y down) are `landmarks` [68,2].

    Least squares over rotation, scale and position. Raises ValueError when the points coincide.
    """
    head = MEAN_HEAD[RIGID] - MEAN_HEAD[RIGID].mean(0)
    points = landmarks[RIGID] * (1.0, -1.0)
    points = points - points.mean(0)  # the best position joins the centers, whatever the rotation
    affine = np.linalg.lstsq(head, points, rcond=None)[0].T  # the best linear map ...
    u, d, vt = np.linalg.svd(affine, full_matrices=False)
    if not d[1] > 1e-6:
        raise ValueError("points coincide: no head pose can be found")
    rows, scale = u @ vt, d.mean()  # ... and the nearest rotation, to start from
    rotation = np.stack([*rows, np.cross(*rows)])
    for _ in range(ITERATIONS):
        x, y, z = rotation @ head.T
        zero = np.zeros_like(x)
        turned = scale * np.array([[zero, z, -y], [-z, zero, x]])  # d(points) / d(small rotation)
        jacobian = np.concatenate([turned, [[x], [y]]], axis=1)  # [2, 4, n], the last is scale
        residual = points.T - scale * np.stack([x, y])
        step = np.linalg.lstsq(_rows(jacobian), residual.reshape(-1), rcond=None)[0]
        rotation = cv2.Rodrigues(step[:3])[0] @ rotation
        scale += step[3]
    return rotation


def angles_of(rotation: np.ndarray) -> tuple[float, float, float]:
    """(yaw, pitch, roll) in degrees of a rotation [3,3] that is roll first, then pitch, then yaw.

    yaw > 0: towards the picture's right; pitch > 0: up; roll > 0: counter-clockwise, the top of the
    head towards the picture's left.
    """
    yaw = np.arctan2(rotation[0, 2], rotation[2, 2])
    pitch = np.arcsin(np.clip(rotation[1, 2], -1, 1))
    roll = np.arctan2(rotation[1, 0], rotation[1, 1])
    return tuple(float(a) for a in np.degrees((yaw, pitch, roll)))


def rotation_from(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """The rotation [3,3] by `roll` first, then `pitch`, then `yaw` degrees; see `angles_of`."""
    (cy, cp, cr), (sy, sp, sr) = np.cos(a := np.radians((yaw, pitch, roll))), np.sin(a)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def _rows(jacobian: np.ndarray) -> np.ndarray:
    """A Jacobian [2, k, n] with one row a residual: [2n, k]."""
    return jacobian.transpose(0, 2, 1).reshape(-1, jacobian.shape[1])


def lacking(src: np.ndarray, dst: np.ndarray) -> np.ndarray:
    """bool [M]: the poses in `dst` that no pose in `src` is NEAR, so that src was not seen so.

    `src` [N, 2] and `dst` [M, 2] are yaw and pitch in degrees. Training sees mirror images of src
    too.
    """
    seen = np.concatenate([src, src * (-1, 1)])
    seen = np.unique(np.round(seen / 2), axis=0) * 2  # bounded, however many faces there are
    if not len(seen):
        return np.ones(len(dst), bool)
    return np.array([np.abs(seen - pose).max(-1).min() > NEAR for pose in dst], bool)
