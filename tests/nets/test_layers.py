"""The layers: their sizes, slopes and widths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from odfs_jax.nets import layers
from odfs_jax.nets.kernels.gradients import add_bias_auto


def test_upscale_doubles_and_downscale_halves(key):
    x = jnp.ones((2, 5, 6, 8))
    up = jax.eval_shape(layers.Upscale(12).init_with_output, key, x)[0]
    down = jax.eval_shape(layers.Downscale(12).init_with_output, key, x)[0]
    assert up.shape == (2, 10, 12, 12)
    assert down.shape == (2, 3, 3, 12)


def test_a_map_given_twice_is_both_halves_of_the_channels(key):
    x = jax.random.normal(key, (2, 6, 6, 8))
    conv = layers.Conv(5, 3)
    joined = jnp.concatenate([x, x], axis=-1)
    variables = jax.jit(conv.init)(key, joined)
    twice, once = jax.jit(lambda v: (conv.apply(v, x, x), conv.apply(v, joined)))(variables)
    np.testing.assert_allclose(twice, once, atol=1e-5)


def test_batches_of_fewer_channels_stand_for_themselves_repeated(key):
    few, many = (jax.random.normal(key, (n, 6, 6, c)) for n, c in ((2, 4), (3, 8)))
    up = layers.Upscale(3)
    joined = jnp.concatenate([jnp.concatenate([few, few], axis=-1), many])
    variables = jax.jit(up.init)(key, few, many)
    found, expected = jax.jit(lambda v: (up.apply(v, few, many), up.apply(v, joined)))(variables)
    assert found.shape == (5, 12, 12, 3)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_a_bias_learns_from_every_pixel(monkeypatch, backend):
    """In bfloat16 too, which would stop adding up after 256 of them."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    x, bias = jnp.zeros((2, 40, 40, 3), jnp.bfloat16), jnp.arange(3.0)
    y, back = jax.vjp(add_bias_auto, x, bias)
    of_x, of_bias = back(jnp.ones_like(y))
    np.testing.assert_array_equal(y.astype(jnp.float32), jnp.broadcast_to(bias, x.shape))
    np.testing.assert_array_equal(of_x, jnp.ones_like(x))
    np.testing.assert_array_equal(of_bias, [3200.0] * 3)


def test_leaky_relu_has_the_slope_of_the_spec():
    params = {"conv": {"kernel": jnp.zeros((5, 5, 3, 2)), "bias": jnp.array([-1.0, 1.0])}}
    y = jax.jit(layers.Downscale(2).apply)({"params": params}, jnp.zeros((1, 4, 4, 3)))
    np.testing.assert_allclose(y[0, 0, 0], [-0.1, 1.0], rtol=1e-6)


def test_a_branch_ends_in_float32_between_0_and_1(key):
    branch = layers.Branch((8, 4), 3)
    code = 50 * jax.random.normal(key, (1, 3, 3, 16), jnp.bfloat16)
    picture, _ = jax.jit(branch.init_with_output)(key, code)
    assert picture.shape == (1, 12, 12, 3) and picture.dtype == jnp.float32
    assert 0 <= picture.min() < picture.max() <= 1


@pytest.mark.parametrize(
    ("width", "expected"),
    [(1.0, (128, 1024)), (0.125, (16, 128)), (1 / 32, (4, 32)), (1 / 1024, (4, 4))],
)
def test_scaled_widths(width, expected):
    assert layers.scaled((128, 1024), width) == expected
