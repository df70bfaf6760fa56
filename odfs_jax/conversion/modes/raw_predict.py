"""`merge=raw_predict`: the whole square that the network predicted, pasted where the face is.

The mask plays no part: the picture shows what a model has learned, and where its mask is wrong.
"""

import jax

from odfs_jax.conversion.masks import BlendMask
from odfs_jax.conversion.modes.base import Mode


def _whole_square(mask: BlendMask) -> jax.Array:
    return mask.square


def raw_predict() -> Mode:
    """Has no options."""
    return Mode(alpha=_whole_square)
