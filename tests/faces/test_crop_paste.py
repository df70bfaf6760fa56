"""Faces cropped out of pictures and pasted back on the device, against OpenCV."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from odfs_jax.faces.affine import invert
from odfs_jax.faces.warp import crop_faces, paste_faces

crop_jit = jax.jit(crop_faces, static_argnums=(2, 3))
paste_jit = jax.jit(paste_faces, static_argnums=(2, 3), static_argnames=("supersample", "enlarge"))

HEIGHT, WIDTH, SIZE = 90, 110, 48
MATRICES = np.array(
    [
        [[1.0, 0.0, -20.0], [0.0, 1.0, -15.0]],
        [[0.6, 0.25, -9.3], [-0.25, 0.6, 11.7]],
        [[1.4, -0.3, 20.2], [0.3, 1.4, -60.1]],  # part of the crop lies outside the picture
    ],
    np.float32,
)


def pictures(count: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    noise = np.random.default_rng(0).random((count, height, width, 3), np.float32)
    return np.stack([cv2.GaussianBlur(image, (0, 0), 1) for image in noise])


def warp(image: np.ndarray, matrix: np.ndarray, width: int, height: int) -> np.ndarray:
    """OpenCV's bilinear warp; `matrix` maps output to input."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(
        image, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )


def test_crop_equals_warp_affine():
    images = pictures(3)
    crops = crop_jit(images, MATRICES, SIZE, 1)
    for image, matrix, crop in zip(images, MATRICES, crops, strict=True):
        expected = warp(image, invert(matrix.astype(np.float64)), SIZE, SIZE)
        np.testing.assert_allclose(crop, expected, atol=2e-3)  # OpenCV rounds to 1/32 pixel


def test_paste_equals_warp_affine():
    faces = pictures(3, SIZE, SIZE)
    pasted = paste_jit(faces, MATRICES, HEIGHT, WIDTH)
    for face, matrix, picture in zip(faces, MATRICES, pasted, strict=True):
        expected = warp(face, matrix.astype(np.float64), WIDTH, HEIGHT)
        np.testing.assert_allclose(picture, expected, atol=2e-3)


def test_bytes_are_scaled_to_one():
    images = np.rint(pictures(1) * 255).astype(np.uint8)
    crop = crop_jit(images, MATRICES[:1], SIZE, 1)
    assert crop.dtype == jnp.float32
    np.testing.assert_allclose(crop[0], images[0, 15:63, 20:68] / np.float32(255), atol=1e-6)


def test_supersampling_is_the_mean_over_the_pixel():
    """Four times smaller with four reads a side: exactly the mean of 4 x 4 pixels."""
    images = pictures(1, 64, 64)
    quarter = np.array([[[0.25, 0, -0.375], [0, 0.25, -0.375]]], np.float32)  # edges on edges
    crop = crop_jit(images, quarter, 16, 4)
    means = images[0].reshape(16, 4, 16, 4, 3).mean((1, 3))
    np.testing.assert_allclose(crop[0], means, atol=1e-5)


@pytest.mark.parametrize("enlarge", [1, 2, 4])
def test_a_crop_laid_back_does_not_move(enlarge):
    y, x = np.mgrid[:96, :96].astype(np.float32)
    spot = np.exp(-((x - 41.3) ** 2 + (y - 52.8) ** 2) / (2 * 9**2))[None, ..., None]
    matrix = np.array([[[0.31, 0.04, 1.0], [-0.04, 0.31, 2.0]]], np.float32)
    back = paste_jit(crop_jit(spot, matrix, 32, 2), matrix, 96, 96, enlarge=enlarge)[0, ..., 0]
    centre = (back * x).sum() / back.sum(), (back * y).sum() / back.sum()
    np.testing.assert_allclose(centre, (41.3, 52.8), atol=0.05)


def test_enlarging_keeps_a_picture_sharper():
    image = pictures(1, 128, 128)
    matrix = np.array([[[0.5, 0, -0.25], [0, 0.5, -0.25]]], np.float32)
    small = crop_jit(image, matrix, 64, 2)
    errors = [
        float(jnp.abs(paste_jit(small, matrix, 128, 128, enlarge=k) - image).mean()) for k in (1, 2)
    ]
    assert errors[1] < 0.9 * errors[0]
