"""Winograd's convolution against scipy in float64, its gradients against XLA's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy.signal import correlate

from odfs_jax.nets.kernels import dispatch, winograd


def arrays(height, width, channels, features, pictures=2):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(pictures, height, width, channels)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, channels, features)).astype(np.float32)
    return x, kernel


def value_and_gradients(function, x, kernel):
    @jax.jit
    def everything(x, kernel):
        y, back = jax.vjp(function, x, kernel)
        return (y, *back(jnp.cos(jnp.arange(float(y.size))).reshape(y.shape)))

    return everything(jnp.asarray(x), jnp.asarray(kernel))


def lax_conv(x, kernel):
    dims = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dims)


@functools.cache
def by_xla(*shape):
    return value_and_gradients(lax_conv, *arrays(*shape))


def assert_xla_agrees(*shape):
    found = value_and_gradients(winograd.conv_winograd, *arrays(*shape))
    for ours, theirs in zip(found, by_xla(*shape), strict=True):
        assert ours.shape == theirs.shape
        scale = float(jnp.abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize("shape", [(2, 2), (8, 8), (6, 10), (32, 4)])
def test_it_is_the_convolution_in_float64(shape):
    x, kernel = arrays(*shape, 5, 3)
    found = jax.jit(winograd.conv_winograd)(x, kernel)
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    for picture, y in zip(padded, found, strict=True):
        for feature in range(3):
            exact = correlate(picture, kernel[..., feature].astype(np.float64), "valid")[..., 0]
            np.testing.assert_allclose(y[..., feature], exact, rtol=0, atol=2e-5)


@pytest.mark.parametrize("shape", [(2, 2), (8, 8), (6, 10)])
@pytest.mark.parametrize("widths", [(3, 8), (8, 3)])
def test_values_and_gradients_are_xlas(shape, widths):
    assert_xla_agrees(*shape, *widths)


@pytest.mark.parametrize(
    ("room", "features"), [(1, 2), (1, 512), (300, 2), (300, 512), (1 << 30, 2), (1 << 30, 4)]
)
def test_pictures_and_features_go_in_any_parts(monkeypatch, room, features):
    monkeypatch.setattr(winograd, "TILES_CHUNK", room)
    monkeypatch.setattr(winograd, "FEATURES_CHUNK", features)
    assert_xla_agrees(4, 6, 3, 8, 6)


@pytest.mark.parametrize(
    ("shape", "widths", "dtype", "suits"),
    [
        ((8, 16, 16), (64, 128), jnp.float32, True),
        ((1, 32, 32), (64, 64), jnp.float32, True),
        ((8, 8, 8), (64, 128), jnp.float32, False),  # too few tiles for the kernel's transform
        ((8, 16, 16), (63, 128), jnp.float32, False),  # too thin for the tiles' transforms
        ((8, 17, 16), (64, 128), jnp.float32, False),
        ((8, 16, 16), (64, 128), jnp.bfloat16, False),  # by `conv_half`
    ],
)
def test_wide_layers_of_a_cpu_take_it(monkeypatch, shape, widths, dtype, suits):
    if jax.default_backend() != "cpu":
        pytest.skip("a CPU's ways")
    taken = []
    monkeypatch.setattr(dispatch, "conv_winograd", lambda *args: taken.append(1) or lax_conv(*args))
    x = jax.ShapeDtypeStruct((*shape, widths[0]), dtype)
    kernel = jax.ShapeDtypeStruct((3, 3, *widths), dtype)
    jax.eval_shape(lambda x, kernel: dispatch.conv(x, kernel, 1, "auto"), x, kernel)
    assert bool(taken) == suits
