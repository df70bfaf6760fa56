"""Which faces are kept, each limit on its own, against numbers worked out by hand."""

import numpy as np
import pytest

from odfs_jax.errors import UserError
from odfs_jax.extraction.detection import Detection
from odfs_jax.extraction.filters import LargestFilter, PlausibilityFilter, build_filters
from odfs_jax.faces.align import MEAN_FACE
from odfs_jax.faces.landmarks68 import MEAN_HEAD
from odfs_jax.faces.pose import rotation_from

LOOSE = {
    "min_score": 0.0, "min_size": 1.0, "min_area": 0.0, "max_area": 100.0, "max_shape": 10.0,
    "max_roll": None,
}  # fmt: skip


def face(side=100.0, box=200.0, score=0.9, roll=0.0, noise=0.0):
    """A mean face of `side` pixels turned by `roll` degrees, in a box of `box` pixels."""
    c, s = np.cos(np.radians(roll)), np.sin(np.radians(roll))
    inner = MEAN_FACE + np.random.default_rng(0).normal(0, noise, MEAN_FACE.shape)
    points = np.concatenate([np.zeros((17, 2)), inner]) @ np.array([[c, s], [-s, c]]) * side
    return Detection(np.array([0.0, 0, box, box]), None, score, points, "exact")


@pytest.mark.parametrize(
    ("limit", "good", "bad", "reason"),
    [
        ({"min_score": 0.8}, {}, {"score": 0.75}, "score 0.75 below 0.8"),
        ({"min_size": 60}, {"side": 61}, {"side": 59}, "59 pixels from brows to lips, fewer"),
        ({"min_area": 0.2}, {}, {"box": 240}, "points cover 0.17 of the box's area, not 0.2 to"),
        ({"max_area": 0.5}, {}, {"box": 100}, "points cover 1.00 of the box's area, not 0 to 0.5"),
        ({"max_shape": 0.1}, {"noise": 0.05}, {"noise": 0.2}, "from the mean face, above 0.1"),
        ({"max_roll": 45.0}, {"roll": -44}, {"roll": -46}, "beyond 45"),
    ],
)
def test_each_limit(limit, good, bad, reason):
    filters = PlausibilityFilter(**LOOSE | limit)
    kept, dropped = filters(None, [face(**bad), face(**good)])
    assert len(kept) == 1 and len(dropped) == 1
    np.testing.assert_array_equal(kept[0].landmarks, face(**good).landmarks)
    assert reason in dropped[0].reason and dropped[0].rect[2] == face(**bad).box[2]
    assert PlausibilityFilter(**LOOSE)(None, [face(**bad)])[1] == []


@pytest.mark.parametrize("points", [np.full((68, 2), np.nan), np.ones((68, 2))])
def test_points_of_no_face_go_whatever_the_limits(points):
    found = Detection(np.array([0.0, 0, 9, 9]), None, 1.0, points, "exact")
    kept, dropped = PlausibilityFilter(**LOOSE)(None, [found])
    assert kept == [] and dropped[0].reason == "points of no face"


def test_the_largest_stay_in_their_order():
    faces = [face(box=box) for box in (50, 90, 10, 70)]
    kept, dropped = LargestFilter(2)(None, faces)
    assert [f.box[2] for f in kept] == [90, 70] and [d.rect[2] for d in dropped] == [50, 10]
    assert dropped[0].reason == "not among the 2 largest of the frame"
    assert LargestFilter(4)(None, faces) == (faces, []) and LargestFilter(1)(None, []) == ([], [])


@pytest.mark.parametrize(
    ("settings", "max_faces", "message"),
    [
        ({"min_score": 2.0}, None, r"filters.min_score=2.0: expected a number from 0 to 1"),
        ({"min_size": None}, None, r"filters.min_size=None"),
        ({"max_roll": -1.0}, None, r"filters.max_roll=-1.0"),
        ({}, 0, r"max_faces=0: expected 1 or more"),
    ],
)
def test_limits_that_make_no_sense_are_named(settings, max_faces, message):
    with pytest.raises(UserError, match=message):
        build_filters(LOOSE | settings, max_faces)


def test_the_defaults_keep_the_actors_and_a_profile(configure, actor_faces):
    (filters,) = build_filters(configure().filters, None)
    points = [data.source.landmarks for _, data in actor_faces.values()]
    points += [(MEAN_HEAD @ rotation_from(yaw, 0, 0).T)[:, :2] * (90, -90) for yaw in (-90, 0, 90)]
    for landmarks in points:
        low, high = landmarks[17:].min(0), landmarks[17:].max(0)
        box = np.concatenate([low - 0.1 * (high - low), high + 0.2 * (high - low)])
        assert filters.reason(Detection(box, None, 0.7, landmarks, "exact")) is None
    cloud = np.random.default_rng(0).uniform(0, 100, (68, 2))
    box = np.array([0.0, 0, 100, 100])
    assert filters.reason(Detection(box, None, 0.7, cloud, "exact")) is not None
