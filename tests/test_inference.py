"""Cutting faces out and laying them back, against OpenCV."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from odfs_jax.config import config_dir, register_schemas
from odfs_jax.errors import UserError
from odfs_jax.faces.align import invert
from odfs_jax.faces.spec import View, grey
from odfs_jax.faces.types import FaceType
from odfs_jax.inference import crop_faces, inverse, make_swapper, paste_faces
from odfs_jax.nets import build_net

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


def test_inverse():
    for matrix in MATRICES:
        np.testing.assert_allclose(inverse(jnp.array(matrix)), invert(matrix), rtol=1e-4, atol=1e-4)


def random_model(*settings):
    """(A thin model of these settings, random weights for it.)"""
    register_schemas()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        model = compose("train", [*settings, "model.width=0.03125"]).model
    model = OmegaConf.to_container(model)
    net = build_net(model)
    shapes = jax.eval_shape(net.init, jax.random.key(0), *net.blank())["params"]
    rng = np.random.default_rng(0)  # compiling the network's own start takes longer
    return model, jax.tree.map(lambda a: rng.normal(0, 0.2, a.shape).astype(np.float32), shapes)


def test_a_swapper_in_bfloat16_keeps_biases_and_faces_float32():
    model, params = random_model("model=h64", "model.resolution=32")
    full, half = (make_swapper(model, params, p) for p in ("float32", "bfloat16"))
    for leaf in jax.tree.leaves(half.params):
        assert leaf.dtype == (jnp.bfloat16 if leaf.ndim > 1 else jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(full.params)} == {np.dtype(np.float32)}
    faces = pictures(2, 32, 32)
    found, expected = (jax.jit(s.predict)(s.params, faces) for s in (half, full))
    for ours, exact in zip(found, expected, strict=True):
        assert ours.dtype == jnp.float32
        apart = np.abs(np.asarray(ours) - exact)
        assert 0 < apart.mean() < 0.02
    with pytest.raises(UserError, match="precision=float16: expected one of float32, bfloat16"):
        make_swapper(model, params, "float16")


def test_a_swapper_shows_a_network_what_it_declares():
    """AVATAR sees grey: a change of colour that keeps the luma is none. The swap is in colour."""
    small = ["model.resolution=32", "model.args.small_resolution=16"]
    model, params = random_model("model=avatar", *small)
    swapper = make_swapper(model, params)
    assert swapper.seen == View(FaceType.HALF, 16, grey=True)
    assert swapper.made == View(FaceType.FULL, 32)
    faces = pictures(2, 16, 16)
    luma = np.repeat(np.asarray(grey(faces)), 3, axis=-1)
    swap = jax.jit(swapper.predict)
    (face, mask), (same, _) = swap(params, faces), swap(params, luma)
    assert face.shape == (2, 32, 32, 3) and mask.shape == (2, 32, 32, 1)
    np.testing.assert_allclose(face, same, atol=1e-5)
    assert np.abs(np.asarray(swap(params, faces[::-1])[0]) - face).max() > 1e-3
