"""`merge=raw`: the face alone, on black, for compositing elsewhere.

It has the network's own colors and mask: nothing is eroded, blurred or faded out.
"""

import jax

from odfs_jax.conversion.masks import BlendMask
from odfs_jax.conversion.modes.base import Mode


def _predicted_alpha(mask: BlendMask) -> jax.Array:
    return mask.pasted * mask.square


def raw() -> Mode:
    """Has no options."""
    return Mode(alpha=_predicted_alpha, black_background=True)
