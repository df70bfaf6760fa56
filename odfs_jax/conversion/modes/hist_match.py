"""`merge=hist_match`: the predicted face takes the dst face's histogram, channel by channel."""

import jax

from odfs_jax.conversion.colors import TRANSFERS
from odfs_jax.conversion.modes.base import Mode, Stats, counted_pixels

HIST = TRANSFERS["hist"]


def hist_match(masked: bool) -> Mode:
    """`masked`: count only pixels of the face (mask > 0.9), else the whole square around it."""

    def measure(faces: jax.Array, masks: jax.Array, dst: jax.Array, _paste) -> Stats:
        return {"hist": HIST.measure(faces, dst, counted_pixels(masks, masked))}

    def recolor(faces: jax.Array, stats: Stats) -> jax.Array:
        return HIST.apply(faces, stats["hist"])

    return Mode(measure=measure, recolor=recolor)
