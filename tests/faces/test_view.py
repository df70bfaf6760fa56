"""Views: the same face in other pixels, in colour and grey."""

import cv2
import numpy as np
import pytest

from odfs_jax.faces.align import MEAN_FACE, alignment_matrix, transform
from odfs_jax.faces.spec import View, between, colour, grey
from odfs_jax.faces.types import FaceType

VIEWS = [
    View(FaceType.HALF, 64), View(FaceType.FULL, 256), View(FaceType.HEAD, 96, grey=True),
    View(FaceType.WHOLE, 128),
]  # fmt: skip


@pytest.fixture
def picture():
    return np.random.default_rng(0).random((2, 8, 8, 3), np.float32)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("other", VIEWS)
def test_between_is_one_alignment_undone_and_the_other_done(view, other):
    rng = np.random.default_rng(1)
    points = np.concatenate([rng.random((17, 2)), MEAN_FACE + 0.03 * rng.normal(size=(51, 2))])
    landmarks = 300 * points @ np.array([[0.9, 0.3], [-0.3, 0.9]]) + 50
    seen, wanted = (
        transform(alignment_matrix(landmarks, v.face_type, v.resolution), landmarks)
        for v in (view, other)
    )
    np.testing.assert_allclose(transform(between(view, other), seen), wanted, atol=1e-3)


def test_a_view_and_itself_differ_in_nothing():
    for view in VIEWS:
        np.testing.assert_array_equal(between(view, view), np.eye(2, 3))


def test_grey_is_opencvs(picture):
    expected = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in picture])[..., None]
    np.testing.assert_allclose(grey(picture), expected, atol=1e-6)


def test_grey_goes_in_with_three_channels_and_comes_out_with_one(picture):
    plain, luma = View(FaceType.HALF, 8), View(FaceType.HALF, 8, grey=True)
    np.testing.assert_array_equal(plain.taken_in(picture), picture)
    np.testing.assert_array_equal(plain.given_out(picture), picture)
    np.testing.assert_array_equal(luma.given_out(picture), grey(picture))
    shown = luma.taken_in(picture)
    assert shown.shape == picture.shape
    np.testing.assert_array_equal(shown, colour(grey(picture)))
