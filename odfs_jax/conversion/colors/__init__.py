"""Color transfers by name: what `merge.color` does to the predicted face before the merge mode.

A transfer first measures a pair of faces and then applies the statistics to pixels. The two are
separate because colors worked out frame by frame flicker with the mask and the network's noise: all
faces of a clip are measured first, and the statistics are averaged along each face's track.

A new transfer is a pair of functions in a file here and a line in `TRANSFERS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from odfs_jax.conversion.colors import histogram, light, linear, sliced


class ColorStats(NamedTuple):
    """What a transfer measured of N pairs of faces."""

    values: Any  # a pytree of float32 [N, ...] whose mean over frames is itself a measurement
    counted: jax.Array  # float32 [N]: 1 where there was a pixel to count, else 0


@dataclass(frozen=True)
class Transfer:
    """A color transfer: two pure functions on batches of RGB pictures, float32 in [0, 1].

    `values_of` takes (faces, targets [N, R, R, 3], where bool [N, R, R, 1]) and returns the values
    of a `ColorStats`, from the pixels where `where` is True. `move` takes (pictures [N, h, w, 3] of
    any size, values) and returns the pictures with all pixels moved, clipped to [0, 1].
    """

    values_of: Callable[[jax.Array, jax.Array, jax.Array], Any]
    move: Callable[[jax.Array, Any], jax.Array]

    def measure(self, faces: jax.Array, targets: jax.Array, where: jax.Array) -> ColorStats:
        """What `faces` need to get the colors of `targets`, both [N, R, R, 3].

        Counts the pixels for which `where`, bool [N, R, R, 1], is True.
        """
        counted = where.any(axis=(1, 2, 3)).astype(jnp.float32)
        return ColorStats(self.values_of(faces, targets, where), counted)

    def apply(self, pictures: jax.Array, stats: ColorStats) -> jax.Array:
        """`pictures` [N, h, w, 3] in the measured colors; unchanged where nothing was counted."""
        moved = self.move(pictures, stats.values)
        return jnp.where(stats.counted[:, None, None, None] > 0, moved, pictures)


TRANSFERS: dict[str, Transfer | None] = {
    "none": None,
    "rct": Transfer(linear.measure_opponent, linear.apply_rct),
    "lct": Transfer(linear.measure, linear.apply_lct),
    "mkl": Transfer(linear.measure, linear.apply_mkl),
    "idt": Transfer(sliced.measure_idt, sliced.apply_idt),
    "sot": Transfer(sliced.measure_sot, sliced.apply_sot),
    "hist": Transfer(histogram.measure, histogram.apply),
    "light": Transfer(light.measure, light.apply),
}
