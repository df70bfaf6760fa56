"""The layers that every swap network is made of. NHWC; parameters float32."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

Output = tuple[jax.Array, jax.Array]  # (face [N,R,R,3 or 1], mask [N,R,R,1]), float32 in [0, 1]

LEAK = 0.1  # slope of the leaky ReLU below zero, spec section 7
SMALL = 4  # pixels of a map that is convolved as a matrix product on a CPU
LARGE = 1 << 16  # values of a kernel that is worth `in_turn`
# He et al. 2015 for leaky ReLU: the 2018 Glorot start lets the signal fade over a dozen layers, and
# needs about twice the iterations to the same loss (docs/demo.md).
INIT = nn.initializers.variance_scaling(2 / (1 + LEAK**2), "fan_in", "uniform")


def conv_same(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """2-D convolution with "SAME" padding: [N,H,W,C] with [k,k,C,F] -> [N,ceil(H/s),ceil(W/s),F].

    On a CPU, maps of up to SMALL pixels go through `conv_by_matmul`, and larger ones that are
    halved through `conv_halved`.
    """
    # XLA:CPU swaps picture and kernel when the kernel is the larger one, and the swapped form of
    # the gradient runs in a scalar loop: 18 s instead of 0.6 s for H64's last encoder layer. A 3x3
    # kernel on a 4x4 map escapes that, and still takes 1.6 times as long as the matrix product.
    if jax.default_backend() == "cpu":
        x, kernel = in_turn(x, kernel)
        if min(-(-size // stride) for size in x.shape[1:3]) <= SMALL:
            return conv_by_matmul(x, kernel, stride)
        if stride == 2 and kernel.shape[0] > 1 and not (x.shape[1] % 2 or x.shape[2] % 2):
            return conv_halved(x, kernel)
    return _conv(x, kernel, stride, "SAME")


def _conv(x: jax.Array, kernel: jax.Array, stride: int, padding) -> jax.Array:
    dims = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=dims)


@jax.custom_vjp
def conv_halved(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The same convolution of stride 2: [N,H,W,C] -> [N,H/2,W/2,F]; H and W even, k above 1.

    XLA:CPU takes the gradient of `x` from a map widened with zeros and multiplies those too. Here
    each of the four phases of `x` gets its own: a convolution with the taps that reach it.
    """
    return _conv(x, kernel, 2, "SAME")


def _conv_halved_forward(x: jax.Array, kernel: jax.Array):
    return conv_halved(x, kernel), (x, kernel)


def _conv_halved_backward(saved: tuple[jax.Array, jax.Array], grad: jax.Array):
    x, kernel = saved
    _, pull = jax.vjp(lambda kernel: _conv(x, kernel, 2, "SAME"), kernel)
    phases = []
    for row in _phases(kernel.shape[0]):
        for column in _phases(kernel.shape[1]):
            taps = kernel[row[0] :: 2, column[0] :: 2][::-1, ::-1].swapaxes(2, 3)
            padding = [
                (size - 1 - p[1], p[1])
                for size, p in zip(taps.shape[:2], (row, column), strict=True)
            ]
            phases.append(_conv(grad, taps, 1, padding))
    return depth_to_space(jnp.concatenate(phases, axis=-1)), pull(grad)[0]


def _phases(size: int) -> list[tuple[int, int]]:
    """For even and odd pixels: (the first tap that reaches one, its output less the pixel's)."""
    low = (size - 2) // 2  # "SAME" padding in front of an even map
    firsts = [(phase + low) % 2 for phase in (0, 1)]
    return [(first, (phase + low - first) // 2) for phase, first in enumerate(firsts)]


conv_halved.defvjp(_conv_halved_forward, _conv_halved_backward)


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


def in_turn(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both as they are; on the way back the gradient of a large `kernel` waits for that of `x`.

    The gradient of `x` reads the kernel, and an update in place overwrites it. As nothing of the
    one leads to the other, XLA:CPU cannot tell which comes first: it keeps a copy of every kernel
    from the start of the step, and all gradients until the end, half of what H64's step takes.
    """
    if jax.default_backend() != "cpu" or kernel.size < LARGE:
        return x, kernel
    return _in_turn(x, kernel)


@jax.custom_vjp
def _in_turn(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
    return x, kernel


def _in_turn_backward(_: None, grads: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    of_x, of_kernel = grads
    return of_x, of_kernel + 0 * of_x.ravel()[0]  # XLA keeps this: 0 times a float may be NaN


_in_turn.defvjp(lambda x, kernel: ((x, kernel), None), _in_turn_backward)


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
        x, kernel = in_turn(x, kernel.astype(x.dtype))
        return biased(x @ kernel, bias)


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
