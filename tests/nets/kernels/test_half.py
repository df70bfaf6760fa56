"""bfloat16 on a CPU against float32's convolution of the same values; products against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from odfs_jax.nets.kernels import dispatch, gradients, half
from odfs_jax.nets.layers import Dense

ROUNDED = 2**-8  # how far apart a number and its bfloat16 are at most, as a share


def arrays(height, width, size, channels=(3, 4), pictures=2):
    """A map and a kernel in bfloat16."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(pictures, height, width, channels[0]))
    kernel = rng.normal(size=(size, size, *channels))
    return jnp.asarray(x, jnp.bfloat16), jnp.asarray(kernel, jnp.bfloat16)


def exact_conv(x, kernel, stride):
    x, kernel = x.astype(jnp.float32), kernel.astype(jnp.float32)
    dims = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=dims)


def assert_rounded(found, exact):
    """`found` is `exact` but for the rounding of the result: nothing was added up in bfloat16."""
    assert found.dtype == jnp.bfloat16 and found.shape == exact.shape
    np.testing.assert_allclose(found.astype(jnp.float32), exact, rtol=ROUNDED, atol=1e-4)


@pytest.mark.parametrize("shape", [(7, 7), (8, 8), (5, 8), (2, 1)])
@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_conv_half_is_the_convolution(shape, size, stride):
    x, kernel = arrays(*shape, size)
    found = jax.jit(half.conv_half, static_argnums=2)(x, kernel, stride)
    assert_rounded(found, exact_conv(x, kernel, stride))


@pytest.mark.parametrize("columns", [1, 2000, 1 << 30])
def test_it_takes_its_pictures_in_any_parts(monkeypatch, columns):
    monkeypatch.setattr(half, "COLUMNS_CHUNK", columns)
    x, kernel = arrays(8, 6, 3, pictures=6)
    assert_rounded(half.conv_half(x, kernel, 2), exact_conv(x, kernel, 2))


def test_sums_are_float32():
    """In bfloat16 a sum of ones stops at 256."""
    x, kernel = jnp.ones((1, 2, 2, 1000), jnp.bfloat16), jnp.ones((1, 1, 1000, 2), jnp.bfloat16)
    assert np.all(np.asarray(half.conv_half(x, kernel, 1)) == 1000)
    assert np.all(np.asarray(half.product(x, kernel[0, 0])) == 1000)


def test_product_is_numpys():
    x, kernel = (a[0] for a in arrays(3, 3, 3, (4, 5)))
    exact = np.asarray(x, np.float64) @ np.asarray(kernel[0], np.float64)
    assert_rounded(half.product(x, kernel[0]), exact)


@pytest.mark.parametrize(
    ("size", "stride", "features"),
    [
        (3, 1, 8),
        (5, 2, 8),
        (5, 1, 1),
        pytest.param(5, 2, 3, marks=pytest.mark.slow),
        pytest.param(5, 1, 3, marks=pytest.mark.slow),
    ],
)
def test_layers_of_a_cpu_take_it_and_have_gradients(monkeypatch, size, stride, features):
    if jax.default_backend() != "cpu":
        pytest.skip("a CPU's ways")
    taken = []
    monkeypatch.setattr(
        gradients, "conv_half", lambda *args: taken.append(1) or half.conv_half(*args)
    )
    x, kernel = arrays(12, 12, size, (6, features))
    found, back = jax.vjp(lambda *args: dispatch.conv(*args, stride, "auto"), x, kernel)
    exact, exact_back = jax.vjp(
        lambda *args: exact_conv(*args, stride), x.astype(jnp.float32), kernel.astype(jnp.float32)
    )
    assert_rounded(found, exact)
    weights = jnp.cos(jnp.arange(float(exact.size))).reshape(exact.shape).astype(jnp.bfloat16)
    for ours, theirs in zip(back(weights), exact_back(weights.astype(jnp.float32)), strict=True):
        ours = np.asarray(ours, np.float64)
        assert np.linalg.norm(ours - theirs) < ROUNDED * np.linalg.norm(theirs)
    assert bool(taken) == (
        features > dispatch.JOIN_MAX_FEATURES or stride == 2
    )  # pictures go by `conv_to_few`


def test_a_dense_layer_has_float32s_gradients():
    layer = Dense(16)
    x = jax.random.normal(jax.random.key(0), (4, 32)).astype(jnp.bfloat16)
    params = jax.jit(layer.init)(jax.random.key(1), x)

    def weighted(params, x):
        return jnp.sum(layer.apply(params, x).astype(jnp.float32) * jnp.arange(16.0)[None])

    gradients_of = jax.jit(jax.grad(weighted))
    found = gradients_of(params, x)["params"]
    exact = gradients_of(params, x.astype(jnp.float32))["params"]
    for name in ("kernel", "bias"):
        assert found[name].dtype == jnp.float32
        apart = np.linalg.norm(found[name] - exact[name])
        assert apart <= ROUNDED * np.linalg.norm(exact[name])
