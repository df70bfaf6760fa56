"""The layers: our convolution against XLA's, the pixel shuffle against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from odfs_jax.nets import decode, ops


def lax_conv(x, kernel, stride):
    dims = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=dims)


def arrays(height, width, size, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, height, width, 3)).astype(np.float32)
    kernel = rng.normal(size=(size, size, 3, 4)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(kernel)


def value_and_gradients(conv, x, kernel, stride):
    """The convolution and the gradients of a weighted sum of it, for picture and kernel."""

    @jax.jit
    def everything(x, kernel):
        y, back = jax.vjp(lambda *args: conv(*args, stride), x, kernel)
        return (y, *back(jnp.cos(jnp.arange(float(y.size))).reshape(y.shape)))

    return everything(x, kernel)


def assert_same_convolution(conv, height, width, size, stride):
    x, kernel = arrays(height, width, size)
    found = value_and_gradients(conv, x, kernel, stride)
    expected = value_and_gradients(lax_conv, x, kernel, stride)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(7, 7), (8, 8), (5, 8), (2, 1)])
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_conv_by_matmul_is_the_convolution(shape, size, stride):
    assert_same_convolution(ops.conv_by_matmul, *shape, size, stride)


@pytest.mark.parametrize("shape", [(10, 10), (12, 16), (2, 6)])
@pytest.mark.parametrize("size", [2, 3, 4, 5, 7])
def test_conv_halved_is_the_convolution(shape, size):
    assert_same_convolution(lambda x, kernel, _: ops.conv_halved(x, kernel), *shape, size, 2)


@pytest.mark.parametrize(
    ("shape", "size", "stride", "small"),
    [
        ((8, 8), 5, 2, True),  # H64's last encoder layer: 8 -> 4
        ((4, 4), 5, 1, True),
        ((4, 12), 5, 1, True),
        ((10, 10), 5, 2, False),
        ((9, 9), 5, 2, False),
        ((10, 10), 1, 2, False),
        ((8, 8), 3, 1, False),
    ],
)
def test_small_maps_take_the_matrix_product_on_a_cpu(monkeypatch, shape, size, stride, small):
    taken = []

    def spy(*args):
        taken.append(args)
        return by_matmul(*args)

    by_matmul = ops.conv_by_matmul
    monkeypatch.setattr(ops, "conv_by_matmul", spy)
    assert_same_convolution(ops.conv_same, *shape, size, stride)
    assert bool(taken) == (small and jax.default_backend() == "cpu")


def test_other_devices_keep_the_plain_convolution(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(ops, "conv_by_matmul", None)
    monkeypatch.setattr(ops, "conv_halved", None)
    for side, stride in ((4, 1), (12, 2)):
        x, kernel = arrays(side, side, 5)
        np.testing.assert_array_equal(ops.conv_same(x, kernel, stride), lax_conv(x, kernel, stride))


def test_depth_to_space_by_its_definition():
    """Channel (2i + j) * C + c goes to row 2y + i, column 2x + j, channel c: TensorFlow's order."""
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 12)).astype(np.float32)
    found = np.asarray(ops.depth_to_space(jnp.asarray(x)))
    assert found.shape == (2, 6, 10, 3)
    for i in (0, 1):
        for j in (0, 1):
            block = (2 * i + j) * 3
            np.testing.assert_array_equal(found[:, i::2, j::2], x[..., block : block + 3])


def test_depth_to_space_is_pytorchs_pixel_shuffle_with_channels_in_another_order():
    """PyTorch keeps the four pixels of a channel together: channel 4c + 2i + j."""
    x = np.random.default_rng(1).normal(size=(1, 2, 3, 8)).astype(np.float32)
    shuffled = np.empty((1, 4, 6, 2), np.float32)
    for row, col, c in np.ndindex(4, 6, 2):
        channel = 4 * c + 2 * (row % 2) + col % 2
        shuffled[0, row, col, c] = x[0, row // 2, col // 2, channel]
    order = [4 * c + pixel for pixel in range(4) for c in range(2)]
    np.testing.assert_array_equal(ops.depth_to_space(jnp.asarray(x[..., order])), shuffled)


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


def test_updating_large_kernels_in_place_needs_no_copies():
    """Gradients in turn are the same ones, and a step of Adam needs the room of one kernel more."""
    kernels = [jax.random.normal(jax.random.key(i), (512, 512)) / 22 for i in range(4)]
    x = jax.random.normal(jax.random.key(9), (8, 512))
    tx = optax.adam(1e-3)

    def loss(kernels, x, layer):
        for kernel in kernels:
            a, b = layer(x, kernel)
            x = jnp.tanh(a @ b)
        return jnp.mean(x**2)

    def step(kernels, state, x, layer):
        gradients = jax.grad(loss)(kernels, x, layer)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = tx.update(gradients, state, kernels)
        return optax.apply_updates(kernels, updates), state

    found = {}
    for name, layer in (("in turn", ops.in_turn), ("plain", lambda x, kernel: (x, kernel))):
        program = jax.jit(step, static_argnums=3, donate_argnums=(0, 1))
        room = program.lower(kernels, tx.init(kernels), x, layer).compile().memory_analysis()
        gradients = jax.jit(jax.grad(loss), static_argnums=2)(kernels, x, layer)
        found[name] = room.temp_size_in_bytes / kernels[0].nbytes, gradients
    (room, gradients), (usual, expected) = found["in turn"], found["plain"]
    for ours, theirs in zip(gradients, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert room < 1.5 < usual, (room, usual)
