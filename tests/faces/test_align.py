"""Alignment matrices: similarities that bring the mean face where the spec puts it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.transform import SimilarityTransform

from odfs_jax.faces import affine, align
from odfs_jax.faces.types import FaceType

angles, scales = st.floats(-180, 180), st.floats(0.5, 2000)
shifts = st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))


def similarity(degrees, scale, shift):
    c, s = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


def face(matrix):
    """68 points whose inner ones are the mean face under `matrix`."""
    return np.concatenate([np.zeros((17, 2)), affine.transform(matrix, align.MEAN_FACE)])


@given(angles, scales, shifts)
def test_a_similarity_is_recovered(degrees, scale, shift):
    matrix = similarity(degrees, scale, shift)
    found = align.umeyama(align.MEAN_FACE, affine.transform(matrix, align.MEAN_FACE))
    np.testing.assert_allclose(found, matrix, atol=1e-6 * scale + 1e-6)


@given(angles, scales, shifts, st.integers(0, 99))
def test_points_come_back(degrees, scale, shift, seed):
    landmarks = face(similarity(degrees, scale, shift))
    landmarks += np.random.default_rng(seed).normal(0, 0.02 * scale, (68, 2))
    matrix = align.alignment_matrix(landmarks, FaceType.FULL, 256)
    linear = matrix[:, :2]  # a similarity: a rotation times a positive number, no mirror image
    size = np.linalg.det(linear)
    assert size > 0
    np.testing.assert_allclose(linear @ linear.T, size * np.eye(2), atol=1e-9 * size)
    back = affine.transform(affine.invert(matrix), affine.transform(matrix, landmarks))
    np.testing.assert_allclose(back, landmarks, atol=1e-3)


def test_equals_scikit_image_on_noisy_points():
    rng = np.random.default_rng(3)
    source = rng.normal(0, 50, (51, 2)) + 200
    target = source @ np.array([[0.3, -0.8], [0.7, 0.4]]) + rng.normal(0, 5, (51, 2))
    expected = SimilarityTransform.from_estimate(source, target).params[:2]
    np.testing.assert_allclose(align.umeyama(source, target), expected, atol=1e-9)


@pytest.mark.parametrize(("face_type", "padding"), [("half", 0), ("full", 48), ("head", 96)])
def test_the_mean_face_fills_the_square_up_to_the_padding(face_type, padding):
    matrix = align.alignment_matrix(face(similarity(10, 90, (50, 70))), FaceType(face_type), 256)
    seen = affine.transform(matrix, face(similarity(10, 90, (50, 70))))[17:]
    np.testing.assert_allclose(seen, align.MEAN_FACE * (256 - 2 * padding) + padding, atol=1e-6)


def test_a_mirrored_face_is_not_mirrored_back():
    mirrored = align.MEAN_FACE * (-1, 1)
    assert np.linalg.det(align.umeyama(mirrored, align.MEAN_FACE)[:, :2]) > 0


def test_points_that_coincide_are_refused():
    with pytest.raises(ValueError, match="coincide"):
        align.umeyama(np.ones((51, 2)), align.MEAN_FACE)


def test_batches_of_matrices_are_inverted():
    matrices = np.stack([similarity(30, 2, (5, 6)), similarity(-70, 0.3, (1, 2))])
    for matrix, inverse in zip(matrices, affine.invert(matrices), strict=True):
        np.testing.assert_allclose(affine.invert(matrix), inverse)


# DeepFaceLab 2.0: mean face of 200 pixels a unit at (100, 50), a square of 256 pixels
DFL_CROPS = {
    "full": [[0.8, 0, -32], [0, 0.8, 8]],
    "dfl_half": [[1.28, 0, -128], [0, 1.28, -64]],
    "dfl_full": [[0.801693, 0, -32.338592], [0, 0.801693, 7.746058]],
    "dfl_whole": [[0.600552, 0, 7.889509], [0, 0.600552, 46.324866]],
    "dfl_head": [[0.429545, 0, 42.09105], [0, 0.429545, 106.52276]],
}


def frontal_face():
    """The mean face, with a symmetric jaw."""
    points = face(similarity(0, 200, (100, 50)))
    middle = points[27, 0]
    points[:17] = np.stack([middle + 100 * np.linspace(-1, 1, 17), np.full(17, 200.0)], axis=1)
    points[27:30, 0] = middle
    return points


@pytest.mark.parametrize("face_type", DFL_CROPS)
def test_the_crops_of_deepfacelab(face_type):
    matrix = align.alignment_matrix(frontal_face(), FaceType(face_type), 256)
    np.testing.assert_allclose(matrix, DFL_CROPS[face_type], atol=1e-4)


def test_an_open_mouth_makes_a_face_smaller_in_2018_only():
    points = frontal_face()
    points[[*range(55, 60), *range(65, 68)]] += (0, 25)
    scales = [align.alignment_matrix(points, FaceType(t), 256)[0, 0] for t in ("full", "dfl_full")]
    np.testing.assert_allclose(np.multiply(scales, 200), [150.21, 160.339], atol=0.01)


def test_a_head_that_turns_moves_its_square_to_that_side():
    points = frontal_face()
    straight = align.alignment_matrix(points, FaceType.DFL_HEAD, 256)
    points[14:17, 0] += 60  # the cheek on the right is the farther one by 60 px, 0.3 of the unit
    matrix = align.alignment_matrix(points, FaceType.DFL_HEAD, 256)
    moved = -0.3 * np.tanh(0.6) / 2 * 85.909
    np.testing.assert_allclose(matrix - straight, [[0, 0, moved], [0, 0, 0]], atol=1e-3)
