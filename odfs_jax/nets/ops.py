"""The layers that every swap network is made of. NHWC; parameters float32."""

from collections.abc import Sequence
from itertools import accumulate

import flax.linen as nn
import jax
import jax.numpy as jnp

from odfs_jax.nets.kernels.conv import conv_same, in_turn
from odfs_jax.nets.kernels.half import is_half, product
from odfs_jax.nets.kernels.pixels import depth_to_space

Output = tuple[jax.Array, jax.Array]  # (face [N,R,R,3 or 1], mask [N,R,R,1]), float32 in [0, 1]
Codes = dict[str, jax.Array]  # side -> code [N, ...] in the type of what is computed

LEAK = 0.1  # slope of the leaky ReLU below zero, docs/reference_2018.md section 7
ROWS = 8  # of ones, for a matrix product; of a single row XLA makes a sum again
# He et al. 2015 for leaky ReLU: the 2018 Glorot start lets the signal fade over a dozen layers, and
# needs about twice the iterations to the same loss (docs/demo.md).
INIT = nn.initializers.variance_scaling(2 / (1 + LEAK**2), "fan_in", "uniform")


@jax.custom_vjp
def biased(x: jax.Array, bias: jax.Array) -> jax.Array:
    """`x` [..., C] plus a float32 `bias` [C], added in float32, in the type of `x`.

    The bias's gradient is a sum over every pixel of a batch: bfloat16 stops adding up after 256.
    """
    total = x.astype(jnp.float32) + bias.reshape((1,) * (x.ndim - 1) + (-1,))
    return total.astype(x.dtype)


def _biased_backward(_: None, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    if jax.default_backend() == "cpu":
        return grad, grad.astype(jnp.float32).sum(axis=range(grad.ndim - 1))
    # Products with ones: XLA:GPU's sums over columns read memory at a sixth of its speed.
    pixels = grad.reshape(len(grad), -1, grad.shape[-1])
    ones = jnp.ones((len(grad), ROWS, pixels.shape[1]), grad.dtype)
    sums = jnp.einsum(
        "nrp,npc->nrc", ones, pixels, precision="highest", preferred_element_type=jnp.float32
    )
    return grad, sums.sum(axis=(0, 1)) / ROWS


biased.defvjp(lambda x, bias: (biased(x, bias), None), _biased_backward)


class Conv(nn.Module):
    """Convolution with bias, "SAME" padding: [N,H,W,C] -> [N,ceil(H/stride),...,features].

    Of several maps it is that of all their channels, without a copy that joins them; of one map
    given more than once, with the sum of its kernels.
    """

    features: int
    kernel_size: int
    stride: int = 1

    @nn.compact
    def __call__(self, *maps: jax.Array) -> jax.Array:
        ends = list(accumulate(x.shape[-1] for x in maps))
        shape = (self.kernel_size, self.kernel_size, ends[-1], self.features)
        kernel = self.param("kernel", INIT, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        kernels = jnp.split(kernel, ends[:-1], axis=2)
        if all(x is maps[0] for x in maps):
            maps, kernels = maps[:1], [sum(kernels[1:], kernels[0])]
        parts = [
            conv_same(x, k.astype(x.dtype), self.stride) for x, k in zip(maps, kernels, strict=True)
        ]
        return biased(sum(parts[1:], parts[0]), bias)


class Dense(nn.Module):
    """Fully connected layer with bias: [N, C] -> [N, features]."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", INIT, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        x, kernel = in_turn(x, kernel.astype(x.dtype))
        return biased(product(x, kernel) if is_half(x) else x @ kernel, bias)


class Downscale(nn.Module):
    """5x5 convolution of stride 2 and leaky ReLU: [N,H,W,C] -> [N,H/2,W/2,features]."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.leaky_relu(Conv(self.features, 5, 2, name="conv")(x), LEAK)


class Upscale(nn.Module):
    """3x3 convolution, leaky ReLU, pixel shuffle: [N,H,W,C] -> [N,2H,2W,features].

    Of several batches, one after the other, C is the most that one has; one of C/2 or C/3 channels
    stands for itself repeated, which costs it nothing.
    """

    features: int

    @nn.compact
    def __call__(self, *batches: jax.Array) -> jax.Array:
        conv = Conv(4 * self.features, 3, name="conv")
        channels = max(x.shape[-1] for x in batches)
        convolved = [conv(*[x] * (channels // x.shape[-1])) for x in batches]
        x = jnp.concatenate(convolved) if len(batches) > 1 else convolved[0]
        return depth_to_space(nn.leaky_relu(x, LEAK))


def scaled(widths: Sequence[int], width: float) -> tuple[int, ...]:
    """`widths` times the width multiplier, each at least 4 and a multiple of 4."""
    return tuple(max(4, round(w * width / 4) * 4) for w in widths)
