"""Device resampling against OpenCV."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from odfs_jax.faces import warp

SHAPES = {"plain": lambda f: f, "jit": lambda f: jax.jit(f, static_argnums=(2, 3))}


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).uniform(0, 1, (40, 56, 3)).astype(np.float32)


def matrix(degrees, scale, shift):
    c, s = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    return np.array([[c, -s, shift], [s, c, -shift]], np.float32)


@pytest.mark.parametrize("how", SHAPES)
@pytest.mark.parametrize("turn", [(0, 1, 0), (17, 0.7, 8.5), (-40, 1.6, -9.25)])
def test_warp_affine_equals_remap(image, how, turn):
    m = matrix(*turn)
    x, y = np.meshgrid(np.arange(48, dtype=np.float32), np.arange(32, dtype=np.float32))
    cols, rows = (r[0] * x + r[1] * y + r[2] for r in m)
    expected = cv2.remap(image, cols, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    found = SHAPES[how](warp.warp_affine)(jnp.asarray(image), jnp.asarray(m), 32, 48)
    assert found.shape == (32, 48, 3)
    np.testing.assert_allclose(found, expected, atol=2e-3 if cv2.__version__ < "5" else 2e-4)


def test_warp_affine_equals_opencvs_own(image):
    m = matrix(12, 0.9, 5)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    expected = cv2.warpAffine(image, m, (48, 32), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    found = warp.warp_affine(jnp.asarray(image), jnp.asarray(m), 32, 48)
    np.testing.assert_allclose(found, expected, atol=0.05)  # OpenCV may round to 1/32 pixel


def test_under_vmap(image):
    turns = jnp.stack([jnp.asarray(matrix(5, 1, 3)), jnp.asarray(matrix(-25, 1.2, 0))])
    both = jax.vmap(lambda m: warp.warp_affine(jnp.asarray(image), m, 20, 20))(turns)
    for m, one in zip(turns, both, strict=True):
        np.testing.assert_allclose(one, warp.warp_affine(jnp.asarray(image), m, 20, 20), atol=1e-5)


def test_the_edge_is_repeated(image):
    far = warp.bilinear(jnp.asarray(image), jnp.full((1, 2), -50.0), jnp.array([[-9.0, 900.0]]))
    np.testing.assert_allclose(far[0], [image[0, 0], image[0, -1]], atol=1e-6)


def test_several_reads_a_pixel_are_opencvs_area_mean(image):
    """Whole cells of 4 x 4 pixels, read 4 x 4 times: exactly their means."""
    quarter = np.array([[4, 0, 1.5], [0, 4, 1.5]], np.float32)  # edges on edges
    found = jax.jit(warp.warp_affine, static_argnums=(2, 3, 4))(image, quarter, 10, 14, 4)
    expected = cv2.resize(image, (14, 10), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(found, expected, atol=1e-5)
