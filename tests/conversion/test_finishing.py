"""Sharpening and degrading against OpenCV, Pillow and a JPEG encoder."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from odfs_jax.conversion.finishing import (
    MOST_MEDIANS,
    SMALLEST,
    degrade,
    gaussian,
    median,
    sharpen,
)


def degraded(pictures: jax.Array, bicubic=0.0, denoise=0.0, jpeg=0.0) -> jax.Array:
    return degrade(pictures, bicubic, denoise, jpeg)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """uint8 [2, 37, 50, 3]: waves, an edge and noise; sides that no block divides."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:37, :50]
    waves = 110 + 60 * np.sin(x / 3) * np.cos(y / 5) + 50 * (x > 30)
    noisy = waves[None, ..., None] + rng.normal(0, 12, (2, 37, 50, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def in_unit_range(pictures: np.ndarray) -> jax.Array:
    return jnp.asarray(pictures, jnp.float32) / 255


def blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    size = 2 * round(3 * sigma) + 1
    return cv2.GaussianBlur(picture, (size, size), sigma, borderType=cv2.BORDER_REPLICATE)


@pytest.mark.parametrize("sigma", [1.0, 2.5])
def test_gaussian_equals_opencv(pictures, sigma):
    ours = jax.jit(gaussian, static_argnums=1)(in_unit_range(pictures), sigma)
    for one, picture in zip(ours, pictures, strict=True):
        expected = blurred(picture.astype(np.float64) / 255, sigma)
        np.testing.assert_allclose(one, expected, atol=1e-5)


def test_median_equals_opencv(pictures):
    ours = np.rint(np.asarray(jax.jit(median)(in_unit_range(pictures))) * 255)
    for one, picture in zip(ours, pictures, strict=True):
        np.testing.assert_array_equal(one, cv2.medianBlur(picture, 3))


def test_sharpening_adds_what_a_gaussian_takes(pictures):
    ours = sharpen(in_unit_range(pictures), 0.7, "gaussian")
    for one, picture in zip(ours, pictures / 255, strict=True):
        expected = np.clip(picture + 0.7 * (picture - blurred(picture, 1.0)), 0, 1)
        np.testing.assert_allclose(one, expected, atol=1e-5)


def test_unsharp_leaves_color_and_noise_alone(pictures):
    change = np.asarray(sharpen(in_unit_range(pictures), 1.0, "unsharp")) - pictures / 255
    inside = ((pictures > 60) & (pictures < 190)).all(-1)  # not clipped
    np.testing.assert_allclose(np.ptp(change[inside], axis=-1), 0, atol=1e-5)
    assert np.abs(change).max() > 0.05
    faint = np.random.default_rng(1).integers(127, 130, (1, 20, 20, 3))
    np.testing.assert_array_equal(
        sharpen(in_unit_range(faint), 1.0, "unsharp"), in_unit_range(faint)
    )


def test_nothing_asked_for_changes_nothing(pictures):
    picture = in_unit_range(pictures)
    assert degraded(picture) is picture
    np.testing.assert_array_equal(sharpen(picture, 0.0, "gaussian"), picture)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_resizing_equals_pillow(pictures, share):
    ours = degraded(in_unit_range(pictures), bicubic=share)
    kept = 1 - (1 - SMALLEST) * share
    for one, picture in zip(ours, pictures, strict=True):
        for channel in range(3):
            plane = Image.fromarray(picture[..., channel].astype(np.float32) / 255)
            small = (round(50 * kept), round(37 * kept))
            there = plane.resize(small, Image.Resampling.BICUBIC)
            back = np.asarray(there.resize((50, 37), Image.Resampling.BICUBIC))
            np.testing.assert_allclose(one[..., channel], back.clip(0, 1), atol=1e-4)


def test_denoising_is_medians_in_part_or_whole(pictures):
    picture = in_unit_range(pictures)
    once = median(picture)
    np.testing.assert_allclose(degraded(picture, denoise=1 / MOST_MEDIANS), once, atol=1e-6)
    half = degraded(picture, denoise=0.5 / MOST_MEDIANS)
    np.testing.assert_allclose(half, (picture + once) / 2, atol=1e-6)


@pytest.mark.parametrize("quality", [90, 50, 20])
def test_jpeg_equals_an_encoder_on_gray(pictures, quality):
    ours = degraded(
        jnp.repeat(in_unit_range(pictures[..., :1]), 3, axis=-1), jpeg=(100 - quality) / 95
    )
    for one, picture in zip(ours, pictures[..., 0], strict=True):
        coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        expected = cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE) / 255
        # A coefficient that lies between two steps may fall to either.
        difference = np.abs(np.asarray(one) - expected[..., None])
        assert difference.mean() < 0.006 and np.quantile(difference, 0.99) < 0.04
        assert np.abs(np.asarray(one) - picture[..., None] / 255).mean() > 3 * difference.mean()
