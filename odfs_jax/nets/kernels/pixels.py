"""Pixels moved: shifted copies of a map side by side, pixel shuffle and its inverse. NHWC.

The copies of a whole batch can take more memory than all else; `at_a_time` says how many pictures
to take.
"""

import jax
import jax.numpy as jnp
from jax import lax


def padded(x: jax.Array, size: int, stride: int, mirrored: bool = False) -> jax.Array:
    """`x` [N,H,W,C] with the zeros around it that "SAME" adds for a kernel of `size` pixels a side.

    `mirrored` puts the zeros of each end at the other.
    """
    pads = lax.padtype_to_pads(x.shape[1:3], (size, size), (stride, stride), "SAME")
    pads = [pad[::-1] for pad in pads] if mirrored else pads
    return jnp.pad(x, ((0, 0), *pads, (0, 0)))


def columns(x: jax.Array, size: int, stride: int) -> jax.Array:
    """The k*k pixels of a padded `x` that each output reads, as channels: [N,H,W,k*k*C]."""
    return shifted(shifted(x, size, stride, axis=2), size, stride, axis=1)


def shifted(x: jax.Array, size: int, stride: int, axis: int) -> jax.Array:
    """The `size` pixels of a padded `x` that each output reads along an axis, as channels."""
    return jnp.concatenate(taps_of(x, size, stride, axis), axis=-1)


def taps_of(x: jax.Array, size: int, stride: int, axis: int) -> list[jax.Array]:
    """The pixels of a padded `x` that all outputs read, for each of `size` taps along an axis."""
    end = x.shape[axis] - size + 1
    return [lax.slice_in_dim(x, i, i + end, stride, axis) for i in range(size)]


def at_a_time(count: int, most: int) -> int:
    """The size of equal groups of `count` pictures: the largest of at most `most`, at least 1."""
    return max(n for n in range(1, count + 1) if count % n == 0 and n <= max(1, most))


def space_to_depth(x: jax.Array) -> jax.Array:
    """Inverse pixel shuffle by two: [N,2H,2W,C] -> [N,H,W,4C]."""
    n, h, w, c = x.shape
    x = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, h // 2, w // 2, 4 * c)


@jax.jit  # so that an export finds it under its name
def depth_to_space(x: jax.Array) -> jax.Array:
    """Pixel shuffle by two: [N,H,W,4C] -> [N,2H,2W,C]."""
    n, h, w, c = x.shape
    x = x.reshape(n, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, 2 * h, 2 * w, c // 4)
