"""`merge=seamless`: a Poisson clone of the solid mask, blended with the eroded, blurred mask."""

import jax
import jax.numpy as jnp

from odfs_jax.conversion.colors.base import Measurements
from odfs_jax.conversion.masks import SOLID
from odfs_jax.conversion.modes.base import Mode, Scene, Swap
from odfs_jax.conversion.poisson import clone


def cloned(scene: Scene, faces: jax.Array, _swap: Swap, _measured: Measurements) -> jax.Array:
    """`faces` [N, S, S, 3] cloned into the regions where the eroded mask is solid."""
    seen = scene.coverage.weights.any(axis=(1, 2), keepdims=True)
    inside = (scene.coverage.solid > SOLID) & seen
    return jnp.clip(clone(scene.regions, faces, inside), 0.0, 1.0)


def seamless() -> Mode:
    """No options."""
    return Mode(layer=cloned)
