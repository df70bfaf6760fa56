"""Structural dissimilarity. Source: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment:
from error visibility to structural similarity", IEEE TIP 13(4), 2004; the window from
docs/reference_2018.md section 8.
"""

import jax
import jax.numpy as jnp
import numpy as np

WINDOW = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03


def ssim(a: jax.Array, b: jax.Array) -> jax.Array:
    """SSIM of `a` and `b` [N, H, W, C] in [0, 1]: mean over channels and full windows, [N].

    Equals scikit-image's `structural_similarity` with `gaussian_weights=True`, `sigma=1.5`,
    `use_sample_covariance=False`, `data_range=1`. Pictures smaller than a window raise ValueError.
    """
    luminance, structure = ssim_parts(a, b)
    return (luminance * structure).mean(axis=(1, 2, 3))


def ssim_parts(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The two factors of SSIM at every full window: luminance, and contrast times structure.

    Both [N, H - 10, W - 10, C].
    """
    if min(a.shape[1:3]) < WINDOW:
        raise ValueError(f"pictures of {a.shape[1:3]} are smaller than the {WINDOW} px window")
    rows, cols = (jnp.asarray(_blur_matrix(size)) for size in a.shape[1:3])

    def blur(x: jax.Array) -> jax.Array:
        # Two banded matrix products: XLA:CPU has no fast depthwise convolution. The variances
        # below are differences of near-equal numbers, which TF32 would spoil on a GPU.
        return jnp.einsum("yh,nhwc,xw->nyxc", rows, x, cols, precision="highest")

    mean_a, mean_b = blur(a), blur(b)
    var_a = blur(a * a) - mean_a**2
    var_b = blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = K1**2, K2**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (var_a + var_b + c2)
    return luminance, structure


def dssim(target: jax.Array, prediction: jax.Array) -> jax.Array:
    """(1 - SSIM) / 2 of each pair, [N]: 0 for equal pictures, 1 for opposite ones."""
    return (1 - ssim(target, prediction)) / 2


def _blur_matrix(size: int) -> np.ndarray:
    """float32 [size - 10, size]: the gaussian window at every position where it fits."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    window = np.exp(-0.5 * (offsets / SIGMA) ** 2)
    window /= window.sum()
    matrix = np.zeros((size - WINDOW + 1, size), np.float32)
    for row in range(len(matrix)):
        matrix[row, row : row + WINDOW] = window
    return matrix
