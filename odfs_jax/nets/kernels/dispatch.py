"""Which program computes a layer: convolution, matrix product and bias. NHWC, "SAME" padding.

With `impl="xla"` each is XLA's own operation, and all that JAX can do with one works.

With `impl="auto"` (the default) the fastest known program is chosen while JAX traces the network,
by the kind of device that JAX runs on (`jax.default_backend()`) and by sizes: the thresholds below,
measured in docs/performance.md. A GPU gets XLA's own convolution, except where a picture comes out.
On a CPU, XLA's is close to a matrix product's speed on large maps and forwards only; what it does
slowly is done here in other ways. What you may not do with "auto", because its programs are
`jax.custom_vjp` and were chosen for one kind of device:

- Forward-mode derivatives: `jax.jvp`, `jax.jacfwd`, `jax.linearize` and a `jax.hessian` raise
  TypeError. Reverse mode works, over reverse mode too (the gradient of a gradient penalty).
- Tracing on one kind of device to run on another (`jax.export`, ahead-of-time lowering): a program
  exported on a CPU holds the CPU's convolutions, correct everywhere but slow on a GPU.

For both, build the network with `conv_impl="xla"` (`nets.build_net`); its parameters are the same.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from odfs_jax.nets.kernels.gradients import (
    add_bias_auto,
    conv_large,
    conv_to_few,
    conv_xla,
    is_even,
    kernel_gradient_after,
    row_major_gradient,
)
from odfs_jax.nets.kernels.half import is_half, product
from odfs_jax.nets.kernels.pixels import columns, depth_to_space, padded, space_to_depth
from odfs_jax.nets.kernels.winograd import conv_winograd

CONV_IMPLS = ("auto", "xla")
WINOGRAD_MIN_CHANNELS = 64  # channels and features of a kernel; with fewer the tiles cost too much
WINOGRAD_MIN_PIXELS = 1024  # of all pictures together; with fewer transforming the kernel does
MATMUL_MAX_SIDE = 16  # pixels of an output map's shorter side; a CPU takes one matrix product
JOIN_MAX_FEATURES = 4  # of an output; a picture's few features leave vector and matrix units idle


def conv(x: jax.Array, kernel: jax.Array, stride: int, impl: str) -> jax.Array:
    """2-D convolution: [N,H,W,C] with [k,k,C,F] -> [N,ceil(H/s),ceil(W/s),F], `stride` s 1 or 2."""
    if impl == "xla":
        return conv_xla(x, kernel, stride, "SAME")
    to_few = _suits_joined_pixels(x, kernel, stride)
    if jax.default_backend() != "cpu":
        kernel = row_major_gradient(kernel)
        if to_few:
            return conv_on_joined_pixels(x, kernel, conv_to_few)
        return conv_xla(x, kernel, stride, "SAME")
    x, kernel = kernel_gradient_after(x, kernel)
    if is_half(x):
        if to_few:
            return conv_on_joined_pixels(x, kernel, conv_to_few)
        return conv_large(x, kernel, stride)
    if stride == 1 and _suits_winograd(x, kernel):
        return conv_winograd(x, kernel)
    if min(-(-size // stride) for size in x.shape[1:3]) <= MATMUL_MAX_SIDE:
        return conv_by_matmul(x, kernel, stride)
    if to_few:
        return conv_on_joined_pixels(x, kernel, partial(conv_large, stride=1))
    return conv_large(x, kernel, stride)


def dense(x: jax.Array, kernel: jax.Array, impl: str) -> jax.Array:
    """Matrix product: [N,C] with [C,F] -> [N,F]."""
    if impl == "xla":
        return x @ kernel
    x, kernel = kernel_gradient_after(x, kernel)
    return product(x, kernel) if is_half(x) else x @ kernel


def add_bias(x: jax.Array, bias: jax.Array, impl: str) -> jax.Array:
    """`x` [..., C] plus a float32 `bias` [C], added in float32; returned in the type of `x`."""
    if impl == "xla":
        return (x.astype(jnp.float32) + bias.reshape((1,) * (x.ndim - 1) + (-1,))).astype(x.dtype)
    return add_bias_auto(x, bias)


def conv_by_matmul(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolution of a small map as one matrix product over its k*k shifted copies.

    [N,H,W,C] with [k,k,C,F] -> [N,ceil(H/s),ceil(W/s),F]. XLA:CPU turns every large kernel round
    for the gradient of `x`, and swaps map and kernel when the kernel is the larger one; the swapped
    form of the gradient runs in a scalar loop: 18 s instead of 0.6 s for H64's last encoder layer.
    """
    size, _, _, features = kernel.shape
    return columns(padded(x, size, stride), size, stride) @ kernel.reshape(-1, features)


def conv_on_joined_pixels(
    x: jax.Array, kernel: jax.Array, convolve: Callable[[jax.Array, jax.Array], jax.Array]
) -> jax.Array:
    """Convolution of stride 1 to a few features, on a map whose pixels are joined two by two.

    [N,H,W,C], H and W even, with [k,k,C,F], k 1, 5, 9 ..., -> [N,H,W,F]. Four pixels become one of
    four times the channels, and back; `convolve(map, kernel)` is the convolution in between. The
    one or three features of a picture leave a vector or matrix unit idle, twelve do less. After a
    pixel shuffle the joining costs nothing: XLA cancels both.
    """
    return depth_to_space(convolve(space_to_depth(x), joined_kernel(kernel)))


def joined_kernel(kernel: jax.Array) -> jax.Array:
    """An odd `kernel` [k,k,C,F] for pixels joined two by two: [(k+1)/2,(k+1)/2,4C,4F]."""
    size, _, channels, features = kernel.shape
    taps = (size + 1) // 2  # of two outputs the second sees one pixel further
    joined = [
        jnp.pad(kernel, ((row, 1 - row), (column, 1 - column), (0, 0), (0, 0)))
        for row in (0, 1)
        for column in (0, 1)
    ]
    joined = jnp.stack(joined, axis=-2).reshape(taps, 2, taps, 2, channels, 4, features)
    return joined.transpose(0, 2, 1, 3, 4, 5, 6).reshape(taps, taps, 4 * channels, -1)


def _suits_joined_pixels(x: jax.Array, kernel: jax.Array, stride: int) -> bool:
    size, features = kernel.shape[0], kernel.shape[-1]
    return stride == 1 and is_even(x) and size % 4 == 1 and features <= JOIN_MAX_FEATURES


def _suits_winograd(x: jax.Array, kernel: jax.Array) -> bool:
    """True for enough tiles to be worth the kernel's transform, wide enough for their own."""
    pictures, height, width, _ = x.shape
    return (
        kernel.shape[:2] == (3, 3)
        and min(kernel.shape[2:]) >= WINOGRAD_MIN_CHANNELS
        and is_even(x)
        and pictures * height * width >= WINOGRAD_MIN_PIXELS
    )
