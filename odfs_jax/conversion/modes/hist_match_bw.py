"""`merge=hist_match_bw`: a gray predicted face takes dst's histogram: all color is dst's."""

import jax

from odfs_jax.conversion.modes.base import Mode, Stats
from odfs_jax.conversion.modes.hist_match import hist_match
from odfs_jax.faces.spec import to_gray, to_rgb


def hist_match_bw(masked: bool) -> Mode:
    """`masked`: count only pixels of the face (mask > 0.9), else the whole square around it."""
    in_color = hist_match(masked)

    def measure(faces: jax.Array, masks: jax.Array, dst: jax.Array, paste) -> Stats:
        return in_color.measure(to_rgb(to_gray(faces)), masks, dst, paste)

    def recolor(faces: jax.Array, stats: Stats) -> jax.Array:
        return in_color.recolor(to_rgb(to_gray(faces)), stats)

    return Mode(measure=measure, recolor=recolor)
