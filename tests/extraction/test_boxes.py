"""Box arithmetic against slow and obvious forms."""

import numpy as np
import pytest

from odfs_jax.extraction import boxes


def random_boxes(n, seed=0):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 60, (n, 2))
    return np.concatenate([corner, corner + rng.uniform(5, 50, (n, 2))], 1).astype(np.float32)


def pixels(box):
    """A picture of the box, for counting overlaps."""
    picture = np.zeros((130, 130), bool)
    picture[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])] = True
    return picture


def test_union_overlap_counts_pixels():
    found = np.rint(random_boxes(12))
    one, rest = found[0], found[1:]
    expected = [(pixels(one) & pixels(b)).sum() / (pixels(one) | pixels(b)).sum() for b in rest]
    np.testing.assert_allclose(boxes.union_overlap(one, rest), expected, rtol=1e-6)


def test_smaller_overlap_of_a_box_inside_another_is_one():
    inside, outside = np.array([10, 10, 20, 20.0]), np.array([[0, 0, 100, 100.0]])
    np.testing.assert_allclose(boxes.smaller_overlap(inside, outside), 1)


@pytest.mark.parametrize("seed", range(5))
def test_suppression(seed):
    found, scores = random_boxes(60, seed), np.random.default_rng(seed).uniform(0, 1, 60)
    kept = boxes.suppress(found, scores, 0.4)
    assert (np.diff(scores[kept]) <= 0).all()
    for i in range(60):  # a box stays exactly if no better one that stays covers it
        better = [k for k in kept if scores[k] > scores[i]]
        covered = any(boxes.union_overlap(found[i], found[[k]])[0] > 0.4 for k in better)
        assert (i in kept) == (not covered)


def test_suppression_of_nothing():
    assert len(boxes.suppress(np.zeros((0, 4)), np.zeros(0), 0.5)) == 0


def test_square_keeps_center_and_longer_side():
    found = random_boxes(20)
    squares = boxes.square(found)
    np.testing.assert_allclose(squares[:, :2] + squares[:, 2:], found[:, :2] + found[:, 2:], 1e-5)
    side = squares[:, 2:] - squares[:, :2]
    np.testing.assert_allclose(
        side, np.max(found[:, 2:] - found[:, :2], 1)[:, None] * [[1, 1]], 1e-4
    )


def test_shift_edges():
    moved = boxes.shift_edges(np.array([[10, 20, 30, 60.0]]), np.array([[0.1, -0.1, 0.2, 0.5]]), 0)
    np.testing.assert_allclose(moved, [[12, 16, 34, 80]])


def test_pixel_rects_stay_inside_and_say_what_is_outside():
    found = np.array([[-5.5, 3.9, 20.2, 30.7], [60, 5, 90, 20], [-30, -30, -3, -3]], np.float32)
    rects = boxes.pixel_rects(found, 50, 25)
    assert rects.dtype == np.int32
    np.testing.assert_array_equal(rects[0], [0, 2, 20, 25])
    assert all((r[2:] <= r[:2]).any() for r in rects[1:])
