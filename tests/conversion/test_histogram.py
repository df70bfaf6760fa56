"""Histogram match against scikit-image."""

import jax
import numpy as np
import pytest
from skimage.exposure import match_histograms

from odfs_jax.faces.colors import TRANSFERS


@jax.jit
def match(faces, targets, where):
    hist = TRANSFERS["hist"]
    return hist.apply(faces, hist.measure(faces, targets, where))


def faces(low: int, high: int, seed: int) -> np.ndarray:
    """uint8 [2, 24, 24, 3] with many empty bins, and full bins at the ends for the first face."""
    pixels = np.random.default_rng(seed).normal((low + high) / 2, (high - low) / 3, (2, 24, 24, 3))
    return np.clip(np.rint(pixels), low, high).astype(np.uint8)


@pytest.mark.parametrize(
    "ranges", [((40, 90), (10, 250)), ((0, 255), (100, 120)), ((5, 6), (0, 255))]
)
def test_equals_scikit_image(ranges):
    source, target = faces(*ranges[0], 0), faces(*ranges[1], 1)
    where = np.random.default_rng(2).random((2, 24, 24, 1)) < 0.6
    scaled = (source / np.float32(255), target / np.float32(255))
    matched = np.asarray(match(*scaled, where)) * 255
    for i in range(2):
        inside = where[i, ..., 0]
        for channel in range(3):  # one by one, for with channels it cuts the decimals off
            pair = (face[i, ..., channel][inside] for face in (source, target))
            expected = match_histograms(*pair)
            np.testing.assert_allclose(matched[i, ..., channel][inside], expected, atol=0.01)


def test_values_between_bins_are_interpolated():
    """A smooth ramp stays smooth: no bands, although the tables have 256 entries."""
    ramp = np.broadcast_to(np.linspace(0.4, 0.45, 64 * 64, dtype=np.float32)[:, None], (4096, 3))
    ramp = ramp.reshape(1, 64, 64, 3)
    target = np.random.default_rng(0).random((1, 64, 64, 3), np.float32)
    matched = np.asarray(match(ramp, target, np.ones((1, 64, 64, 1), bool)))
    assert len(np.unique(matched[0, ..., 0])) > 2000


def test_nothing_to_count_changes_nothing():
    source, target = (f / np.float32(255) for f in (faces(0, 99, 0), faces(100, 255, 1)))
    where = np.zeros((2, 24, 24, 1), bool)
    where[1] = True
    matched = match(source, target, where)
    np.testing.assert_array_equal(matched[0], source[0])
    assert abs(float(matched[1].mean()) - target[1].mean()) < 0.01
