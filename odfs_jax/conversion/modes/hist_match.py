"""`merge=hist_match`: the predicted face takes the dst face's histogram, channel by channel."""

import jax
import jax.numpy as jnp

from odfs_jax.conversion.colour import histogram_match
from odfs_jax.conversion.masks import SOLID
from odfs_jax.conversion.modes.base import Mode, alpha_blend


def hist_match(masked: bool) -> Mode:
    """`masked`: count only pixels of the face (mask > 0.9), else the whole square around it."""

    def recolour(faces: jax.Array, dst: jax.Array, masks: jax.Array) -> jax.Array:
        return histogram_match(faces, dst, masks > SOLID if masked else jnp.ones_like(masks, bool))

    return Mode(recolour=recolour, blend=alpha_blend)
