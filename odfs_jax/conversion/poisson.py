"""Poisson blending: dst's colors at the mask's rim, the new face's detail inside.

Perez, Gangnet, Blake, "Poisson image editing", SIGGRAPH 2003, as `cv2.seamlessClone` (NORMAL_CLONE)
does it: on the mask's bounding rectangle, whose edge keeps dst's pixels, the gradients are the new
face's inside the mask eroded by 3 pixels and dst's outside. The sine transform (DST-I) makes the
Poisson equation diagonal; here its matrices are built on the device for the size of each face's
own rectangle and zero beyond it, so that shapes stay the same while rectangles vary.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from odfs_jax.faces.warp import map_in_groups

ERODED = 3  # pixels, by a square: OpenCV's
# Eighths of the region's side that a rectangle's rows and columns are padded to: the first that
# hold it. Each is compiled, and a face is higher than wide.
SHAPES = ((5, 5), (6, 5), (6, 6), (8, 6), (8, 8))
SMALL = 192  # pixels of a region up to which a smaller shape would save nothing


class Rectangles(NamedTuple):
    """Where the masks are, int32 [N] each, in pixels; height and width are 0 for an empty mask."""

    top: jax.Array
    left: jax.Array
    height: jax.Array
    width: jax.Array


def clone(regions: jax.Array, faces: jax.Array, inside: jax.Array) -> jax.Array:
    """`faces` cloned into `regions`, both float32 [N, S, S, 3]; `inside` bool [N, S, S].

    Pixels outside the rectangle around `inside`, and its edge, are those of `regions`. A face with
    an empty mask changes nothing. Values may lie slightly outside [0, 1].
    """
    return map_in_groups(_clone, 1, regions, faces, inside)


def _clone(regions: jax.Array, faces: jax.Array, inside: jax.Array) -> jax.Array:
    (top, height), (left, width) = _extent(inside.any(2)), _extent(inside.any(1))
    rectangles = Rectangles(top, left, height, width)
    side = inside.shape[1]
    shares = SHAPES if side > SMALL else SHAPES[-1:]
    shapes = [(-(-side * rows // 8), -(-side * cols // 8)) for rows, cols in shares]
    branches = [partial(_correction, shape) for shape in shapes]
    # Only the first branch whose shape holds every face of the batch is computed.
    holds = [(height.max() <= rows) & (width.max() <= cols) for rows, cols in shapes]
    chosen = jnp.argmax(jnp.stack(holds))
    return regions + jax.lax.switch(chosen, branches, faces - regions, inside, rectangles)


def _extent(line: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(first, length) int32 [N] of the True range of `line` [N, S]; length 0 where none is True."""
    index = jnp.arange(line.shape[-1])[None, :]
    first = jnp.argmax(line, axis=-1)
    last = jnp.max(jnp.where(line, index, -1), axis=-1)
    return first, jnp.where(last >= 0, last + 1 - first, 0)


def _correction(
    shape: tuple[int, int], difference: jax.Array, inside: jax.Array, rectangles: Rectangles
) -> jax.Array:
    """What is added to dst, [N, S, S, 3]; `shape` (rows, columns) must hold every rectangle.

    `difference` [N, S, S, 3] is the new face less dst.
    """
    whole, (rows, cols) = difference.shape[1:], shape

    def crop(plane: jax.Array, at: Rectangles) -> jax.Array:
        rest = [(0, 0)] * (plane.ndim - 2)
        padded = jnp.pad(plane, [(0, rows), (0, cols), *rest])
        return jax.lax.dynamic_slice(
            padded, (at.top, at.left, *[0] * len(rest)), (rows, cols, *plane.shape[2:])
        )

    def paste(plane: jax.Array, at: Rectangles) -> jax.Array:
        empty = jnp.zeros((whole[0] + rows, whole[1] + cols, whole[2]), plane.dtype)
        pasted = jax.lax.dynamic_update_slice(empty, plane, (at.top, at.left, 0))
        return pasted[: whole[0], : whole[1]]

    difference, inside = (jax.vmap(crop)(p, rectangles) for p in (difference, inside))
    change = _solve(_divergence(difference, inside), rectangles)
    return jax.vmap(paste)(change, rectangles)


def _divergence(difference: jax.Array, inside: jax.Array) -> jax.Array:
    """The divergence of the gradients of `difference` [N, rows, cols, 3], inside the eroded mask.

    It has the same shape, is moved up and left by one pixel, for the rectangle's first row and
    column have none, and is undefined beyond the rectangle.
    """
    reach = 2 * ERODED + 1
    counted = jnp.pad(inside, ((0, 0), (ERODED, ERODED), (ERODED, ERODED)))
    for window in ((1, reach, 1), (1, 1, reach)):
        counted = jax.lax.reduce_window(counted, True, jnp.logical_and, window, (1, 1, 1), "VALID")
    counted = counted[..., None].astype(difference.dtype)
    flow_y, flow_x = (counted * _step(difference, axis, after=True) for axis in (1, 2))
    divergence = _step(flow_y, 1, after=False) + _step(flow_x, 2, after=False)
    return jnp.pad(divergence[:, 1:, 1:], ((0, 0), (0, 1), (0, 1), (0, 0)))


def _step(plane: jax.Array, axis: int, *, after: bool) -> jax.Array:
    """Differences along `axis`: to the next pixel (`after`), or from the one before."""
    padding = [(0, 0)] * plane.ndim
    padding[axis] = (0, 1) if after else (1, 0)
    return jnp.diff(jnp.pad(plane, padding), axis=axis)


def _solve(divergence: jax.Array, at: Rectangles) -> jax.Array:
    """The picture [N, rows, cols, 3] with that Laplacian which is 0 on each rectangle's edge."""
    rows, cols = divergence.shape[1:3]
    transform_y, values_y = _sines(at.height - 2, rows)
    transform_x, values_x = _sines(at.width - 2, cols)

    def both(picture: jax.Array) -> jax.Array:
        half = jnp.einsum("nij,njck->nick", transform_y, picture, precision="highest")
        return jnp.einsum("nick,nkl->nicl", half, transform_x, precision="highest")

    # Colors between rows and columns: then both are products of matrices as they lie in memory.
    values = (values_y[:, :, None] + values_x[:, None, :])[:, :, None]
    solved = both(both(divergence.swapaxes(2, 3)) / values).swapaxes(2, 3)
    return jnp.pad(solved, ((0, 0), (1, 0), (1, 0), (0, 0)))[:, :rows, :cols]


def _sines(count: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """(matrices [N, size, size] of the DST-I of `count` [N] points, eigenvalues [N, size]).

    Each matrix is its own inverse and 0 beyond `count`. The eigenvalues are those of the second
    difference, all negative.
    """
    count = jnp.maximum(count, 0)
    index = jnp.arange(1, size + 1)
    there = index[None, :] <= count[:, None]
    angle = jnp.pi / (count + 1).astype(jnp.float32)
    # Whole periods are taken off as integers: a sine of a large float32 is inexact.
    products = (index[:, None] * index[None, :])[None] % (2 * (count + 1))[:, None, None]
    sines = jnp.sin(products.astype(jnp.float32) * angle[:, None, None])
    scale = jnp.sqrt(2 / (count + 1).astype(jnp.float32))[:, None, None]
    sines = jnp.where(there[:, :, None] & there[:, None, :], sines * scale, 0.0)
    half = jnp.sin(0.5 * angle[:, None] * index[None, :].astype(jnp.float32))
    return sines, jnp.where(there, -4 * half * half, -1.0)
