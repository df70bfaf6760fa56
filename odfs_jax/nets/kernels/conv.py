"""Convolution as each kind of device does it fastest, and the pixel shuffle. NHWC, "SAME" padding.

A GPU takes XLA's own, but where a picture comes out. On a CPU that is near the matrix product's
speed on large maps and forwards only; what it does slowly is done here in other ways (measured in
docs/performance.md).
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from odfs_jax.nets.kernels.half import conv_half, is_half
from odfs_jax.nets.kernels.pixels import (
    at_a_time,
    columns,
    depth_to_space,
    padded,
    shifted,
    space_to_depth,
    taps_of,
)
from odfs_jax.nets.kernels.winograd import conv_winograd

SMALL = 16  # pixels of a map that is convolved as a matrix product on a CPU
CHUNK = 1 << 22  # values of the columns of a large map that are held at a time
FEW = 4  # outputs of a convolution for which pixels are worth joining
ENOUGH = 1024  # pixels, and
MANY = 64  # channels and features from which on Winograd's tiles are worth their transforms
LARGE = 1 << 16  # values of a kernel that is worth `in_turn`


def conv_same(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """2-D convolution: [N,H,W,C] with [k,k,C,F] -> [N,ceil(H/s),ceil(W/s),F], `stride` s 1 or 2."""
    few = stride == 1 and _is_even(x) and kernel.shape[0] % 4 == 1 and kernel.shape[-1] <= FEW
    if jax.default_backend() != "cpu":
        kernel = in_order(kernel)
        return conv_by_quarters(x, kernel, conv_to_few) if few else _conv(x, kernel, stride, "SAME")
    x, kernel = in_turn(x, kernel)
    if is_half(x):
        return conv_by_quarters(x, kernel, conv_to_few) if few else conv_large(x, kernel, stride)
    if stride == 1 and _suits_winograd(x, kernel):
        return conv_winograd(x, kernel)
    if min(-(-size // stride) for size in x.shape[1:3]) <= SMALL:
        return conv_by_matmul(x, kernel, stride)
    if few:
        return conv_by_quarters(x, kernel, partial(conv_large, stride=1))
    return conv_large(x, kernel, stride)


def _suits_winograd(x: jax.Array, kernel: jax.Array) -> bool:
    """Enough tiles for the kernel's transform, and wide enough for theirs."""
    pictures, height, width, _ = x.shape
    return (
        kernel.shape[:2] == (3, 3)
        and min(kernel.shape[2:]) >= MANY
        and _is_even(x)
        and pictures * height * width >= ENOUGH
    )


def _is_even(x: jax.Array) -> bool:
    return x.shape[1] % 2 == x.shape[2] % 2 == 0


def _conv(x: jax.Array, kernel: jax.Array, stride: int, padding) -> jax.Array:
    """XLA's own."""
    dims = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=dims)


def conv_by_matmul(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """The same convolution as one matrix product over the k*k shifted pictures.

    Of a small map: XLA:CPU turns every large kernel round for the gradient of `x`, and swaps
    picture and kernel when the kernel is the larger one; the swapped form of the gradient runs in
    a scalar loop: 18 s instead of 0.6 s for H64's last encoder layer.
    """
    size, _, _, features = kernel.shape
    return columns(padded(x, size, stride), size, stride) @ kernel.reshape(-1, features)


def conv_by_quarters(
    x: jax.Array, kernel: jax.Array, convolve: Callable[[jax.Array, jax.Array], jax.Array]
) -> jax.Array:
    """The same convolution of an even map, of stride 1, kernel 1, 5, 9 ..., to few features.

    Two by two pixels are one of four times the channels, there and back, and `convolve` is what
    that map and its kernel go through: a vector or matrix unit is idle with the one or three
    features of a picture. After a pixel shuffle the joining costs nothing: XLA cancels both.
    """
    return depth_to_space(convolve(space_to_depth(x), joined_kernel(kernel)))


@jax.custom_vjp
def conv_to_few(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The same convolution, of stride 1 and an odd kernel: first what each pixel gives to each of
    its k*k neighbours, one matrix product, then their sums.

    A picture's few features leave a GPU's matrix units idle too, and cuDNN reads the map k*k times.
    Here it is read once, and the gifts of all neighbours are smaller than the map itself.
    """
    size, _, channels, features = kernel.shape
    taps = kernel.transpose(2, 0, 1, 3).reshape(channels, -1)
    dims = (((3,), (0,)), ((), ()))
    given = lax.dot_general(x, taps, dims, preferred_element_type=jnp.float32)
    rows = taps_of(padded(given, size, 1), size, 1, axis=1)
    moved = [part for row in rows for part in taps_of(row, size, 1, axis=2)]
    parts = [part[..., i * features :][..., :features] for i, part in enumerate(moved)]
    return sum(parts[1:], parts[0]).astype(x.dtype)


def _conv_to_few_forward(x: jax.Array, kernel: jax.Array):
    return conv_to_few(x, kernel), (x, kernel)


def _conv_to_few_backward(saved: tuple[jax.Array, jax.Array], grad: jax.Array):
    x, kernel = saved
    size, _, channels, features = kernel.shape
    back = columns(padded(grad, size, 1), size, 1)
    of_x = back @ kernel[::-1, ::-1].swapaxes(2, 3).reshape(-1, channels)
    of_each = jnp.einsum("nhwc,nhwt->nct", x, back, preferred_element_type=jnp.float32)
    of_kernel = of_each.sum(axis=0).reshape(channels, size, size, features)
    return of_x, of_kernel.transpose(1, 2, 0, 3)[::-1, ::-1].astype(kernel.dtype)


conv_to_few.defvjp(_conv_to_few_forward, _conv_to_few_backward)


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


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv_large(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """The same convolution, forwards XLA's own or `conv_half`, with gradients of our own.

    XLA:CPU takes the gradient of the kernel at a quarter of the matrix product's speed, and that
    of a halved `x` from a map widened with zeros, which it multiplies too.
    """
    return conv_half(x, kernel, stride) if is_half(x) else _conv(x, kernel, stride, "SAME")


def _conv_large_forward(x: jax.Array, kernel: jax.Array, stride: int):
    return conv_large(x, kernel, stride), (x, kernel)


def _conv_large_backward(stride: int, saved: tuple[jax.Array, jax.Array], grad: jax.Array):
    x, kernel = saved
    size, _, channels, features = kernel.shape
    if stride == 2 and size > 1 and _is_even(x):
        of_x = _widened(grad, kernel)
    else:
        _, pull = jax.vjp(lambda x: _conv(x, kernel, stride, "SAME"), x)
        (of_x,) = pull(grad)
    if stride == 1 and features < channels:  # the shifted pictures of `grad` are the smaller ones
        of_kernel = _correlated(grad, x, size, 1, mirrored=True)
        return of_x, of_kernel[::-1, ::-1].swapaxes(2, 3)
    return of_x, _correlated(x, grad, size, stride)


conv_large.defvjp(_conv_large_forward, _conv_large_backward)


def _widened(grad: jax.Array, kernel: jax.Array) -> jax.Array:
    """The gradient of an even map that was halved: each of its four phases is a convolution of
    `grad` with the taps that reach it."""
    phases = []
    for row in _phases(kernel.shape[0]):
        for column in _phases(kernel.shape[1]):
            taps = kernel[row[0] :: 2, column[0] :: 2][::-1, ::-1].swapaxes(2, 3)
            padding = [
                (size - 1 - p[1], p[1])
                for size, p in zip(taps.shape[:2], (row, column), strict=True)
            ]
            phases.append(_conv(grad, taps, 1, padding))
    return depth_to_space(jnp.concatenate(phases, axis=-1))


def _phases(size: int) -> list[tuple[int, int]]:
    """For even and odd pixels: (the first tap that reaches one, its output less the pixel's)."""
    low = (size - 2) // 2  # "SAME" padding in front of an even map
    firsts = [(phase + low) % 2 for phase in (0, 1)]
    return [(first, (phase + low - first) // 2) for phase, first in enumerate(firsts)]


def _correlated(
    x: jax.Array, grad: jax.Array, size: int, stride: int, mirrored: bool = False
) -> jax.Array:
    """The sums over all pixels of shifted `x` times `grad`: [k,k,C,F], as matrix products.

    One product a row of the kernel, over the k shifted pictures of that row; a few pictures at a
    time: the columns of all would take more room than all else in a step.
    """
    n, height, width, features = grad.shape
    channels = size * x.shape[-1]
    pictures = at_a_time(n, CHUNK // (height * width * channels))
    x, grad = (
        a.reshape(-1, pictures, *a.shape[1:]) for a in (padded(x, size, stride, mirrored), grad)
    )

    def add(sums: list[jax.Array], part: tuple[jax.Array, jax.Array]) -> tuple[list, None]:
        beside = shifted(part[0], size, stride, axis=2)
        rows = (row.reshape(-1, channels) for row in taps_of(beside, size, stride, axis=1))
        values = part[1].reshape(-1, features)
        products = (jnp.matmul(row.T, values, preferred_element_type=jnp.float32) for row in rows)
        return [total + product for total, product in zip(sums, products, strict=True)], None

    sums = [jnp.zeros((channels, features), jnp.float32) for _ in range(size)]
    sums = jnp.stack(lax.scan(add, sums, (x, grad))[0]).reshape(size, size, -1, features)
    return sums.astype(x.dtype)


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


@jax.custom_vjp
def in_order(kernel: jax.Array) -> jax.Array:
    """`kernel` as it is; on the way back its gradient is laid out in memory as the kernel is.

    cuDNN gives it in an order of its own. XLA:GPU would turn it round within the optimiser, whose
    fused reads and writes of the weights and moments then take three times as long, and no longer
    happen in place: a fifth of LIAEF128's step.
    """
    return kernel


def _in_order_backward(_: None, grad: jax.Array) -> tuple[jax.Array]:
    return (lax.optimization_barrier(grad.ravel()).reshape(grad.shape),)


in_order.defvjp(lambda kernel: (kernel, None), _in_order_backward)
