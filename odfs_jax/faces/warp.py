"""Resampling on the device: bilinear, edges replicated, coordinates of pixel centres as in OpenCV.

Pictures are float [H, W, C]; batches come from `jax.vmap`.
"""

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates


def bilinear(image: jax.Array, rows: jax.Array, cols: jax.Array) -> jax.Array:
    """`image` [H, W, C] read at (`rows`, `cols`), each [h, w]; returns [h, w, C].

    Equals `cv2.remap` with INTER_LINEAR and BORDER_REPLICATE.
    """

    def channel(plane: jax.Array) -> jax.Array:
        return map_coordinates(plane, [rows, cols], order=1, mode="nearest")

    return jax.vmap(channel, in_axes=-1, out_axes=-1)(image)


def affine_coordinates(matrix: jax.Array, height: int, width: int) -> tuple[jax.Array, jax.Array]:
    """(rows, cols) [height, width] that the affine `matrix` [2, 3] gives for every output pixel.

    The matrix maps (x, y, 1) of the output to (x, y) of the picture to read from.
    """
    x = jnp.arange(width, dtype=matrix.dtype)[None, :]
    y = jnp.arange(height, dtype=matrix.dtype)[:, None]
    cols, rows = (m[0] * x + m[1] * y + m[2] for m in matrix)
    return rows, cols


def warp_affine(image: jax.Array, matrix: jax.Array, height: int, width: int) -> jax.Array:
    """`image` [H, W, C] resampled to [height, width, C]; `matrix` [2, 3] maps output to input."""
    return bilinear(image, *affine_coordinates(matrix, height, width))
