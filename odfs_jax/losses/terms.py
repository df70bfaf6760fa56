"""The terms of a loss: pictures [N, H, W, C] in [0, 1] to a loss of each pair, [N].

Structural dissimilarity, on one scale and on several, is that of Wang, Bovik, Sheikh, Simoncelli,
"Image quality assessment: from error visibility to structural similarity", IEEE TIP 13(4), 2004,
with the window of docs/reference_2018.md section 8, and of Wang, Simoncelli, Bovik, "Multi-scale
structural similarity for image quality assessment", Asilomar 2003.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from odfs_jax.faces.colors import brighter_than
from odfs_jax.faces.warp import largest

WINDOW = 11  # pixels
SIGMA = 1.5  # pixels
K1, K2 = 0.01, 0.03  # keep the quotients finite where a picture is dark or flat
SCALED_WINDOWS, TWO_WINDOWS_FROM = (11.6, 23.2), 256  # parts of the width; pixels
RIM, FEATURES_RIM = 0.06, 0.03  # of the width
FEATURES_REACH = 0.04  # of the width: from an eye to its brow
DARKEST_SKIN = 0.6  # of the mean brightness inside a face
# Gaussians whose sum carries colors outward, {share of the width: weight}: the nearest counts most.
OUTWARD = {0.02: 1.0, 0.05: 1e-2, 0.12: 1e-4, 0.3: 1e-6}
MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, finest first
LIGHT_SIGMA, AROUND_SIGMA = 0.03, 0.12  # of the width: less than a nose; about a cheek
LIT_SKIN = 0.85  # of a face's mean brightness
LIGHT_FLOOR, LIGHT_TOLERANCE = 0.02, 0.1  # of a brightness; of its logarithm
STYLE_FLOOR = 1e-5  # of a variance: its root has no gradient at zero
MS_MIN_FACTOR = 1e-4  # a power of zero has no gradient, of less than zero no value


def ssim(a: jax.Array, b: jax.Array, window: int = WINDOW) -> jax.Array:
    """SSIM of `a` and `b` [N, H, W, C] in [0, 1]: mean over channels and full windows, [N].

    Equals scikit-image's `structural_similarity` with `gaussian_weights=True`, `sigma=1.5`,
    `use_sample_covariance=False`, `data_range=1`. The gaussian is the same in a window of any size.
    Pictures smaller than a window raise ValueError.
    """
    luminance, structure = ssim_parts(a, b, window)
    return (luminance * structure).mean(axis=(1, 2, 3))


def ssim_parts(a: jax.Array, b: jax.Array, window: int = WINDOW) -> tuple[jax.Array, jax.Array]:
    """The two factors of SSIM at every full window: luminance, and contrast times structure.

    Both [N, H - window + 1, W - window + 1, C].
    """
    if min(a.shape[1:3]) < window:
        raise ValueError(f"pictures of {a.shape[1:3]} are smaller than the {window} px window")
    rows, cols = (jnp.asarray(_window_matrix(size, window)) for size in a.shape[1:3])

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


def dssim(target: jax.Array, prediction: jax.Array, window: int = WINDOW) -> jax.Array:
    """(1 - SSIM) / 2 of each pair, [N]: 0 for equal pictures, 1 for opposite ones."""
    return (1 - ssim(target, prediction, window)) / 2


def scaled_dssim(target: jax.Array, prediction: jax.Array) -> jax.Array:
    """DSSIM of each pair, [N], over a share of the width: in windows of R / 11.6 pixels.

    From 256 pixels on the mean of that and of R / 23.2, as DeepFaceLab 2.0 has it.
    """
    size = min(target.shape[1:3])
    shares = SCALED_WINDOWS if size >= TWO_WINDOWS_FROM else SCALED_WINDOWS[:1]
    windows = [max(1, int(size / share)) for share in shares]
    return sum(dssim(target, prediction, window) for window in windows) / len(windows)


def ms_ssim(a: jax.Array, b: jax.Array) -> jax.Array:
    """MS-SSIM of `a` and `b` [N, H, W, C] in [0, 1], mean over channels, [N] in [0, 1].

    Each scale halves the one before (means of 2x2 pixels). The paper's five need 176 pixels; a
    smaller picture has the scales at which the window still fits, their weights made to sum to one
    (64 px: three, 128 px: four). Pictures smaller than a window raise ValueError.
    """
    weights = MS_WEIGHTS[: scale_count(min(a.shape[1:3]))]
    product = 1.0
    for level, weight in enumerate(weights):
        if level:
            a, b = _half_size(a), _half_size(b)
        luminance, structure = ssim_parts(a, b)
        last = level == len(weights) - 1
        factor = (luminance * structure if last else structure).mean(axis=(1, 2))
        product *= jnp.maximum(factor, MS_MIN_FACTOR) ** (weight / sum(weights))
    return product.mean(axis=-1)


def ms_dssim(target: jax.Array, prediction: jax.Array) -> jax.Array:
    """(1 - MS-SSIM) / 2 of each pair, [N]: 0 for equal pictures, at most 1/2."""
    return (1 - ms_ssim(target, prediction)) / 2


def scale_count(size: int) -> int:
    """How many of the five scales a picture of `size` pixels has; at least one."""
    fitting = [level for level in range(len(MS_WEIGHTS)) if size >> level >= WINDOW]
    return max(1, len(fitting))


def gaussian_blur(x: jax.Array, sigma: float) -> jax.Array:
    """`x` [N, H, W, C] blurred, with zeros around it; the gaussian is cut off at two sigmas."""
    taps = max(3, int(4 * sigma)) | 1
    rows, cols = (
        jnp.asarray(_window_matrix(size + taps - 1, taps, sigma)[:, taps // 2 : taps // 2 + size])
        for size in x.shape[1:3]
    )
    return jnp.einsum("yh,nhwc,xw->nyxc", rows, x, cols, precision="highest")


def dilate(masks: jax.Array, margin: float) -> jax.Array:
    """`masks` [N, H, W, 1], grown to all sides by `margin`, a share of the width."""
    return largest(masks, 2 * round(margin * masks.shape[2]) + 1)


def soft(mask: jax.Array) -> jax.Array:
    """`mask` [N, R, R, 1] in [0, 1] with its edge faded outwards, over about R / 16 pixels."""
    blurred = gaussian_blur(mask, max(1, mask.shape[2] // 32))
    return 2 * jnp.clip(blurred, 0, 0.5)


def blur_outside(face: jax.Array, mask: jax.Array) -> jax.Array:
    """`face` [N, R, R, C], what lies outside `mask` [N, R, R, 1] blurred, the inside left out."""
    sigma = face.shape[2] / 128
    around = gaussian_blur(face * (1 - mask), sigma)
    share = 1 - gaussian_blur(mask, sigma)  # of the blur that is outside
    return face * mask + (1 - mask) * around / jnp.where(share == 0, 1, share)


def extend_inside(face: jax.Array, mask: jax.Array, features: jax.Array) -> jax.Array:
    """`face` [N, R, R, C], whose skin inside `mask` [N, R, R, 1] goes on outside of it.

    The outside begins within the mask: at its sides and its lower edge, RIM wide, a hull of points
    holds hair, shadow and background. Its upper edge runs along the brows and stays. Near eyes and
    mouth, `features` [N, R, R, 1], it is FEATURES_RIM wide: of a turned head they lie at the edge.
    What is no skin is not carried outward: features, and what is much darker than the face's mean
    (hair, brows, a beard).
    """
    near = _without_rim(mask, FEATURES_RIM) * dilate(features, FEATURES_REACH)
    trusted = jnp.maximum(_without_rim(mask, RIM), near)
    bright = brighter_than(DARKEST_SKIN, face.mean(axis=-1, keepdims=True), trusted)
    skin = jnp.where(bright, trusted * (1 - features), 0.0)
    layers = jnp.concatenate([face * skin, skin], axis=-1)
    carried = sum(
        weight * gaussian_blur(layers, share * face.shape[2]) for share, weight in OUTWARD.items()
    )
    around = carried[..., :-1] / jnp.maximum(carried[..., -1:], 1e-9)
    trusted = soft(trusted)
    return face * trusted + (1 - trusted) * around


def _without_rim(masks: jax.Array, margin: float) -> jax.Array:
    """`masks` [N, H, W, 1] without what is nearer than `margin`, a share of the width, to a side
    edge or a lower one."""
    reach = round(margin * masks.shape[2])
    for window, padding in (
        ((1, 1, 2 * reach + 1, 1), ((0, 0), (0, 0), (reach, reach), (0, 0))),
        ((1, reach + 1, 1, 1), ((0, 0), (0, reach), (0, 0), (0, 0))),
    ):
        masks = jax.lax.reduce_window(masks, jnp.inf, jax.lax.min, window, (1, 1, 1, 1), padding)
    return masks


def style_distance(one: jax.Array, other: jax.Array) -> jax.Array:
    """How far the colors of pictures [N, R, R, C] are apart, place aside: [N].

    Squared differences of each channel's mean and standard deviation, of both pictures blurred by
    an eighth of the width. Source: Huang, Belongie, "Arbitrary style transfer in real-time with
    adaptive instance normalization", ICCV 2017, of the picture itself, as DeepFaceLab 2.0 has it.
    """
    sigma = one.shape[2] // 8
    means, spreads = [], []
    for picture in (one, other):
        blurred = gaussian_blur(picture, sigma)
        means.append(blurred.mean(axis=(1, 2)))
        spreads.append(jnp.sqrt(blurred.var(axis=(1, 2)) + STYLE_FLOOR))
    parts = ((a - b) ** 2 for a, b in (means, spreads))
    return sum(part.mean(axis=-1) for part in parts)


def light_distance(
    face: jax.Array, dst: jax.Array, mask: jax.Array, features: jax.Array
) -> jax.Array:
    """How far shadows and highlights on `face` are from the light on dst's, both [N, R, R, C]: [N].

    Squared differences of the logarithms of their blurred brightness where dst's skin is lit: in
    dst's `mask`, outside of its `features` (both [N, R, R, 1]; a margin of FEATURES_RIM around a
    feature is skin), and not darker than LIT_SKIN of its face, as a beard is. The new face may be
    as bright as dst's at a place or around it; LIGHT_TOLERANCE is left to its own shape, and how
    bright its skin is in the mean does not count.
    """
    face, dst = (picture.mean(axis=-1, keepdims=True) for picture in (face, dst))
    area = _without_rim(mask, FEATURES_RIM) * dilate(1 - features, FEATURES_RIM)

    def blurred(picture: jax.Array, sigma: float, weights: jax.Array) -> jax.Array:
        sigma *= picture.shape[2]
        total = jnp.maximum(gaussian_blur(weights, sigma), 1e-6)
        return gaussian_blur(picture * weights, sigma) / total

    skin = jnp.where(brighter_than(LIT_SKIN, blurred(dst, LIGHT_SIGMA, area), area), area, 0.0)
    near, around, own = (
        jnp.log(jnp.maximum(blurred(picture, sigma, skin), LIGHT_FLOOR))
        for picture, sigma in ((dst, LIGHT_SIGMA), (dst, AROUND_SIGMA), (face, LIGHT_SIGMA))
    )
    counted = jnp.maximum(skin.sum(axis=(1, 2), keepdims=True), 1.0)
    own -= ((own - around) * skin).sum(axis=(1, 2), keepdims=True) / counted
    beyond = jnp.maximum(jnp.minimum(near, around) - own, own - jnp.maximum(near, around))
    beyond = jnp.maximum(beyond - LIGHT_TOLERANCE, 0.0)
    return (beyond**2 * skin / counted).sum(axis=(1, 2, 3))


def _window_matrix(size: int, window: int, sigma: float = SIGMA) -> np.ndarray:
    """float32 [size - window + 1, size]: a gaussian at every position where its window fits."""
    offsets = np.arange(window) - (window - 1) / 2
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    matrix = np.zeros((size - window + 1, size), np.float32)
    for row in range(len(matrix)):
        matrix[row, row : row + window] = weights
    return matrix


def _half_size(x: jax.Array) -> jax.Array:
    """Means of 2x2 pixels: [N, H, W, C] -> [N, H // 2, W // 2, C]."""
    n, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def mae(target: jax.Array, prediction: jax.Array) -> jax.Array:
    """Mean absolute error of each pair of pictures [N, H, W, C], [N]."""
    return jnp.abs(target - prediction).mean(axis=(1, 2, 3))


def mse(target: jax.Array, prediction: jax.Array) -> jax.Array:
    """Mean squared error of each pair of pictures [N, H, W, C], [N]."""
    return ((target - prediction) ** 2).mean(axis=(1, 2, 3))


def mae_inside(target: jax.Array, prediction: jax.Array, area: jax.Array) -> jax.Array:
    """Mean absolute error of each pair, weighted by `area` [N, H, W, 1] in [0, 1]: [N].

    An area of less than one pixel in all counts as one, so that an empty one gives 0.
    """
    error = jnp.abs(target - prediction).mean(axis=-1, keepdims=True) * area
    return error.sum(axis=(1, 2, 3)) / jnp.maximum(area.sum(axis=(1, 2, 3)), 1.0)


PairLoss = Callable[[jax.Array, jax.Array], jax.Array]

# The keys of `loss.face` and the values of `loss.mask`.
FACE_LOSSES: dict[str, PairLoss] = {"dssim": dssim, "ms_ssim": ms_dssim, "mae": mae, "mse": mse}
MASK_LOSSES: dict[str, PairLoss] = {"mae": mae, "mse": mse}
