"""3x3 convolution with 2.25 times fewer multiplications: Winograd's F(2x2, 3x3), for a CPU. NHWC.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), section 4.1. A
tile of two by two outputs reads four by four pixels. Tile and kernel are transformed, and then each
of the sixteen places of a tile is a matrix product of its own: [tiles,C] with [C,F]. The larger
tiles F(4x4, 3x3) multiply less still, but lose a digit of float32 and were no faster here.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from odfs_jax.nets.kernels.pixels import at_a_time

TILES_CHUNK = 3 << 18  # tiles at a time, times channels and features: some 50 MB at any batch size
FEATURES_CHUNK = 512  # of a kernel at a time, for one transformed takes 16 / 9 of the room
DATA = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
OUTPUT = ((1, 1, 1, 0), (0, 1, -1, -1))

Grid = list[list[jax.Array]]  # arrays of one shape by row and column


@jax.custom_vjp
def conv_winograd(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution of stride 1, "SAME" padding: even [N,H,W,C] with [3,3,C,F] -> [N,H,W,F]."""

    def convolve(start: jax.Array) -> jax.Array:
        places = _two_ways(KERNEL, _entries(_some(kernel, start)))
        done = lax.map(lambda x: _convolved(x, places, (1, 0)), _parts(x, *places[0][0].shape))
        return done.reshape(*x.shape[:3], -1)

    return _joined(lax.map(convolve, _starts(kernel)))


def _forward(x: jax.Array, kernel: jax.Array):
    return conv_winograd(x, kernel), (x, kernel)


def _backward(saved: tuple[jax.Array, jax.Array], grad: jax.Array):
    x, kernel = saved

    def add(of_x: jax.Array, start: jax.Array) -> tuple[jax.Array, jax.Array]:
        places = _two_ways(KERNEL, _entries(_some(kernel, start)[::-1, ::-1]))
        some = _some(grad, start)
        done = lax.map(lambda g: _convolved(g, places, (1, 1)), _parts(some, *places[0][0].shape))
        return of_x + done.reshape(x.shape), _correlated(x, some)

    of_x, of_kernel = lax.scan(add, jnp.zeros_like(x), _starts(kernel))
    return of_x, _joined(of_kernel)


conv_winograd.defvjp(_forward, _backward)


def _convolved(x: jax.Array, places: Grid, contracted: tuple[int, int]) -> jax.Array:
    """Some pictures convolved with a transformed kernel, summed over `contracted` axes of both."""
    n, height, width, _ = x.shape
    tiles = _two_ways(DATA, _tiles(x))
    dims = (((contracted[0],), (contracted[1],)), ((), ()))
    products = [
        [lax.dot_general(_flat(tile), place, dims) for tile, place in zip(*rows, strict=True)]
        for rows in zip(tiles, places, strict=True)
    ]
    quarters = _two_ways(OUTPUT, products)
    joined = jnp.stack([jnp.stack(row, axis=1) for row in quarters], axis=1)  # [tiles,2,2,F]
    joined = joined.reshape(n, height // 2, width // 2, 2, 2, -1).swapaxes(2, 3)
    return joined.reshape(n, height, width, -1)


def _correlated(x: jax.Array, grad: jax.Array) -> jax.Array:
    """The gradient [3,3,C,F] of the kernel, by the transposed transforms, summed over all tiles."""
    channels, features = x.shape[-1], grad.shape[-1]

    def add(sums: Grid, part: tuple[jax.Array, jax.Array]) -> tuple[Grid, None]:
        tiles = _two_ways(DATA, _tiles(part[0]))
        back = _two_ways(tuple(zip(*OUTPUT, strict=True)), _phases(part[1]))
        sums = [
            [total + _flat(tile).T @ _flat(g) for total, tile, g in zip(*rows, strict=True)]
            for rows in zip(sums, tiles, back, strict=True)
        ]
        return sums, None

    sums = [[jnp.zeros((channels, features), x.dtype) for _ in range(4)] for _ in range(4)]
    places, _ = lax.scan(add, sums, tuple(_parts(a, channels, features) for a in (x, grad)))
    taps = _two_ways(tuple(zip(*KERNEL, strict=True)), places)
    return jnp.stack([jnp.stack(row) for row in taps])


def _parts(x: jax.Array, channels: int, features: int) -> jax.Array:
    """Pictures in equal groups whose tiles fit TILES_CHUNK: [groups,n,H,W,C]."""
    n, height, width, _ = x.shape
    pictures = at_a_time(n, TILES_CHUNK * 4 // (height * width * (channels + features)))
    return x.reshape(-1, pictures, *x.shape[1:])


def _starts(kernel: jax.Array) -> jax.Array:
    """The first feature of each part of `kernel`, see `_some`."""
    return jnp.arange(0, kernel.shape[-1], math.gcd(kernel.shape[-1], FEATURES_CHUNK))


def _some(x: jax.Array, start: jax.Array) -> jax.Array:
    """The part of the last axis, features, that begins at `start`."""
    return lax.dynamic_slice_in_dim(x, start, math.gcd(x.shape[-1], FEATURES_CHUNK), axis=-1)


def _joined(parts: jax.Array) -> jax.Array:
    """Parts of the features [k,...,F/k] as one array [...,F]."""
    parts = jnp.moveaxis(parts, 0, -2)
    return parts.reshape(*parts.shape[:-2], -1)


def _tiles(x: jax.Array) -> Grid:
    """The four by four pixels that each two by two outputs read: [N,H/2,W/2,C] each."""
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return [
        [x[:, i : i + height - 1 : 2, j : j + width - 1 : 2] for j in range(4)] for i in range(4)
    ]


def _phases(x: jax.Array) -> Grid:
    return [[x[:, i::2, j::2] for j in (0, 1)] for i in (0, 1)]


def _entries(kernel: jax.Array) -> Grid:
    return [[kernel[i, j] for j in range(3)] for i in range(3)]


def _flat(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1])


def _two_ways(matrix: tuple[tuple[float, ...], ...], grid: Grid) -> Grid:
    """`matrix @ grid @ matrix.T` of a square grid of arrays."""
    columns = [_combined(matrix, column) for column in zip(*grid, strict=True)]
    return [_combined(matrix, row) for row in zip(*columns, strict=True)]


def _combined(matrix: tuple[tuple[float, ...], ...], arrays: tuple[jax.Array, ...]) -> list:
    """For each row of the matrix, the sum of the arrays times its entries.

    In `lax`, and without products with 1: a network has thousands of these operations, and each of
    jnp's operators is a function of its own to trace.
    """
    return [_sum_of(row, arrays) for row in matrix]


def _sum_of(row: tuple[float, ...], arrays: tuple[jax.Array, ...]) -> jax.Array:
    total = None
    for factor, array in zip(row, arrays, strict=True):
        if abs(factor) not in (0, 1):
            array = lax.mul(array, lax.full_like(array, abs(factor)))
        if total is None and factor:
            total = array if factor > 0 else lax.neg(array)
        elif factor:
            total = lax.add(total, array) if factor > 0 else lax.sub(total, array)
    return total
