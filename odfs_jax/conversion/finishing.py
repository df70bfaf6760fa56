"""Sharpens the new face, or degrades it as the footage around it was degraded.

Sharpening works in the model's pixels, because these are what is soft; the rest in the frame's.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from odfs_jax.faces.jpeg import BLOCK, LUMA_QUANTA, cosines
from odfs_jax.faces.spec import to_gray

GAUSSIAN_SIGMA = 1.0  # model pixels
UNSHARP_SIGMA = 2.5
UNSHARP_THRESHOLD = 3 / 255  # of brightness: less is noise
SMALLEST = 0.2  # of its size, at degrade.bicubic=100
MOST_MEDIANS = 5  # one after the other, at degrade.denoise=100
# BT.601 full range, as in JFIF: RGB to Y, Cb, Cr.
YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


def sharpen(faces: jax.Array, share: float | jax.Array, by: str) -> jax.Array:
    """`faces` [N, R, R, 3] with `share` 0..1 of the detail that `SHARPENERS[by]` finds added."""
    return jnp.clip(faces + share * SHARPENERS[by](faces), 0.0, 1.0)


def _detail(faces: jax.Array) -> jax.Array:
    return faces - gaussian(faces, GAUSSIAN_SIGMA)


def _bright_detail(faces: jax.Array) -> jax.Array:
    luma = to_gray(faces)
    detail = luma - gaussian(luma, UNSHARP_SIGMA)
    # Continuous where it sets in: a step would draw contours.
    return jnp.sign(detail) * jnp.maximum(jnp.abs(detail) - UNSHARP_THRESHOLD, 0.0)


SHARPENERS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gaussian": _detail,
    "unsharp": _bright_detail,
}


def degrade(pictures: jax.Array, bicubic: float, denoise: float, jpeg: float) -> jax.Array:
    """`pictures` [N, S, S, 3] with the losses of footage, in the order in which it suffers them.

    Each loss is a share 0..1: made smaller and larger again, median filtered, quantized as by JPEG.
    """
    if bicubic:
        pictures = _shrink_and_enlarge(pictures, 1 - (1 - SMALLEST) * bicubic)
    if denoise:
        pictures = _denoise(pictures, denoise)
    if jpeg:
        pictures = _quantize(pictures, jpeg)
    return pictures


def gaussian(pictures: jax.Array, sigma: float) -> jax.Array:
    """`pictures` [N, h, w, C] blurred as by `cv2.GaussianBlur` of 6 sigma, edges replicated."""
    reach = round(3 * sigma)
    window = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    window = (window / window.sum()).astype(np.float32)
    for axis in (1, 2):
        size = pictures.shape[axis]
        padding = [(reach, reach) if a == axis else (0, 0) for a in range(4)]
        padded = jnp.pad(pictures, padding, mode="edge")
        pictures = sum(
            w * jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i, w in enumerate(window)
        )
    return pictures


def median(pictures: jax.Array) -> jax.Array:
    """The median of 3 x 3 pixels, each channel for itself, edges replicated: `cv2.medianBlur` 3."""
    padded = jnp.pad(pictures, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    height, width = pictures.shape[1:3]
    columns = [padded[:, y : y + height] for y in range(3)]
    low, middle, high = _sorted3(*columns)
    # Of the sorted columns: the greatest low, the middle of the middles, the least high.
    low, middle, high = ([p[:, :, x : x + width] for x in range(3)] for p in (low, middle, high))
    greatest_low = jnp.maximum(jnp.maximum(low[0], low[1]), low[2])
    least_high = jnp.minimum(jnp.minimum(high[0], high[1]), high[2])
    return _sorted3(greatest_low, _sorted3(*middle)[1], least_high)[1]


def _sorted3(a: jax.Array, b: jax.Array, c: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    low, high = jnp.minimum(a, b), jnp.maximum(a, b)
    return jnp.minimum(low, c), jnp.maximum(low, jnp.minimum(high, c)), jnp.maximum(high, c)


def _shrink_and_enlarge(pictures: jax.Array, share: float) -> jax.Array:
    count, height, width, channels = pictures.shape
    small = (count, max(round(height * share), 1), max(round(width * share), 1), channels)
    back = jax.image.resize(jax.image.resize(pictures, small, "cubic"), pictures.shape, "cubic")
    return jnp.clip(back, 0.0, 1.0)


def _denoise(pictures: jax.Array, share: float) -> jax.Array:
    """`share` times MOST_MEDIANS medians, one after the other; the last one in part."""
    whole, rest = divmod(share * MOST_MEDIANS, 1)
    for weight in [1.0] * int(whole) + [rest] * (rest > 0):
        pictures = pictures + weight * (median(pictures) - pictures)
    return pictures


def _quantize(pictures: jax.Array, share: float) -> jax.Array:
    """`pictures` as JPEG of quality 100 - 95 `share` shows them, colors at full resolution."""
    quality = 100 - 95 * share
    scale = 50 / quality if quality < 50 else 2 - quality / 50
    quanta = np.maximum(np.floor(LUMA_QUANTA * scale + 0.5), 1) / 255  # whole numbers, as in a file
    quanta = jnp.asarray(quanta, jnp.float32).reshape(1, 1, BLOCK, 1, BLOCK, 1)
    middle = jnp.asarray([128 / 255, 0, 0], jnp.float32).reshape(1, 1, 1, 3)  # T.81, A.3.1
    transform = jnp.asarray(cosines())
    count, height, width, _ = pictures.shape
    padding = [(0, 0), (0, -height % BLOCK), (0, -width % BLOCK), (0, 0)]
    ycc = jnp.einsum("dc,nyxc->nyxd", jnp.asarray(YCC, jnp.float32), pictures, precision="highest")
    ycc = jnp.pad(ycc - middle, padding, mode="edge")
    blocks = ycc.reshape(count, ycc.shape[1] // BLOCK, BLOCK, ycc.shape[2] // BLOCK, BLOCK, 3)
    waves = jnp.einsum("ui,naibjc,vj->naubvc", transform, blocks, transform, precision="highest")
    waves = jnp.round(waves / quanta) * quanta
    blocks = jnp.einsum("ui,naubvc,vj->naibjc", transform, waves, transform, precision="highest")
    kept = blocks.reshape(ycc.shape)[:, :height, :width] + middle
    back = jnp.asarray(np.linalg.inv(YCC), jnp.float32)
    return jnp.clip(jnp.einsum("dc,nyxc->nyxd", back, kept, precision="highest"), 0.0, 1.0)
