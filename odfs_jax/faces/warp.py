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


def affine_coordinates(
    matrix: jax.Array, height: int, width: int, reads: int = 1
) -> tuple[jax.Array, jax.Array]:
    """(rows, cols) [height, width] that the affine `matrix` [2, 3] gives for every output pixel.

    The matrix maps (x, y, 1) of the output to (x, y) of the picture to read from. With `reads`
    above 1 there are `reads`² places in each pixel, evenly spread: [height * reads, width * reads].
    """
    x = (jnp.arange(width * reads, dtype=matrix.dtype)[None, :] + 0.5) / reads - 0.5
    y = (jnp.arange(height * reads, dtype=matrix.dtype)[:, None] + 0.5) / reads - 0.5
    cols, rows = (m[0] * x + m[1] * y + m[2] for m in matrix)
    return rows, cols


def pixel_means(samples: jax.Array, reads: int) -> jax.Array:
    """[h * reads, w * reads, C] to [h, w, C]: the mean of each pixel's reads.

    As a sum of slices: XLA:CPU takes seven times as long over a mean along two of five axes.
    """
    rows = sum(samples[i::reads] for i in range(reads))
    return sum(rows[:, i::reads] for i in range(reads)) / reads**2


def warp_affine(
    image: jax.Array, matrix: jax.Array, height: int, width: int, reads: int = 1
) -> jax.Array:
    """`image` [H, W, C] resampled to [height, width, C]; `matrix` [2, 3] maps output to input.

    Each pixel is the mean of `reads`² bilinear reads, so that nothing aliases while output pixels
    are at most about twice `reads` input pixels wide.
    """
    return pixel_means(bilinear(image, *affine_coordinates(matrix, height, width, reads)), reads)


def compose(outer: jax.Array, inner: jax.Array) -> jax.Array:
    """The affine matrix [2, 3] that does what `inner` does, and then what `outer` does."""
    moved = jnp.matmul(outer[:, :2], inner, precision="highest")  # TF32 would move the picture
    return moved + jnp.pad(outer[:, 2:], ((0, 0), (2, 0)))
