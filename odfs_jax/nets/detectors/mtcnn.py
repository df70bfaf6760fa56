"""The three networks of MTCNN, as the Caffe originals compute them. NHWC, float32.

Inputs hold (pixel - 127.5) / 128, of pixels 0..255 in RGB order. The offsets of a box are (left,
top, right, bottom), in shares of its width and height.
Source: Zhang et al., "Joint face detection and alignment using multitask cascaded convolutional
networks", IEEE SPL 23(10), 2016; layer sizes from the authors' prototxt files.
"""

from functools import reduce

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from odfs_jax.nets.kernels.dispatch import joined_kernel
from odfs_jax.nets.kernels.pixels import columns, space_to_depth

PNET_CELL = 12  # pixels a side that one output of the P-Net reads
PNET_STRIDE = 2  # pixels between neighboring outputs
RNET_SIZE = 24
ONET_SIZE = 48


class PReLU(nn.Module):
    """x for x > 0, else x times a slope learned for each channel; [..., C] -> [..., C]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        slope = self.param("slope", nn.initializers.constant(0.25), x.shape[-1:], jnp.float32)
        slope = slope.reshape((1,) * (x.ndim - 1) + (-1,))
        return jnp.maximum(x, 0) + slope * jnp.minimum(x, 0)


class Weights(nn.Module):
    """(kernel [*window,channels,features], bias [features]) of a convolution or dense layer."""

    features: int
    window: tuple[int, ...]  # (): dense

    @nn.compact
    def __call__(self, channels: int) -> tuple[jax.Array, jax.Array]:
        shape = (*self.window, channels, self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        return kernel, self.param("bias", nn.initializers.zeros, shape[-1:], jnp.float32)


class FirstBlock(nn.Module):
    """Unpadded 3x3 convolution, PReLU and `_pool`: a picture [N,H,W,3] -> [N,h,w,features].

    Two by two pixels are joined to one of four times the channels, because three channels leave a
    vector unit idle; the maximum is then that of neighboring channels. With `pool` 3, H and W must
    be even.
    """

    features: int
    pool: int  # 2 or 3

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel, bias = Weights(self.features, (3, 3), name="conv")(x.shape[-1])
        height, width = x.shape[1] - 2, x.shape[2] - 2  # of the convolution
        x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
        kernel = joined_kernel(kernel)
        seen = columns(space_to_depth(x), len(kernel), 1)
        kernel = kernel.reshape(seen.shape[-1], -1)
        x = jnp.matmul(seen.reshape(-1, len(kernel)), kernel, precision="highest")
        x = _biased(x.reshape(*seen.shape[:-1], 2, 2, self.features), bias)
        x = PReLU(name="prelu")(x)
        return _pool_joined(x, height, width, self.pool)


class ConvBlock(nn.Module):
    """Unpadded convolution and PReLU: [N,H,W,C] -> [N,H-size+1,W-size+1,features]."""

    features: int
    size: int
    large: bool = False  # the maps are large and have few channels

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        window = (self.size, self.size)
        kernel, bias = Weights(self.features, window, name="conv")(x.shape[-1])
        convolve = _conv_by_rows if self.large and jax.default_backend() == "cpu" else _conv
        return PReLU(name="prelu")(_biased(convolve(x, kernel), bias))


class DenseBlock(nn.Module):
    """[N,h,w,C], flattened column by column (Caffe's order), dense, PReLU: -> [N,features]."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.transpose(0, 2, 1, 3).reshape(x.shape[0], -1)
        return PReLU(name="prelu")(_dense(self.features, "dense")(x))


class PNet(nn.Module):
    """[N,H,W,3] -> (face probability [N,h,w], box offsets [N,h,w,4]), h = ceil((H-2)/2) - 4."""

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = FirstBlock(10, 2, name="block_1")(x)
        x = ConvBlock(16, 3, large=True, name="block_2")(x)
        x = ConvBlock(32, 3, large=True, name="block_3")(x)
        # One product for both heads: what each costs is reading the map.
        heads = [Weights(n, (), name=name)(x.shape[-1]) for name, n in (("face", 2), ("box", 4))]
        kernel, bias = (jnp.concatenate(parts, axis=-1) for parts in zip(*heads, strict=True))
        x = _biased(jnp.matmul(x, kernel, precision="highest"), bias)
        return _probability(x[..., :2]), x[..., 2:]


class RNet(nn.Module):
    """[N,24,24,3] -> (face probability [N], box offsets [N,4])."""

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = FirstBlock(28, 3, name="block_1")(x)
        x = _pool(ConvBlock(48, 3, name="block_2")(x), 3)
        x = ConvBlock(64, 2, name="block_3")(x)
        x = DenseBlock(128, name="block_4")(x)
        return _probability(_dense(2, "face")(x)), _dense(4, "box")(x)


class ONet(nn.Module):
    """[N,48,48,3] -> (face probability [N], box offsets [N,4], five points [N,5,2]).

    The points are (x, y) as shares of the box: eyes, nose, corners of the mouth.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        x = FirstBlock(32, 3, name="block_1")(x)
        x = _pool(ConvBlock(64, 3, name="block_2")(x), 3)
        x = _pool(ConvBlock(64, 3, name="block_3")(x), 2)
        x = ConvBlock(128, 2, name="block_4")(x)
        x = DenseBlock(256, name="block_5")(x)
        points = _dense(10, "points")(x).reshape(-1, 2, 5).transpose(0, 2, 1)
        return _probability(_dense(2, "face")(x)), _dense(4, "box")(x), points


def _probability(votes: jax.Array) -> jax.Array:
    """The second of the two softmax probabilities [...] of `votes` [..., 2]."""
    return nn.sigmoid(votes[..., 1] - votes[..., 0])


def _dense(features: int, name: str) -> nn.Dense:
    return nn.Dense(features, precision="highest", name=name)


def _biased(x: jax.Array, bias: jax.Array) -> jax.Array:
    return x + bias.reshape((1,) * (x.ndim - 1) + (-1,))


def _conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    # "highest": a GPU's default (TF32) moves scores by 1e-3 and boxes by a pixel
    dims = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", dimension_numbers=dims, precision="highest"
    )


def _conv_by_rows(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Unpadded convolution as one matrix product for all rows of the kernel, by pairs of outputs.

    [N,H,W,C] with [k,k,C,F] -> [N,H-k+1,W-k+1,F]. With few channels XLA:CPU's own convolution takes
    one and a half times as long, and several times as long on two cores.
    """
    size, _, channels, features = kernel.shape
    height, width = (n - size + 1 for n in x.shape[1:3])
    pairs, taps = -(-width // 2), size // 2 + 1  # of outputs a row; of pixels that each pair reads
    x = jnp.pad(x, ((0, 0), (0, 0), (0, 2 * (pairs + taps - 1) - x.shape[2]), (0, 0)))
    x = x.reshape(*x.shape[:2], -1, 2 * channels)
    seen = jnp.concatenate([x[:, :, i : i + pairs] for i in range(taps)], axis=-1)
    shifts = [jnp.pad(kernel, ((0, 0), (i, 2 * taps - size - i), (0, 0), (0, 0))) for i in (0, 1)]
    rows = jnp.stack(shifts, axis=-2).reshape(size, seen.shape[-1], 2 * features)
    products = seen.reshape(-1, rows.shape[1]) @ jnp.concatenate(list(rows), axis=-1)
    products = products.reshape(*seen.shape[:3], size, 2 * features)  # a row of pixels, by tap row
    total = sum(products[:, i : i + height, :, i] for i in range(size))
    return total.reshape(len(x), height, -1, features)[:, :, :width]


def _pool(x: jax.Array, window: int) -> jax.Array:
    """Maximum over `window` x `window` pixels, stride 2; the last window may reach over the edge.

    So Caffe has it. Computed as the maximum of shifted maps, because XLA:CPU takes three times as
    long over its own windows.
    """
    for axis in (1, 2):
        x = _extended(x, axis, (window - x.shape[axis]) % 2)
        end = x.shape[axis] - window + 1
        x = reduce(jnp.maximum, (lax.slice_in_dim(x, i, i + end, 2, axis) for i in range(window)))
    return x


def _pool_joined(x: jax.Array, height: int, width: int, window: int) -> jax.Array:
    """Maximum over `window` x `window` pixels, stride 2, of pixels joined two by two.

    [N,h,w,2,2,F] -> [N,h,w,F]. The map was `height` x `width` before its pixels were joined; the
    last joined pixels of an odd one reach beyond it. A window may reach over the edge.
    """
    for axis, size in ((1, height), (2, width)):
        first, second = (lax.index_in_dim(x, i, axis=3, keepdims=False) for i in (0, 1))
        if size % 2:
            second = _extended(lax.slice_in_dim(second, 0, -1, axis=axis), axis, 1)
        x = jnp.maximum(first, second)
        if window == 3:
            x = jnp.maximum(x, _extended(lax.slice_in_dim(first, 1, None, axis=axis), axis, 1))
    return x


def _extended(x: jax.Array, axis: int, count: int) -> jax.Array:
    """`x` with `count` places of minus infinity at the end of an axis, which no maximum takes."""
    padding = [(0, count if i == axis else 0) for i in range(x.ndim)]
    return jnp.pad(x, padding, constant_values=-jnp.inf)
