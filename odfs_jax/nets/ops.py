"""The layers that every swap network is made of. NHWC; parameters float32."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

Output = tuple[jax.Array, jax.Array]  # (face [N,R,R,3 or 1], mask [N,R,R,1]), float32 in [0, 1]

LEAK = 0.1  # slope of the leaky ReLU below zero, spec section 7
SMALL = 4  # pixels of a map that is convolved as a matrix product on a CPU
# He et al. 2015 for leaky ReLU: the 2018 Glorot start lets the signal fade over a dozen layers, and
# needs about twice the iterations to the same loss (docs/demo.md).
INIT = nn.initializers.variance_scaling(2 / (1 + LEAK**2), "fan_in", "uniform")


def conv_same(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """2-D convolution with "SAME" padding: [N,H,W,C] with [k,k,C,F] -> [N,ceil(H/s),ceil(W/s),F].

    On a CPU, maps of up to SMALL pixels go through `conv_by_matmul`.
    """
    # XLA:CPU swaps picture and kernel when the kernel is the larger one, and the swapped form of
    # the gradient runs in a scalar loop: 18 s instead of 0.6 s for H64's last encoder layer. A 3x3
    # kernel on a 4x4 map escapes that, and still takes 1.6 times as long as the matrix product.
    small = min(-(-size // stride) for size in x.shape[1:3]) <= SMALL
    if small and jax.default_backend() == "cpu":
        return conv_by_matmul(x, kernel, stride)
    dims = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=dims)


def conv_by_matmul(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """The same convolution as one matrix product over the k*k shifted pictures."""
    size, _, _, features = kernel.shape
    spatial = x.shape[1:3]
    pads = lax.padtype_to_pads(spatial, (size, size), (stride, stride), "SAME")
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    ends = [-(-s // stride) * stride - stride + 1 for s in spatial]
    columns = [
        x[:, i : i + ends[0] : stride, j : j + ends[1] : stride]
        for i in range(size)
        for j in range(size)
    ]
    return jnp.concatenate(columns, axis=-1) @ kernel.reshape(-1, features)


def depth_to_space(x: jax.Array) -> jax.Array:
    """Pixel shuffle by two: [N,H,W,4C] -> [N,2H,2W,C]."""
    n, h, w, c = x.shape
    x = x.reshape(n, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, 2 * h, 2 * w, c // 4)


def biased(x: jax.Array, bias: jax.Array) -> jax.Array:
    """`x` [..., C] plus a float32 `bias` [C], added in float32, in the type of `x`.

    The bias's gradient is a sum over every pixel of a batch: bfloat16 stops adding up after 256.
    """
    total = x.astype(jnp.float32) + bias.reshape((1,) * (x.ndim - 1) + (-1,))
    return total.astype(x.dtype)


class Conv(nn.Module):
    """Convolution with bias, "SAME" padding: [N,H,W,C] -> [N,ceil(H/stride),...,features]."""

    features: int
    kernel_size: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", INIT, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return biased(conv_same(x, kernel.astype(x.dtype), self.stride), bias)


class Dense(nn.Module):
    """Fully connected layer with bias: [N, C] -> [N, features]."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", INIT, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return biased(x @ kernel.astype(x.dtype), bias)


class Downscale(nn.Module):
    """5x5 convolution of stride 2 and leaky ReLU: [N,H,W,C] -> [N,H/2,W/2,features]."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.leaky_relu(Conv(self.features, 5, 2, name="conv")(x), LEAK)


class Upscale(nn.Module):
    """3x3 convolution, leaky ReLU, pixel shuffle: [N,H,W,C] -> [N,2H,2W,features]."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Conv(4 * self.features, 3, name="conv")(x)
        return depth_to_space(nn.leaky_relu(x, LEAK))


def scaled(widths: Sequence[int], width: float) -> tuple[int, ...]:
    """`widths` times the width multiplier, each at least 4 and a multiple of 4."""
    return tuple(max(4, round(w * width / 4) * 4) for w in widths)
