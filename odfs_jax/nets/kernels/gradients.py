"""Operations whose gradients are computed in another way than JAX's own: `jax.custom_vjp`. NHWC.

Two convolutions and a bias with faster gradients, and two functions that change nothing but the
order or the layout in which a gradient comes. None of them has a forward-mode derivative.
"""

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
    taps_of,
)

COLUMNS_CHUNK = 1 << 22  # values of a large map's shifted copies that are held at a time
ORDERED_MIN_SIZE = 1 << 16  # values of a kernel that is worth `kernel_gradient_after`
BIAS_ROWS = 8  # of ones; XLA turns a matrix product with one row back into a sum


def conv_xla(x: jax.Array, kernel: jax.Array, stride: int, padding) -> jax.Array:
    """XLA's own convolution: [N,H,W,C] with [k,k,C,F] -> [N,H',W',F].

    `padding` is "SAME", "VALID" or the zeros before and after each of the two axes.
    """
    dims = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=dims)


def is_even(x: jax.Array) -> bool:
    """True for maps [N,H,W,C] of even height and width."""
    return x.shape[1] % 2 == x.shape[2] % 2 == 0


@jax.custom_vjp
def conv_to_few(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution of stride 1 to a few features: [N,H,W,C] with an odd [k,k,C,F] -> [N,H,W,F].

    One matrix product gives what each pixel contributes to each of its k*k neighbors; these
    contributions are then shifted and added up. The few features of a picture leave a GPU's matrix
    units idle, and cuDNN reads the map k*k times. Here the map is read once, and the contributions
    to all neighbors are smaller than the map itself.
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


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv_large(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolution of a large map on a CPU: [N,H,W,C] with [k,k,C,F] -> [N,ceil(H/s),ceil(W/s),F].

    Forwards XLA's own, or `conv_half` for bfloat16. XLA:CPU computes the gradient of the kernel at
    a quarter of a matrix product's speed, and that of `x` at stride 2 from a map widened with
    zeros, which it multiplies too; both gradients are computed in other ways here.
    """
    return conv_half(x, kernel, stride) if is_half(x) else conv_xla(x, kernel, stride, "SAME")


def _conv_large_forward(x: jax.Array, kernel: jax.Array, stride: int):
    return conv_large(x, kernel, stride), (x, kernel)


def _conv_large_backward(stride: int, saved: tuple[jax.Array, jax.Array], grad: jax.Array):
    x, kernel = saved
    size, _, channels, features = kernel.shape
    if stride == 2 and size > 1 and is_even(x):
        of_x = conv_transposed(grad, kernel)
    else:
        _, pull = jax.vjp(lambda x: conv_xla(x, kernel, stride, "SAME"), x)
        (of_x,) = pull(grad)
    if stride == 1 and features < channels:  # the shifted copies of `grad` are the smaller ones
        of_kernel = _kernel_gradient(grad, x, size, 1, mirrored=True)
        return of_x, of_kernel[::-1, ::-1].swapaxes(2, 3)
    return of_x, _kernel_gradient(x, grad, size, stride)


conv_large.defvjp(_conv_large_forward, _conv_large_backward)


def conv_transposed(grad: jax.Array, kernel: jax.Array) -> jax.Array:
    """Gradient [N,2H,2W,C] of the input of a convolution of stride 2, from `grad` [N,H,W,F].

    `kernel` is [k,k,C,F], its padding "SAME". Of a map in place of `grad` this is the transposed
    convolution. Even and odd rows and columns make four phases of the input. Each phase's gradient
    is a convolution of `grad` with those taps of the kernel that reach it.
    """
    phases = []
    for row in _phases(kernel.shape[0]):
        for column in _phases(kernel.shape[1]):
            taps = kernel[row[0] :: 2, column[0] :: 2][::-1, ::-1].swapaxes(2, 3)
            padding = [
                (size - 1 - p[1], p[1])
                for size, p in zip(taps.shape[:2], (row, column), strict=True)
            ]
            phases.append(conv_xla(grad, taps, 1, padding))
    return depth_to_space(jnp.concatenate(phases, axis=-1))


def _phases(size: int) -> list[tuple[int, int]]:
    """For even, then odd pixels: (the first tap that reaches one, its output less the pixel's)."""
    low = (size - 2) // 2  # "SAME" padding in front of an even map
    firsts = [(phase + low) % 2 for phase in (0, 1)]
    return [(first, (phase + low - first) // 2) for phase, first in enumerate(firsts)]


def _kernel_gradient(
    x: jax.Array, grad: jax.Array, size: int, stride: int, mirrored: bool = False
) -> jax.Array:
    """The gradient [k,k,C,F] of a kernel: sums over all pixels of shifted `x` times `grad`.

    One matrix product a row of the kernel, over the k shifted copies of that row, for a few
    pictures at a time: the copies of all would take more room than all else in a step.
    """
    n, height, width, features = grad.shape
    channels = size * x.shape[-1]
    pictures = at_a_time(n, COLUMNS_CHUNK // (height * width * channels))
    x, grad = (
        a.reshape(-1, pictures, *a.shape[1:]) for a in (padded(x, size, stride, mirrored), grad)
    )

    def add(sums: list[jax.Array], part: tuple[jax.Array, jax.Array]) -> tuple[list, None]:
        copies = shifted(part[0], size, stride, axis=2)
        rows = (row.reshape(-1, channels) for row in taps_of(copies, size, stride, axis=1))
        values = part[1].reshape(-1, features)
        products = (jnp.matmul(row.T, values, preferred_element_type=jnp.float32) for row in rows)
        return [total + product for total, product in zip(sums, products, strict=True)], None

    sums = [jnp.zeros((channels, features), jnp.float32) for _ in range(size)]
    sums = jnp.stack(lax.scan(add, sums, (x, grad))[0]).reshape(size, size, -1, features)
    return sums.astype(x.dtype)


@jax.custom_vjp
def add_bias_auto(x: jax.Array, bias: jax.Array) -> jax.Array:
    """`x` [..., C] plus a float32 `bias` [C], added in float32; returned in the type of `x`.

    The bias's gradient is a sum over every pixel of a batch, in float32: bfloat16 would stop adding
    up after 256.
    """
    total = x.astype(jnp.float32) + bias.reshape((1,) * (x.ndim - 1) + (-1,))
    return total.astype(x.dtype)


def _add_bias_backward(_: None, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    if jax.default_backend() == "cpu":
        return grad, grad.astype(jnp.float32).sum(axis=range(grad.ndim - 1))
    # Products with ones: XLA:GPU's sums over columns read memory at a sixth of its speed.
    pixels = grad.reshape(len(grad), -1, grad.shape[-1])
    ones = jnp.ones((len(grad), BIAS_ROWS, pixels.shape[1]), grad.dtype)
    sums = jnp.einsum(
        "nrp,npc->nrc", ones, pixels, precision="highest", preferred_element_type=jnp.float32
    )
    return grad, sums.sum(axis=(0, 1)) / BIAS_ROWS


add_bias_auto.defvjp(lambda x, bias: (add_bias_auto(x, bias), None), _add_bias_backward)


def kernel_gradient_after(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`x` and `kernel` unchanged; a large `kernel`'s gradient is computed after that of `x`.

    Only on a CPU. The gradient of `x` reads the kernel, and an update in place overwrites it. As
    neither gradient depends on the other, XLA:CPU cannot tell which comes first: it keeps a copy of
    every kernel from the start of the step, and all gradients until its end, half of what H64's
    step takes.
    """
    if jax.default_backend() != "cpu" or kernel.size < ORDERED_MIN_SIZE:
        return x, kernel
    return _kernel_gradient_after(x, kernel)


@jax.custom_vjp
def _kernel_gradient_after(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
    return x, kernel


def _kernel_gradient_after_backward(
    _: None, grads: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    of_x, of_kernel = grads
    return of_x, of_kernel + 0 * of_x.ravel()[0]  # XLA keeps this: 0 times a float may be NaN


_kernel_gradient_after.defvjp(
    lambda x, kernel: ((x, kernel), None), _kernel_gradient_after_backward
)


@jax.custom_vjp
def row_major_gradient(kernel: jax.Array) -> jax.Array:
    """`kernel` unchanged; its gradient is laid out in memory row by row, as the kernel is.

    cuDNN returns it in an order of its own. XLA:GPU would transpose it within the optimizer, whose
    fused reads and writes of weights and moments then take three times as long and no longer happen
    in place: a fifth of LIAEF128's step.
    """
    return kernel


def _row_major_gradient_backward(_: None, grad: jax.Array) -> tuple[jax.Array]:
    return (lax.optimization_barrier(grad.ravel()).reshape(grad.shape),)


row_major_gradient.defvjp(lambda kernel: (kernel, None), _row_major_gradient_backward)
