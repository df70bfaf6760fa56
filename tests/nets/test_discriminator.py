"""Discriminators against the original's figures: their layers, their counts and what they say."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from odfs_jax.nets.discriminator import Convolution, Discriminator, strides_for

STRIDES = {
    range(3, 6): "2",
    range(6, 10): "2 2",
    range(10, 14): "2 1 2",
    range(14, 18): "2 2 2",
    range(18, 22): "2 1 2 2",
    range(22, 26): "2 2 1 2",
    range(26, 30): "2 1 2 1 2",
    range(30, 34): "2 2 2 2",
    range(34, 38): "2 1 2 2 2",
    range(38, 42): "2 2 1 2 2",
    range(42, 46): "2 1 2 1 2 2",
    range(46, 50): "2 2 2 1 2",
    range(50, 54): "2 1 2 2 1 2",
    range(54, 58): "2 2 1 2 1 2",
    range(58, 62): "2 1 2 1 2 1 2",
    range(62, 66): "2 2 2 2 2",
    range(78, 82): "2 2 2 1 2 2",
    range(126, 130): "2 2 2 2 2 2",
}


def test_the_layers_that_see_a_patch():
    for sizes, strides in STRIDES.items():
        for size in sizes:
            assert " ".join(map(str, strides_for(size))) == strides, size


@pytest.mark.parametrize(
    ("patch_size", "dims", "count"),
    [
        (3, 4, 694),
        (8, 16, 55_154),
        (16, 16, 233_650),
        (28, 16, 3_799_090),
        (28, 32, 9_684_578),
        (32, 16, 946_994),
        (48, 16, 3_799_090),
        (56, 16, 9_698_354),
    ],
)
def test_parameter_counts_of_the_original(patch_size, dims, count):
    net = Discriminator(strides_for(patch_size), dims, unet=True)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


@pytest.mark.parametrize(("size", "patch_size", "coarse"), [(224, 28, 28), (128, 16, 16)])
def test_logits_of_patches_and_of_pixels(size, patch_size, coarse):
    faces = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    net = Discriminator(strides_for(patch_size), 16, unet=True)
    logits, _ = jax.eval_shape(net.init_with_output, jax.random.key(0), faces)
    assert [x.shape for x in logits] == [(2, coarse, coarse, 1), (2, size, size, 1)]


def test_a_unet_gives_the_originals_numbers():
    """The same parameters as the original's, seeded by its names, give the same logits."""
    net = Discriminator(strides_for(8), 16, unet=True)
    faces = np.random.RandomState(7).uniform(0, 1, (1, 64, 64, 3)).astype(np.float32)

    def numbers_of(path, like):
        *parts, kind = (entry.key for entry in path)
        name = "/".join(["GAN", *parts, {"kernel": "weight:0", "bias": "bias:0"}[kind]])
        values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(like.shape)
        values = values / np.sqrt(np.prod(like.shape[:-1])) if like.ndim > 1 else values * 0.1
        return values.astype(np.float32)

    shapes = jax.eval_shape(net.init, jax.random.key(0), faces)["params"]
    params = {"params": jax.tree_util.tree_map_with_path(numbers_of, shapes)}
    center, pixels = jax.jit(net.apply)(params, faces)
    found = [np.mean(center), np.std(center), np.mean(pixels), np.std(pixels), pixels[0, 0, 0, 0]]
    np.testing.assert_allclose(found, [0.240869, 0.089524, 0.039800, 0.158050, 0.069405], atol=1e-5)


@pytest.mark.parametrize(
    ("stride", "expected"),
    [
        (2, [[1, 2, 13, 20], [4, 5, 46, 50], [107, 208, 1379, 2080], [400, 500, 4600, 5000]]),
        (1, [[1245, 2356], [4578, 5689]]),
    ],
)
def test_transposed_convolutions_are_the_originals(stride, expected):
    kernel = jnp.arange(1.0, 10.0).reshape(3, 3, 1, 1)
    params = {"params": {"kernel": kernel, "bias": jnp.zeros(1)}}
    x = jnp.array([[1.0, 10.0], [100.0, 1000.0]]).reshape(1, 2, 2, 1)
    up = jax.jit(Convolution(1, 3, stride, transposed=True).apply)(params, x)
    np.testing.assert_array_equal(up[0, ..., 0], expected)
