"""Pixel-wise losses: [N, H, W, C] pairs to [N]."""

import jax
import jax.numpy as jnp


def mae(target: jax.Array, prediction: jax.Array) -> jax.Array:
    """Mean absolute error of each pair."""
    return jnp.abs(target - prediction).mean(axis=(1, 2, 3))


def mse(target: jax.Array, prediction: jax.Array) -> jax.Array:
    """Mean squared error of each pair."""
    return ((target - prediction) ** 2).mean(axis=(1, 2, 3))
