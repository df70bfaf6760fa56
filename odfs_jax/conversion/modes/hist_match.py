"""`merge=hist_match`: the predicted face takes the dst face's histogram, channel by channel."""

import jax

from odfs_jax.conversion.colors.base import Measurements
from odfs_jax.conversion.modes.base import Mode, Swap, match_histogram


def hist_match(masked: bool) -> Mode:
    """`masked`: count only pixels of the face (mask > 0.9), else the whole square around it."""

    def recolour(swap: Swap, measurements: Measurements) -> jax.Array:
        return match_histogram(swap.faces, swap, measurements, masked)

    return Mode(recolour=recolour, measures=True)
