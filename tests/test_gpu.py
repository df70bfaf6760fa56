"""What is computed in another way on a GPU: JAX_PLATFORMS=cuda,cpu python -m pytest -m gpu"""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from skimage.metrics import structural_similarity

from odfs_jax.extraction.detectors import integral
from odfs_jax.losses.terms import ssim
from odfs_jax.nets.kernels.dispatch import conv
from odfs_jax.nets.kernels.gradients import add_bias_auto

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(jax.default_backend() == "cpu", reason="JAX has no GPU here"),
]


def normal(number, shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(number), shape, dtype)


def distance(found, expected):
    """||found - expected|| / ||expected||, in float64."""
    found, expected = (np.asarray(a.astype(jnp.float32), np.float64) for a in (found, expected))
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def assert_same_gradients(function, reference, arguments, limit):
    """Values and gradients of a random weighting, against those of float32 at full precision."""
    exact = [a.astype(jnp.float32) for a in arguments]
    expected, reference_back = jax.vjp(reference, *exact)
    found, back = jax.jit(lambda *a: jax.vjp(function, *a))(*arguments)
    weights = normal(9, expected.shape).astype(found.dtype)
    pairs = zip(back(weights), reference_back(weights.astype(jnp.float32)), strict=True)
    for ours, theirs in ((found, expected), *pairs):
        assert distance(ours, theirs) < limit


@pytest.mark.parametrize(
    ("kernel", "stride"), [((3, 3, 64, 128), 1), ((5, 5, 64, 3), 1), ((5, 5, 32, 1), 1),
                           ((5, 5, 3, 64), 2), ((5, 5, 32, 64), 2)],
)  # fmt: skip
@pytest.mark.parametrize(("dtype", "limit"), [(jnp.float32, 2e-3), (jnp.bfloat16, 1e-2)])
def test_convolution(kernel, stride, dtype, limit):
    def reference(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision="highest",
        )  # fmt: skip

    x, kernel = normal(0, (4, 32, 32, kernel[2]), dtype), normal(1, kernel, dtype)
    assert_same_gradients(lambda x, k: conv(x, k, stride, "auto"), reference, (x, kernel), limit)


@pytest.mark.parametrize("shape", [(16, 64, 64, 32), (32, 256)])
@pytest.mark.parametrize(("dtype", "limit"), [(jnp.float32, 1e-5), (jnp.bfloat16, 5e-3)])
def test_bias(shape, dtype, limit):
    def reference(x, bias):
        return x + bias.reshape((1,) * (x.ndim - 1) + (-1,))

    x, bias = normal(0, shape, dtype), normal(1, shape[-1:])
    assert_same_gradients(add_bias_auto, reference, (x, bias), limit)


@pytest.mark.parametrize("closeness", [0.0, 0.9, 1.0])
def test_ssim_is_scikit_images(closeness):
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 1, 128, 128, 3), np.float32)
    b = (closeness * a + (1 - closeness) * b).astype(np.float32)
    _, full = structural_similarity(
        a[0].astype(np.float64), b[0].astype(np.float64), win_size=11, gaussian_weights=True,
        sigma=1.5, use_sample_covariance=False, data_range=1.0, channel_axis=-1, full=True,
    )  # fmt: skip
    np.testing.assert_allclose(jax.jit(ssim)(a, b)[0], full[5:-5, 5:-5].mean(), atol=2e-5)


def test_integral_images_are_opencvs():
    frames = list(np.random.default_rng(0).integers(0, 256, (3, 1080, 1920, 3), np.uint8))
    found = np.asarray(integral.integral_images(frames, 4))
    for image, sums in zip([*frames, np.zeros_like(frames[0])], found, strict=True):
        np.testing.assert_array_equal(sums, cv2.integral(image))
