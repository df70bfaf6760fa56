"""Smoothing of points over time: steadier, without lag, without losing a blink or a cut."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import savgol_coeffs

from odfs_jax.errors import UserError
from odfs_jax.extraction.smoothing import (
    OneEuro,
    Polynomial,
    build_smoother,
    eyes_open,
    fit_weights,
    noise_of,
)
from odfs_jax.faces import affine, align
from odfs_jax.faces.landmarks68 import MEAN_HEAD
from odfs_jax.faces.pose import rotation_from
from odfs_jax.faces.types import FaceType

POLYNOMIAL, ONE_EURO = Polynomial(3), OneEuro(0.15, 2.0, 0.3, 8)
BOTH = pytest.mark.parametrize("smoother", [POLYNOMIAL, ONE_EURO])
# Points that dlib68 found in the synthetic actor ben, and the exact ones, 1/64 pixels: made from
# ben.mp4 with the default settings. The performance jumps at frame CUT.
TRACK = np.load(Path(__file__).parent / "data" / "track_ben.npz")
CUT = 60


def heads(count, size=60.0):
    """The mean head in `count` frames, turning and moving evenly: [count,68,2]."""
    time = np.arange(count)[:, None, None]
    turned = np.stack([(MEAN_HEAD @ rotation_from(1.5 * t, 0, 0).T)[:, :2] for t in range(count)])
    return turned * (size, -size) + (200, 180) + time * (1.0, -0.5)


def smooth_all(smoother, points):
    out = []
    for i in range(len(points)):
        low, high = max(0, i - smoother.radius), min(len(points), i + smoother.radius + 1)
        out.append(smoother(np.arange(low, high), points[low:high], i - low))
    return np.stack(out)


def jitter(found, exact):
    """Mean second difference over time of the error in the aligned picture, points 17-67."""
    matrices = [align.alignment_matrix(points, FaceType.FULL, 256) for points in exact]
    residual = np.stack([
        affine.transform(m, f) - affine.transform(m, e)
        for m, f, e in zip(matrices, found, exact, strict=True)
    ])  # fmt: skip
    shots = np.split(residual[:, 17:], [CUT])
    return np.concatenate([np.linalg.norm(np.diff(s, 2, axis=0), axis=-1) for s in shots]).mean()


@pytest.mark.parametrize(("smoother", "most"), [(POLYNOMIAL, 0.5), (ONE_EURO, 0.6)])
def test_jitter_is_halved_on_an_actor_and_the_error_not_raised(smoother, most):
    found, exact = (TRACK[name] / 64.0 for name in ("found", "exact"))
    steady = smooth_all(smoother, found)  # across the cut, which it must notice
    assert jitter(steady, exact) < most * jitter(found, exact)
    error = [np.linalg.norm(p - exact, axis=-1)[:, 17:].mean(1) for p in (found, steady)]
    assert error[1].mean() < error[0].mean() * 1.005
    speed = np.linalg.norm(np.diff(exact, axis=0, prepend=exact[:1]), axis=-1).mean(1)
    fast = speed > np.percentile(speed, 85)
    if smoother is POLYNOMIAL:
        assert error[1].mean() < 0.98 * error[0].mean()
        assert error[1][fast].mean() < error[0][fast].mean()


def test_even_motion_is_left_alone():
    points = heads(1) + np.arange(13)[:, None, None] ** 2 * (0.3, -0.2)
    np.testing.assert_allclose(smooth_all(POLYNOMIAL, points), points, atol=1e-6)


@BOTH
def test_no_lag_behind_a_steady_move(smoother):
    points = heads(1) + np.arange(41)[:, None, None] * (2.0, 1.0)
    found = smooth_all(smoother, points)[20]
    np.testing.assert_allclose(found, points[20], atol=0.05)


@BOTH
def test_noise_goes_down(smoother):
    exact = heads(40)
    noisy = exact + np.random.default_rng(0).normal(0, 1.0, exact.shape)
    steady = smooth_all(smoother, noisy)
    assert np.std(steady - exact) < 0.75 * np.std(noisy - exact)


def test_a_blink_keeps_its_depth():
    exact = np.repeat(heads(1), 21, axis=0)
    middle = (exact[:, [41, 40, 47, 46]] + exact[:, [37, 38, 43, 44]]) / 2
    for frame, closed in ((9, 0.5), (10, 1.0), (11, 0.4)):
        for points in ([37, 38, 43, 44], [41, 40, 47, 46]):
            exact[frame, points] += closed * (middle[frame] - exact[frame, points])
    noisy = exact + np.random.default_rng(1).normal(0, 0.15, exact.shape)
    steady = smooth_all(POLYNOMIAL, noisy)
    assert abs(eyes_open(steady)[10] - eyes_open(noisy)[10]) < 0.1 * eyes_open(exact)[0]
    still = np.r_[0:6, 15:21]
    assert np.std((steady - exact)[still]) < 0.85 * np.std((noisy - exact)[still])


def test_a_cut_is_not_smeared():
    moved = np.add(heads(10), (60, 20))
    points = np.concatenate([heads(10), moved])
    noisy = points + np.random.default_rng(2).normal(0, 0.3, points.shape)
    steady = smooth_all(POLYNOMIAL, noisy)
    assert np.linalg.norm(steady - points, axis=-1).mean(1).max() < 0.6


@BOTH
@given(
    st.integers(0, 99), st.floats(-180, 180), st.floats(0.2, 5.0), st.floats(-300, 300),
    st.integers(1, 9),
)  # fmt: skip
def test_turning_the_picture_turns_the_result(smoother, seed, degrees, scale, shift, count):
    points = heads(count) + np.random.default_rng(seed).normal(0, 0.7, (count, 68, 2))
    c, s = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    turn = np.array([[c, s], [-s, c]])
    index, times = count // 2, np.arange(count)
    expected = smoother(times, points, index) @ turn + shift
    if smoother is ONE_EURO:  # its speed is measured in upright face sizes
        degrees = 0.0
        turn = scale * np.eye(2)
        expected = smoother(times, points, index) @ turn + shift
    found = smoother(times + 70, points @ turn + shift, index)
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(1, scale))


@BOTH
def test_single_frames_and_missing_ones(smoother):
    points = heads(9)
    np.testing.assert_allclose(smoother(np.array([5]), points[:1], 0), points[0], atol=1e-9)
    times = np.array([0, 1, 3, 4, 6])
    found = smoother(times, points[times], 2)
    assert np.abs(found - points[3]).max() < 0.5


@pytest.mark.parametrize("half", [2, 3, 5])
def test_weights_are_savitzky_golays(half):
    expected = savgol_coeffs(2 * half + 1, 2, use="dot")
    np.testing.assert_allclose(fit_weights(np.arange(-half, half + 1)), expected, atol=1e-12)


def test_noise_is_measured_under_motion_and_a_jump():
    time = np.arange(13.0)[:, None]
    noise = np.random.default_rng(0).normal(0, 0.5, (13, 200))
    jump = (time > 9) * 40.0
    assert 0.3 < noise_of(noise + 2 * time**2 + jump) < 0.8
    assert noise_of(noise[:3]) == 0 and noise_of(np.ones((9, 4))) == 0


def test_what_the_yaml_files_build(configure):
    assert build_smoother(configure().smoothing) == POLYNOMIAL
    assert build_smoother(configure("smoothing=one_euro").smoothing) == ONE_EURO
    assert build_smoother(configure("smoothing=none").smoothing) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["smoothing.name=kalman"], "smoothing.name=kalman: expected one of none, polynomial"),
        (["smoothing.args.frames=1"], "smoothing.args.frames=1: expected a number from 2 to 15"),
        (["+smoothing.args.beta=1"], "smoothing.args.beta: polynomial has no such setting"),
        (["smoothing=one_euro", "smoothing.args.min_cutoff=0"], "min_cutoff=0: expected"),
        (["smoothing=one_euro", "smoothing.args.radius=x"], "smoothing.args.radius=x: expected"),
    ],
)
def test_settings_that_make_no_sense_are_named(configure, settings, message):
    with pytest.raises(UserError, match=message):
        build_smoother(configure(*settings).smoothing)
