"""Cutting squares out of pictures on the host."""

import cv2
import numpy as np
import pytest

from odfs_jax.faces import affine
from odfs_jax.faces.crop import crop_face, crop_face_fast


def wave(period, size=512):
    """A smooth picture: every channel a wave of `period` pixels, along another direction."""
    y, x = np.mgrid[:size, :size]
    phases = np.stack([x, y, x + y], -1) * 2 * np.pi / period
    return np.rint(127.5 + 100 * np.sin(phases)).astype(np.uint8)


def placed(scale, source, target, angle=0.0):
    """Matrix that turns, scales and brings the point `source` (x, y) to `target`."""
    linear = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.c_[linear, np.array(target) - linear @ np.array(source)]


@pytest.mark.parametrize("angle", [0.0, 0.3])
@pytest.mark.parametrize("cutter, margin", [(crop_face, 4), (crop_face_fast, 10)])
@pytest.mark.parametrize("scale", [3.0, 1.0, 0.7, 0.31, 0.125])
def test_pixels_land_where_the_matrix_says(scale, cutter, margin, angle):
    period = 40 / min(scale, 1)
    picture = wave(period)
    matrix = placed(scale, (250.3, 240.9), (31.2, 30.1), angle)
    found = cutter(picture, matrix, 64).astype(float)
    y, x = np.mgrid[:64, :64]
    points = affine.transform(affine.invert(matrix), np.stack([x, y], -1).reshape(-1, 2))
    phases = np.stack([points[:, 0], points[:, 1], points.sum(1)], -1) * 2 * np.pi / period
    expected = (127.5 + 100 * np.sin(phases)).reshape(64, 64, 3)
    inside = ((points > margin) & (points < 511 - margin)).all(1).reshape(64, 64)
    assert np.abs(found - expected)[inside].max() < 4


@pytest.mark.parametrize("cutter", [crop_face, crop_face_fast])
def test_detail_finer_than_the_square_is_averaged_away(cutter):
    board = np.zeros((512, 512, 3), np.uint8)
    board[::2, ::2] = board[1::2, 1::2] = 255
    found = cutter(board, placed(0.2, (256, 256), (32, 32)), 64).astype(float)
    assert np.abs(found - 127.5).max() < 20


def test_a_whole_shift_copies_pixels():
    picture = np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8)
    matrix = np.array([[1.0, 0, -7], [0, 1, -5]])
    np.testing.assert_array_equal(crop_face(picture, matrix, 32), picture[5:37, 7:39])


def test_the_edge_is_repeated_outside():
    picture = np.full((20, 20, 3), 9, np.uint8)
    picture[:, -1] = 200
    found = crop_face(picture, np.array([[1.0, 0, -10], [0, 1, 0]]), 32)
    assert (found[5, 15:] == 200).all()


@pytest.mark.parametrize("cutter", [crop_face, crop_face_fast])
def test_the_matrix_is_not_changed(cutter):
    matrix = placed(0.25, (50, 50), (8, 8))
    before = matrix.copy()
    cutter(np.zeros((100, 100, 3), np.uint8), matrix, 16)
    np.testing.assert_array_equal(matrix, before)


@pytest.mark.parametrize("scale", [1.2, 0.4, 0.06])
@pytest.mark.parametrize("middle", [(2.0, 3.0), (88.0, 40.0), (-300.0, 30.0), (45.0, 900.0)])
def test_a_rough_cut_repeats_the_edge_outside(scale, middle):
    coarse = np.random.default_rng(2).integers(0, 256, (2, 2, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (90, 71), interpolation=cv2.INTER_LINEAR)
    matrix = placed(scale, middle, (31.5, 31.5), 0.4)
    edge = 2000
    padded = np.pad(picture, ((edge, edge), (edge, edge), (0, 0)), mode="edge")
    moved = matrix.copy()
    moved[:, 2] -= matrix[:, :2] @ [edge, edge]
    near, far = (
        crop_face_fast(p, m, 64).astype(int) for p, m in ((picture, matrix), (padded, moved))
    )
    assert np.abs(near - far).mean() < (1 if scale > 0.1 else 5)  # cells start elsewhere


def test_a_picture_smaller_than_a_pixel_of_the_square():
    picture = np.full((5, 7, 3), 90, np.uint8)
    assert (crop_face_fast(picture, placed(0.05, (3, 3), (32, 32)), 64) == 90).all()
