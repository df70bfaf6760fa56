"""The layers: their sizes, slopes and widths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from odfs_jax.nets import decode, ops


def test_upscale_doubles_and_downscale_halves(key):
    x = jnp.ones((2, 5, 6, 8))
    up = jax.eval_shape(ops.Upscale(12).init_with_output, key, x)[0]
    down = jax.eval_shape(ops.Downscale(12).init_with_output, key, x)[0]
    assert up.shape == (2, 10, 12, 12)
    assert down.shape == (2, 3, 3, 12)


def test_leaky_relu_has_the_slope_of_the_spec():
    params = {"conv": {"kernel": jnp.zeros((5, 5, 3, 2)), "bias": jnp.array([-1.0, 1.0])}}
    y = jax.jit(ops.Downscale(2).apply)({"params": params}, jnp.zeros((1, 4, 4, 3)))
    np.testing.assert_allclose(y[0, 0, 0], [-0.1, 1.0], rtol=1e-6)


def test_a_branch_ends_in_float32_between_0_and_1(key):
    branch = decode.Branch((8, 4), 3)
    code = 50 * jax.random.normal(key, (1, 3, 3, 16), jnp.bfloat16)
    picture, _ = jax.jit(branch.init_with_output)(key, code)
    assert picture.shape == (1, 12, 12, 3) and picture.dtype == jnp.float32
    assert 0 <= picture.min() < picture.max() <= 1


@pytest.mark.parametrize(
    ("width", "expected"),
    [(1.0, (128, 1024)), (0.125, (16, 128)), (1 / 32, (4, 32)), (1 / 1024, (4, 4))],
)
def test_scaled_widths(width, expected):
    assert ops.scaled((128, 1024), width) == expected
