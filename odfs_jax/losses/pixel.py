"""Pixel-wise losses: [N, H, W, C] pairs to [N]."""

import jax
import jax.numpy as jnp


def mae(target: jax.Array, prediction: jax.Array) -> jax.Array:
    """Mean absolute error of each pair."""
    return jnp.abs(target - prediction).mean(axis=(1, 2, 3))


def mse(target: jax.Array, prediction: jax.Array) -> jax.Array:
    """Mean squared error of each pair."""
    return ((target - prediction) ** 2).mean(axis=(1, 2, 3))


def mae_inside(target: jax.Array, prediction: jax.Array, area: jax.Array) -> jax.Array:
    """Mean absolute error of each pair where `area` [N, H, W, 1] in [0, 1] is, weighted by it.

    An area of less than one pixel in all counts as one.
    """
    error = jnp.abs(target - prediction).mean(axis=-1, keepdims=True) * area
    return error.sum(axis=(1, 2, 3)) / jnp.maximum(area.sum(axis=(1, 2, 3)), 1.0)
