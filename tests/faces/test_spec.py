"""Face specs: the same face in other pixels, in color and gray."""

import cv2
import numpy as np
import pytest

from odfs_jax.faces.affine import transform
from odfs_jax.faces.align import MEAN_FACE, alignment_matrix
from odfs_jax.faces.spec import FaceSpec, to_gray, to_rgb
from odfs_jax.faces.types import FaceType

SPECS = [
    FaceSpec(FaceType.HALF, 64),
    FaceSpec(FaceType.FULL, 256),
    FaceSpec(FaceType.HEAD, 96, gray=True),
    FaceSpec(FaceType.WHOLE, 128),
]


@pytest.fixture
def picture():
    return np.random.default_rng(0).random((2, 8, 8, 3), np.float32)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("other", SPECS)
def test_matrix_from_is_one_alignment_undone_and_the_other_done(spec, other):
    rng = np.random.default_rng(1)
    points = np.concatenate([rng.random((17, 2)), MEAN_FACE + 0.03 * rng.normal(size=(51, 2))])
    landmarks = 300 * points @ np.array([[0.9, 0.3], [-0.3, 0.9]]) + 50
    seen, wanted = (
        transform(alignment_matrix(landmarks, v.face_type, v.resolution), landmarks)
        for v in (spec, other)
    )
    np.testing.assert_allclose(transform(other.matrix_from(spec), seen), wanted, atol=1e-3)


def test_a_spec_and_itself_differ_in_nothing():
    for spec in SPECS:
        np.testing.assert_array_equal(spec.matrix_from(spec), np.eye(2, 3))


def test_gray_is_opencvs(picture):
    expected = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in picture])[..., None]
    np.testing.assert_allclose(to_gray(picture), expected, atol=1e-6)


def test_gray_goes_in_with_three_channels_and_comes_out_with_one(picture):
    plain, luma = FaceSpec(FaceType.HALF, 8), FaceSpec(FaceType.HALF, 8, gray=True)
    np.testing.assert_array_equal(plain.to_input(picture), picture)
    np.testing.assert_array_equal(plain.to_target(picture), picture)
    np.testing.assert_array_equal(luma.to_target(picture), to_gray(picture))
    shown = luma.to_input(picture)
    assert shown.shape == picture.shape
    np.testing.assert_array_equal(shown, to_rgb(to_gray(picture)))
