"""Resampling on the device: faces cropped out of pictures and pasted back, bilinear reads,
means and largest values of neighboring pixels.

Coordinates are those of pixel centers, as in OpenCV; beyond a picture its edge is repeated.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from odfs_jax.faces.affine import jnp_invert

T = TypeVar("T")


@partial(jax.jit, static_argnames=("size", "supersample"))
def crop_faces(
    images: jax.Array, face_from_image: jax.Array, size: int, supersample: int
) -> jax.Array:
    """Faces, float32 [N, size, size, C] in [0, 1], out of `images` [N, H, W, C].

    Args:
      images: float in [0, 1], or uint8.
      face_from_image: [N, 2, 3], one matrix an image.
      size: pixels of a side of a face.
      supersample: bilinear reads along each side of an output pixel, evenly spread, whose mean it
        is. Nothing aliases while a face is at most about `supersample` times larger in the image.
    """

    def crop(image: jax.Array, matrix: jax.Array) -> jax.Array:
        return warp_affine(_unit(image), jnp_invert(matrix), size, size, supersample)

    return jax.vmap(crop)(images, face_from_image)


def paste_faces(
    faces: jax.Array,
    face_from_image: jax.Array,
    height: int,
    width: int,
    *,
    supersample: int = 1,
    enlarge: int = 1,
) -> jax.Array:
    """`faces` [N, R, R, C] as they lie in images: [N, height, width, C], their edges repeated.

    Args:
      faces: float in [0, 1].
      face_from_image: [N, 2, 3], one matrix a face.
      height: pixels of an image.
      width: pixels of an image.
      supersample: reads along each side of an output pixel; a face that is smaller in the image
        than in `faces` needs more than one.
      enlarge: a face that is larger in the image is enlarged so many times first (Lanczos, clipped
        to [0, 1]) and comes out sharper than bilinear reads alone leave it.
    """
    if enlarge > 1:
        count, rows, cols, channels = faces.shape
        shape = (count, rows * enlarge, cols * enlarge, channels)
        faces = jnp.clip(jax.image.resize(faces, shape, "lanczos3"), 0.0, 1.0)
        center = jnp.array([0.0, 0.0, (enlarge - 1) / 2])  # pixel edges, not centers, stay put
        face_from_image = face_from_image * enlarge + center[None, None, :]

    def paste(face: jax.Array, matrix: jax.Array) -> jax.Array:
        return warp_affine(face, matrix, height, width, supersample)

    return map_in_groups(jax.vmap(paste), 1, faces, face_from_image)


def warp_affine(
    image: jax.Array, input_from_output: jax.Array, height: int, width: int, reads: int = 1
) -> jax.Array:
    """`image` [H, W, C] resampled to [height, width, C] by a matrix [2, 3].

    Each output pixel is the mean of `reads`² bilinear reads, so that nothing aliases while output
    pixels are at most about twice `reads` input pixels wide.
    """
    rows, cols = affine_coordinates(input_from_output, height, width, reads)
    return pixel_means(bilinear(image, rows, cols), reads)


def affine_coordinates(
    input_from_output: jax.Array, height: int, width: int, reads: int = 1
) -> tuple[jax.Array, jax.Array]:
    """Where the pixels of a `height` x `width` output are read from: (rows, cols) of the input.

    The matrix is [2, 3]. Each of the two results is [height * reads, width * reads]: `reads`²
    places in every output pixel, evenly spread.
    """
    dtype = input_from_output.dtype
    x = (jnp.arange(width * reads, dtype=dtype)[None, :] + 0.5) / reads - 0.5
    y = (jnp.arange(height * reads, dtype=dtype)[:, None] + 0.5) / reads - 0.5
    cols, rows = (m[0] * x + m[1] * y + m[2] for m in input_from_output)
    return rows, cols


def bilinear(image: jax.Array, rows: jax.Array, cols: jax.Array) -> jax.Array:
    """`image` [H, W, C] read at (`rows`, `cols`), each [h, w]; returns [h, w, C].

    Equals `cv2.remap` with INTER_LINEAR and BORDER_REPLICATE.
    """

    def channel(plane: jax.Array) -> jax.Array:
        return map_coordinates(plane, [rows, cols], order=1, mode="nearest")

    return jax.vmap(channel, in_axes=-1, out_axes=-1)(image)


def pixel_means(samples: jax.Array, reads: int) -> jax.Array:
    """[h * reads, w * reads, C] to [h, w, C]: the mean of each output pixel's reads.

    It is a sum of slices: XLA:CPU takes seven times as long over a mean along two of five axes.
    """
    rows = sum(samples[i::reads] for i in range(reads))
    return sum(rows[:, i::reads] for i in range(reads)) / reads**2


def largest(x: jax.Array, size: int) -> jax.Array:
    """The largest value in a square of `size` pixels around each one of `x` [N, H, W, C]."""
    for window in ((1, size, 1, 1), (1, 1, size, 1)):
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, (1, 1, 1, 1), "SAME")
    return x


def map_in_groups(function: Callable[..., T], group: int, *arrays: jax.Array) -> T:
    """`function(*arrays)`, computed on a CPU for `group` entries of the first axis at a time.

    `function` takes arrays [n, ...] and returns a tree of such arrays; each entry of its results
    depends on the same entry of its arguments only. n is a multiple of `group`.

    XLA:CPU fuses the code that makes an array into every place that reads it, and so computes it
    again in each. Here the arguments are computed before the call, and the results after it.
    """
    if jax.default_backend() != "cpu":
        return function(*arrays)
    parts = [array.reshape(-1, group, *array.shape[1:]) for array in arrays]
    done = jax.lax.map(lambda part: function(*part), parts)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), done)


def _unit(image: jax.Array) -> jax.Array:
    return image.astype(jnp.float32) / 255 if image.dtype == jnp.uint8 else image
