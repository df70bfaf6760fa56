"""`merge=hist_match_bw`: as hist_match, from a grey picture: all colour is dst's."""

import jax

from odfs_jax.conversion.colors.base import Measurements
from odfs_jax.conversion.modes.base import Mode, Swap, match_histogram
from odfs_jax.faces.spec import to_gray, to_rgb


def hist_match_bw(masked: bool) -> Mode:
    """`masked`: count only pixels of the face (mask > 0.9), else the whole square around it."""

    def recolour(swap: Swap, measurements: Measurements) -> jax.Array:
        return match_histogram(to_rgb(to_gray(swap.faces)), swap, measurements, masked)

    return Mode(recolour=recolour, measures=True)
