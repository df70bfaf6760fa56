"""The network of MediaPipe's Face Mesh: 468 points in space of one face. NHWC, float32.

Source: Kartynnik, Ablavatski, Grishchenko, Grundmann, "Real-time facial surface geometry from
monocular video on mobile GPUs", CVPR Workshop 2019; layers as in face_landmark.tflite of the
package mediapipe 0.10.21.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from odfs_jax.nets.detectors.mtcnn import PReLU

INPUT = 192  # pixels a side
POINTS = 468
WIDTHS = (16, 32, 64, 128, 128)  # of the stages, each at half the size of the one before
TAIL, HEAD = 128, 32  # features of the last maps, which are 3 x 3


class FaceMesh(nn.Module):
    """Crops [N,192,192,3], RGB 0..1, -> (points [N,468,3], logit [N] of there being a face).

    x and y of a point are pixels of the crop, from the edge of its first pixel; z has their scale,
    is 0 about the head's middle and falls towards the viewer.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = PReLU(name="prelu")(_conv(WIDTHS[0], 3, 2, "SAME", "conv")(x))
        for stage, width in enumerate(WIDTHS):
            if stage:
                x = Block(width, 2, name=f"stage_{stage}_down")(x)
            for i in range(2):
                x = Block(width, name=f"stage_{stage}_{i}")(x)
        mesh = Block(TAIL, name="mesh_1")(Block(TAIL, 2, name="mesh_down")(x))
        mesh = Block(TAIL, name="mesh_2")(mesh)
        face = Block(TAIL, 2, name="face_down")(x)
        return (
            _head(mesh, 3 * POINTS, "mesh").reshape(-1, POINTS, 3),
            _head(face, 1, "face")[:, 0],
        )


class Block(nn.Module):
    """A residual block: 3x3 by channel, 1x1 across; [N,H,W,C] -> [N,H/stride,W/stride,features]."""

    features: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = _conv(self.features, 1, 1, "SAME", "mix")(ByChannel(self.stride, name="by_channel")(x))
        if self.stride == 2:
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.features - x.shape[-1])))
        return PReLU(name="prelu")(x + y)


class ByChannel(nn.Module):
    """A 3x3 convolution of each channel by itself: [N,H,W,C] -> [N,H/stride,W/stride,C].

    Computed as the sum of shifted maps, which XLA fuses into one loop; its own grouped convolution
    takes many times as long on a CPU.
    """

    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        count, height, width, channels = x.shape
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (3, 3, 1, channels))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        # TensorFlow's "SAME": with stride 2 an even size lacks a pixel at its end alone
        x = jnp.pad(x, ((0, 0), *[(2 - self.stride, 1)] * 2, (0, 0)))
        height, width = height - self.stride + 1, width - self.stride + 1
        total = bias.reshape(1, 1, 1, channels)
        for row, column in np.ndindex(3, 3):
            start, end = (0, row, column, 0), (count, row + height, column + width, channels)
            shifted = lax.slice(x, start, end, (1, self.stride, self.stride, 1))
            total = total + shifted * kernel[row, column].reshape(1, 1, 1, channels)
        return total


def _head(x: jax.Array, outputs: int, name: str) -> jax.Array:
    x = PReLU(name=f"{name}_prelu")(_conv(HEAD, 1, 1, "SAME", f"{name}_narrow")(x))
    x = Block(HEAD, name=f"{name}_block")(x)
    return _conv(outputs, 3, 1, "VALID", f"{name}_out")(x)[:, 0, 0]


def _conv(features: int, size: int, stride: int, padding: str, name: str) -> nn.Conv:
    # "highest": a GPU's default (TF32) moves points by tenths of a pixel
    return nn.Conv(features, (size, size), stride, padding=padding, precision="highest", name=name)
