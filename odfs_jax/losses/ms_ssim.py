"""Structural dissimilarity over several scales. Source: Wang, Simoncelli, Bovik, "Multi-scale
structural similarity for image quality assessment", Asilomar 2003.
"""

import jax
import jax.numpy as jnp

from odfs_jax.losses.dssim import WINDOW, ssim_parts

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, finest first
LEAST = 1e-4  # of a factor: a power of zero has no gradient, of less than zero no value


def ms_ssim(a: jax.Array, b: jax.Array) -> jax.Array:
    """MS-SSIM of `a` and `b` [N, H, W, C] in [0, 1], mean over channels, [N] in [0, 1].

    Each scale halves the one before (means of 2x2 pixels). The paper's five need 176 pixels; a
    smaller picture has the scales at which the window still fits, their weights made to sum to one
    (64 px: three, 128 px: four). Pictures smaller than a window raise ValueError.
    """
    weights = WEIGHTS[: scales(min(a.shape[1:3]))]
    product = 1.0
    for level, weight in enumerate(weights):
        if level:
            a, b = _halved(a), _halved(b)
        luminance, structure = ssim_parts(a, b)
        last = level == len(weights) - 1
        factor = (luminance * structure if last else structure).mean(axis=(1, 2))
        product *= jnp.maximum(factor, LEAST) ** (weight / sum(weights))
    return product.mean(axis=-1)


def ms_dssim(target: jax.Array, prediction: jax.Array) -> jax.Array:
    """(1 - MS-SSIM) / 2 of each pair, [N]: 0 for equal pictures, at most 1/2."""
    return (1 - ms_ssim(target, prediction)) / 2


def scales(size: int) -> int:
    """How many of the five scales a picture of `size` pixels has; at least one."""
    fitting = [level for level in range(len(WEIGHTS)) if size >> level >= WINDOW]
    return max(1, len(fitting))


def _halved(x: jax.Array) -> jax.Array:
    """Means of 2x2 pixels: [N, H, W, C] -> [N, H // 2, W // 2, C]."""
    n, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))
