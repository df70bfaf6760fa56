"""The terms of a loss: pictures [N, H, W, C] in [0, 1] to a loss of each pair, [N]."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from odfs_jax.losses.ssim import dssim, ms_dssim


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
