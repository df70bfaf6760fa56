"""The face types, and that one cut out of a larger one is the one cut out of the frame."""

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from odfs_jax.faces import affine, align
from odfs_jax.faces.crop import crop_face
from odfs_jax.faces.landmarks68 import MEAN_HEAD
from odfs_jax.faces.pose import rotation_from
from odfs_jax.faces.types import FaceType

PAIRS = [(a, b) for a in FaceType for b in FaceType if a.contains(b) and a is not b]
angles = st.tuples(st.floats(-50, 50), st.floats(-30, 30), st.floats(-180, 180))


def head(pose, scale=60.0, centre=(300.0, 280.0)):
    """68 points [68, 2] of the mean head turned by `pose` (degrees), in a picture."""
    points = MEAN_HEAD @ rotation_from(*pose).T
    return points[:, :2] * (scale, -scale) + centre


def test_padding_of_the_spec():
    types = ("half", "full", "head", "whole")
    assert [FaceType(name).padding for name in types] == [0, 12 / 64, 24 / 64, 0.40]
    assert [FaceType(name).shift for name in types] == [0, 0, 0, 0.07]
    for name in ("avatar", "mark_only"):
        with pytest.raises(ValueError, match=f"a {name} picture has no margin"):
            _ = FaceType(name).padding


@pytest.mark.parametrize(
    ("large", "small", "fits"),
    [
        ("full", "half", True),
        ("half", "full", False),
        ("head", "full", True),
        ("whole", "head", True),
        ("head", "whole", False),
        ("avatar", "full", True),
        ("avatar", "head", False),
        ("head", "avatar", False),
        ("mark_only", "avatar", True),
        ("full", "mark_only", False),
        ("full", "full", True),
        ("dfl_whole", "dfl_full", True),
        ("dfl_whole", "full", True),
        ("dfl_full", "half", True),
        ("dfl_full", "full", False),
        ("full", "dfl_full", False),
        ("dfl_head", "dfl_whole", False),
        ("dfl_head", "full", False),
        ("head", "dfl_whole", True),
    ],
)
def test_a_type_is_cut_out_of_a_larger_one_only(large, small, fits):
    assert FaceType(large).contains(FaceType(small)) == fits


def test_containing_is_an_order():
    for a in FaceType:
        assert a.contains(a)
        for b in FaceType:
            assert not (a.contains(b) and b.contains(a)) or a is b
            assert all(a.contains(c) for c in FaceType if a.contains(b) and b.contains(c))


@pytest.mark.parametrize(("large", "small"), [p for p in PAIRS if p[0] != "mark_only"])
@given(angles)
@settings(max_examples=15)
def test_the_smaller_square_lies_in_the_larger_one(large, small, pose):
    points = head(pose)
    outer, inner = (align.alignment_matrix(points, t, 1) for t in (large, small))
    corners = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    seen = affine.transform(outer, affine.transform(affine.invert(inner), corners))
    room = 1e-9
    if small.startswith("dfl") != large.startswith("dfl"):
        # DFL's squares turn with points of their own: a head turned far reaches out by half a
        # pixel, and one turned farther than this by up to a twentieth of the square.
        assume(abs(pose[0]) <= 45 and abs(pose[1]) <= 20)
        room = 2e-3
    assert (seen > -room).all() and (seen < 1 + room).all()


@pytest.mark.parametrize(("large", "small"), PAIRS)
@given(angles, st.integers(16, 512), st.integers(16, 512), st.integers(0, 99))
@settings(max_examples=12)
def test_aligning_in_two_steps_is_aligning_in_one(large, small, pose, size, other, seed):
    points = head(pose) + np.random.default_rng(seed).normal(0, 1.5, (68, 2))
    first = align.alignment_matrix(points, large, size)
    in_large = affine.transform(first, points)
    second = align.alignment_matrix(in_large, small, other)
    direct = align.alignment_matrix(points, small, other)
    assume(np.isfinite(direct).all())
    expected = affine.transform(direct, points)
    np.testing.assert_allclose(affine.transform(second, in_large), expected, atol=1e-3)


@pytest.mark.parametrize(("large", "small"), PAIRS)
def test_a_type_cut_out_of_a_larger_one_is_the_direct_cut(large, small):
    coarse = np.random.default_rng(5).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    frame = cv2.resize(coarse, (600, 560), interpolation=cv2.INTER_CUBIC)
    points = head((20, -10, 15))
    size = 1024 if large.turns or large == "avatar" else 1  # as fine as the frame or finer
    picture, in_picture = frame, points
    if large is not FaceType.MARK_ONLY:
        matrix = align.alignment_matrix(points, large, size)
        picture, in_picture = crop_face(frame, matrix, size), affine.transform(matrix, points)
    found = crop_face(picture, align.alignment_matrix(in_picture, small, 96), 96)
    direct = crop_face(frame, align.alignment_matrix(points, small, 96), 96)
    difference = np.abs(found.astype(int) - direct)
    assert difference.mean() < 0.7 and difference.max() < 12


def test_whole_shows_more_above_than_below():
    points = affine.transform(
        align.alignment_matrix(head((0, 0, 0)), FaceType.WHOLE, 100), head((0, 0, 0))
    )
    inner = points[align.INNER]
    np.testing.assert_allclose(inner.mean(0), align.MEAN_FACE.mean(0) * 20 + (40, 47), atol=0.5)


@given(angles)
def test_avatar_stands_upright_around_the_mean_of_the_points(pose):
    points = head(pose)
    matrix = align.alignment_matrix(points, FaceType.AVATAR, 256)
    assert matrix[0, 1] == matrix[1, 0] == 0 and matrix[0, 0] == matrix[1, 1] > 0
    np.testing.assert_allclose(affine.transform(matrix, points).mean(0), (128, 128))
    half = align.alignment_matrix(points, FaceType.HALF, 256)
    assert np.isclose(matrix[0, 0], np.sqrt(np.linalg.det(half[:, :2])) / 3)


def test_mark_only_is_the_frame_itself():
    matrix = align.alignment_matrix(head((5, 5, 5)), FaceType.MARK_ONLY, 640)
    np.testing.assert_array_equal(matrix, np.eye(2, 3))
