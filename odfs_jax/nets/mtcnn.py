"""The three networks of MTCNN, as the Caffe originals compute them. NHWC, float32.

Input pictures hold (pixel - 127.5) / 128, pixels 0..255 in RGB order. Offsets of a box come as
shares of its width and height: (left, top, right, bottom).
Source: Zhang et al., "Joint face detection and alignment using multitask cascaded convolutional
networks", IEEE SPL 23(10), 2016; layer sizes from the authors' prototxt files.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

PNET_CELL = 12  # pixels that one output of the P-Net sees
PNET_STRIDE = 2  # pixels between its outputs
RNET_SIZE = 24
ONET_SIZE = 48


class PReLU(nn.Module):
    """x for x > 0, else x times a slope learned for each channel; [..., C] -> [..., C]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        slope = self.param("slope", nn.initializers.constant(0.25), x.shape[-1:], jnp.float32)
        slope = slope.reshape((1,) * (x.ndim - 1) + (-1,))
        return jnp.maximum(x, 0) + slope * jnp.minimum(x, 0)


class ConvBlock(nn.Module):
    """Unpadded convolution and PReLU: [N,H,W,C] -> [N,H-size+1,W-size+1,features]."""

    features: int
    size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        window = (self.size, self.size)
        # "highest": a GPU's default (TF32) moves scores by 1e-3 and boxes by a pixel
        x = nn.Conv(self.features, window, padding="VALID", precision="highest", name="conv")(x)
        return PReLU(name="prelu")(x)


class DenseBlock(nn.Module):
    """[N,h,w,C] flattened column by column (Caffe's order), dense, PReLU: -> [N,features]."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.transpose(0, 2, 1, 3).reshape(x.shape[0], -1)
        return PReLU(name="prelu")(_dense(self.features, "dense")(x))


class PNet(nn.Module):
    """[N,H,W,3] -> (face probability [N,h,w], box offsets [N,h,w,4]), h = ceil((H-2)/2) - 4."""

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = _pool(ConvBlock(10, 3, name="block_1")(x), 2)
        x = ConvBlock(16, 3, name="block_2")(x)
        x = ConvBlock(32, 3, name="block_3")(x)
        return nn.softmax(_dense(2, "face")(x))[..., 1], _dense(4, "box")(x)


class RNet(nn.Module):
    """[N,24,24,3] -> (face probability [N], box offsets [N,4])."""

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = _pool(ConvBlock(28, 3, name="block_1")(x), 3)
        x = _pool(ConvBlock(48, 3, name="block_2")(x), 3)
        x = ConvBlock(64, 2, name="block_3")(x)
        x = DenseBlock(128, name="block_4")(x)
        return nn.softmax(_dense(2, "face")(x))[..., 1], _dense(4, "box")(x)


class ONet(nn.Module):
    """[N,48,48,3] -> (face probability [N], box offsets [N,4], five points [N,5,2]).

    The points are (x, y) as shares of the box: eyes, nose, corners of the mouth.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        x = _pool(ConvBlock(32, 3, name="block_1")(x), 3)
        x = _pool(ConvBlock(64, 3, name="block_2")(x), 3)
        x = _pool(ConvBlock(64, 3, name="block_3")(x), 2)
        x = ConvBlock(128, 2, name="block_4")(x)
        x = DenseBlock(256, name="block_5")(x)
        points = _dense(10, "points")(x).reshape(-1, 2, 5).transpose(0, 2, 1)
        return nn.softmax(_dense(2, "face")(x))[..., 1], _dense(4, "box")(x), points


def _dense(features: int, name: str) -> nn.Dense:
    return nn.Dense(features, precision="highest", name=name)


def _pool(x: jax.Array, size: int) -> jax.Array:
    """Maximum over windows of `size`, stride 2; as in Caffe the last may hang over the edge."""
    height, width = (-(n - size) % 2 for n in x.shape[1:3])
    return nn.max_pool(x, (size, size), (2, 2), padding=((0, height), (0, width)))
