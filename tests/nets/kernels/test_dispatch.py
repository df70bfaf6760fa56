"""Convolution and its gradients against XLA's own; the pixel shuffle against its definition."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from odfs_jax.nets.kernels import dispatch, gradients
from odfs_jax.nets.kernels.pixels import depth_to_space


def lax_conv(x, kernel, stride):
    dims = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=dims)


def conv_auto(x, kernel, stride):
    return dispatch.conv(x, kernel, stride, "auto")


def arrays(height, width, size, channels=(3, 4), pictures=2):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(pictures, height, width, channels[0])).astype(np.float32)
    kernel = rng.normal(size=(size, size, *channels)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(kernel)


def value_and_gradients(function, x, kernel, stride):
    """The convolution and the gradients of a weighted sum of it, for picture and kernel."""

    @jax.jit
    def everything(x, kernel):
        y, back = jax.vjp(lambda *args: function(*args, stride), x, kernel)
        return (y, *back(jnp.cos(jnp.arange(float(y.size))).reshape(y.shape)))

    return everything(x, kernel)


def assert_same_convolution(function, height, width, size, stride, channels=(3, 4), pictures=2):
    x, kernel = arrays(height, width, size, channels, pictures)
    found = value_and_gradients(function, x, kernel, stride)
    expected = value_and_gradients(lax_conv, x, kernel, stride)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(7, 7), (8, 8), (5, 8), (2, 1)])
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_conv_by_matmul_is_the_convolution(shape, size, stride):
    assert_same_convolution(dispatch.conv_by_matmul, *shape, size, stride)


@pytest.mark.parametrize("shape", [(10, 10), (9, 12), (2, 6)])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_conv_large_is_the_convolution(shape, size, stride):
    assert_same_convolution(gradients.conv_large, *shape, size, stride)


@pytest.mark.parametrize("shape", [(10, 10), (2, 6), (18, 4)])
@pytest.mark.parametrize("size", [1, 5, 9])
@pytest.mark.parametrize("features", [1, 3])
def test_conv_on_joined_pixels_is_the_convolution(shape, size, features):
    def function(x, kernel, stride):
        assert stride == 1
        return dispatch.conv_on_joined_pixels(x, kernel, partial(gradients.conv_large, stride=1))

    assert_same_convolution(function, *shape, size, 1, (3, features))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [(3, 8), (8, 3)])
@pytest.mark.parametrize("chunk", [1, 1 << 12, 1 << 30])
def test_conv_large_takes_its_pictures_in_any_parts(monkeypatch, stride, channels, chunk):
    monkeypatch.setattr(gradients, "COLUMNS_CHUNK", chunk)
    assert_same_convolution(gradients.conv_large, 8, 6, 3, stride, channels, pictures=6)


@pytest.mark.parametrize(
    ("side", "size", "stride", "small"),
    [
        ((8, 8), 5, 2, True),  # H64's last encoder layer: 8 -> 4
        ((4, 12), 5, 1, True),
        ((32, 32), 3, 2, True),
        ((16, 40), 1, 1, True),
        ((34, 34), 5, 2, False),
        ((17, 17), 3, 1, False),
    ],
)
def test_small_maps_take_the_matrix_product_on_a_cpu(monkeypatch, side, size, stride, small):
    if jax.default_backend() != "cpu":
        pytest.skip("a CPU's ways")
    taken = []
    for name in ("conv_by_matmul", "conv_large"):
        monkeypatch.setattr(dispatch, name, spied(getattr(dispatch, name), name, taken))
    assert_same_convolution(conv_auto, *side, size, stride)
    assert set(taken) == {"conv_by_matmul" if small else "conv_large"}


def spied(function, name, taken):
    def spy(*args):
        taken.append(name)
        return function(*args)

    return spy


def test_other_devices_keep_the_plain_convolution(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for name in ("conv_by_matmul", "conv_large", "kernel_gradient_after", "conv_to_few"):
        monkeypatch.setattr(dispatch, name, None)
    for side, stride in ((4, 1), (40, 2)):
        x, kernel = arrays(side, side, 5, (3, 8))
        found = conv_auto(x, kernel, stride)
        np.testing.assert_array_equal(found, lax_conv(x, kernel, stride))


@pytest.mark.parametrize("channels", [(3, 8), (8, 3), (8, 1)])
@pytest.mark.parametrize("stride", [1, 2])
def test_other_devices_give_the_convolution_and_its_gradients(monkeypatch, channels, stride):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    taken = []
    monkeypatch.setattr(dispatch, "conv_to_few", spied(dispatch.conv_to_few, "conv_to_few", taken))
    assert_same_convolution(conv_auto, 8, 12, 5, stride, channels)
    assert bool(taken) == (stride == 1 and channels[1] <= dispatch.JOIN_MAX_FEATURES)


@pytest.mark.parametrize("shape", [(7, 7), (2, 6), (1, 1)])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_conv_to_few_is_the_convolution(shape, size):
    def function(x, kernel, stride):
        return gradients.conv_to_few(x, kernel)

    assert_same_convolution(function, *shape, size, 1)


def test_depth_to_space_by_its_definition():
    """Channel (2i + j) * C + c goes to row 2y + i, column 2x + j, channel c: TensorFlow's order."""
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 12)).astype(np.float32)
    found = np.asarray(depth_to_space(jnp.asarray(x)))
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
    np.testing.assert_array_equal(depth_to_space(jnp.asarray(x[..., order])), shuffled)


def test_updating_large_kernels_in_place_needs_no_copies():
    """Ordered gradients are the same ones, and a step of Adam needs the room of one kernel more."""
    kernels = [jax.random.normal(jax.random.key(i), (512, 512)) / 22 for i in range(4)]
    x = jax.random.normal(jax.random.key(9), (8, 512))
    tx = optax.adam(1e-3)

    def loss(kernels, x, layer):
        for kernel in kernels:
            a, b = layer(x, kernel)
            x = jnp.tanh(a @ b)
        return jnp.mean(x**2)

    def step(kernels, state, x, layer):
        grads = jax.grad(loss)(kernels, x, layer)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = tx.update(grads, state, kernels)
        return optax.apply_updates(kernels, updates), state

    found = {}
    for name, layer in (
        ("ordered", gradients.kernel_gradient_after),
        ("plain", lambda x, kernel: (x, kernel)),
    ):
        program = jax.jit(step, static_argnums=3, donate_argnums=(0, 1))
        room = program.lower(kernels, tx.init(kernels), x, layer).compile().memory_analysis()
        grads = jax.jit(jax.grad(loss), static_argnums=2)(kernels, x, layer)
        found[name] = room.temp_size_in_bytes / kernels[0].nbytes, grads
    (room, grads), (usual, expected) = found["ordered"], found["plain"]
    for ours, theirs in zip(grads, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert room < 1.5 < usual, (room, usual)


def gradient_penalty(conv_of):
    """A discriminator's R1 penalty, over the three ways of a CPU, and its gradient for the kernels.

    The penalty is the mean squared gradient of the scores for the pictures (Mescheder et al. 2018).
    """

    def score(kernels, pictures):
        x = pictures
        for kernel, stride in zip(kernels, (2, 1, 1), strict=True):
            x = jnp.tanh(conv_of(x, kernel, stride))
        return jnp.sum(x)

    def penalty(kernels, pictures):
        return jnp.mean(jax.grad(score, argnums=1)(kernels, pictures) ** 2)

    rng = np.random.default_rng(3)
    shapes = (5, 5, 3, 64), (3, 3, 64, 64), (5, 5, 64, 3)
    kernels = [rng.normal(0, 1 / np.sqrt(np.prod(s[:3])), s).astype(np.float32) for s in shapes]
    pictures = rng.random((2, 72, 72, 3), np.float32)
    return jax.jit(jax.value_and_grad(penalty))(kernels, pictures)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_a_gradient_penalty_is_that_of_the_plain_convolution(monkeypatch, backend):
    """Reverse mode over reverse mode: large maps at stride 2, Winograd's tiles, a picture."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    value, grads = gradient_penalty(conv_auto)
    expected, expected_grads = gradient_penalty(lax_conv)
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    for ours, theirs in zip(grads, expected_grads, strict=True):
        assert np.linalg.norm(ours - theirs) < 1e-4 * np.linalg.norm(theirs)
