import numpy as np
import pytest

from odfs_jax.faces.align import MEAN_FACE, anchor_matrix, frontal_eyes, umeyama
from odfs_jax.faces.landmarks68 import EYES, MIRROR
from odfs_jax.faces.types import FaceType


def face(lower: float = 1.0) -> np.ndarray:
    """68 points whose part below the eyes is `lower` times as long; the jaw is a half circle."""
    angle = np.linspace(0, np.pi, 17)
    jaw = np.stack([0.49 - 0.6 * np.cos(angle), 0.3 + 0.8 * np.sin(angle)], axis=-1)
    points = np.concatenate([jaw, MEAN_FACE])
    points[:, 0] = (points[:, 0] + 0.98 - points[list(MIRROR), 0]) / 2  # symmetric
    below = points[:, 1] > 0.25
    points[below, 1] = 0.25 + lower * (points[below, 1] - 0.25)
    return 100 * points + 50


def test_a_longer_face_has_higher_eyes_which_the_anchor_brings_together() -> None:
    src = frontal_eyes([face(1.0)], [0.0], FaceType.FULL)
    dst = frontal_eyes([face(1.2)], [0.0], FaceType.FULL)
    assert dst[:, 1].mean() < src[:, 1].mean() - 0.005
    matrix = anchor_matrix(src, dst)
    moved = src @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(moved.mean(0), dst.mean(0), atol=1e-12)
    assert matrix[0, 0] == matrix[1, 1] == pytest.approx(0.9, abs=0.05)
    assert matrix[0, 1] == matrix[1, 0] == 0


def test_same_person_stays_in_place() -> None:
    eyes = frontal_eyes([face()], [0.0], FaceType.HALF)
    np.testing.assert_allclose(anchor_matrix(eyes, eyes), np.eye(3)[:2], atol=1e-12)


def test_only_frontal_faces_count_whatever_their_place_and_size() -> None:
    turned = face() * [0.5, 1.0]
    moved = face() * 3 + [700, 20]
    chosen = frontal_eyes([turned, moved, turned, turned], [30, 2, -30, 25], FaceType.FULL)
    np.testing.assert_allclose(chosen, frontal_eyes([face()], [0], FaceType.FULL), atol=1e-9)


def test_anchor_is_the_least_squares_answer_without_rotation() -> None:
    src = face()[EYES]
    dst = 1.3 * src + [4, -7]
    np.testing.assert_allclose(anchor_matrix(src, dst), umeyama(src, dst), atol=1e-9)
