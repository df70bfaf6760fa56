"""Head pose: exact on the model's own head, whatever the rotation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odfs_jax.faces import pose
from odfs_jax.faces.landmarks68 import MEAN_HEAD, MIRROR

turns = st.tuples(st.floats(-70, 70), st.floats(-50, 50), st.floats(-170, 170))


def picture(rotation, scale=100.0, shift=(300.0, 200.0)):
    """The mean head as a camera far away sees it, y down."""
    return (MEAN_HEAD @ rotation.T)[:, :2] * (scale, -scale) + shift


@given(turns)
def test_angles_and_rotation_are_inverse(angles):
    rotation = pose.rotation_from(*angles)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    np.testing.assert_allclose(pose.angles_of(rotation), angles, atol=1e-7)


@settings(deadline=None, max_examples=50)
@given(turns, st.floats(5, 2000), st.floats(-500, 5000))
def test_the_rotation_of_a_picture_is_found(angles, scale, shift):
    found = pose.rotation_of(picture(pose.rotation_from(*angles), scale, (shift, -shift)))
    np.testing.assert_allclose(pose.angles_of(found), angles, atol=1e-4)


def test_noise_of_a_few_pixels_costs_a_few_degrees():
    noise = np.random.default_rng(0).normal(0, 2, (68, 2))
    found = pose.rotation_of(picture(pose.rotation_from(25, -10, 5)) + noise)
    np.testing.assert_allclose(pose.angles_of(found), (25, -10, 5), atol=4)


def test_points_that_coincide_are_refused():
    with pytest.raises(ValueError, match="coincide"):
        pose.rotation_of(np.full((68, 2), 5.0))


def test_signs():
    """yaw: the nose goes right; pitch: it goes up; roll: the brow goes left (picture, y down)."""
    front = picture(np.eye(3))
    nose, brow = 30, 27
    assert picture(pose.rotation_from(20, 0, 0))[nose, 0] > front[nose, 0]
    assert picture(pose.rotation_from(0, 20, 0))[nose, 1] < front[nose, 1]
    assert picture(pose.rotation_from(0, 0, 20))[brow, 0] < front[brow, 0]


def test_the_mean_head_is_symmetric_and_scaled():
    mirrored = MEAN_HEAD[list(MIRROR)] * (-1, 1, 1)
    np.testing.assert_allclose(mirrored, MEAN_HEAD, atol=1.01e-4)
    assert np.linalg.norm(MEAN_HEAD[36] - MEAN_HEAD[45]) == pytest.approx(1, abs=1e-3)


def test_mirror_is_its_own_inverse_and_keeps_parts():
    assert [MIRROR[i] for i in MIRROR] == list(range(68))
    for part in (range(17), range(17, 27), range(27, 36), range(36, 48), range(48, 68)):
        assert {MIRROR[i] for i in part} == set(part)
