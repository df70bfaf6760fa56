"""What a merge mode is: three pure functions on batches, which the merge calls inside one jit.

Pictures are float32 RGB in [0, 1], NHWC; R is the model's resolution, S the region's side.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from odfs_jax.conversion.colors.base import Measurements, recoloured
from odfs_jax.conversion.colors.histogram import hist
from odfs_jax.conversion.masks import SOLID, Coverage


class Swap(NamedTuple):
    """What the network gave, in the model's face pixels."""

    faces: jax.Array  # [N, R, R, 3]
    masks: jax.Array  # [N, R, R, 1], below the spec's floor 0
    dst: jax.Array | None  # [N, R, R, 3]; None where all measurements are given


class Scene(NamedTuple):
    """The regions that new faces are put into."""

    regions: jax.Array  # [N, S, S, 3]
    matrices: jax.Array  # [N, 2, 3], region to the new face's pixels
    coverage: Coverage


# The network's faces in other colours, still [N, R, R, 3].
Recolour = Callable[[Swap, Measurements], jax.Array]
# The picture that is blended over the regions, from the faces [N, S, S, 3] laid into them.
Layer = Callable[[Scene, jax.Array, Swap, Measurements], jax.Array]
# How much of it is seen, [N, S, S].
Weigh = Callable[[Coverage], jax.Array]


def keep_colour(swap: Swap, _measurements: Measurements) -> jax.Array:
    """The predicted faces as they are."""
    return swap.faces


def laid_face(_scene: Scene, faces: jax.Array, _swap: Swap, _measured: Measurements) -> jax.Array:
    """The face itself."""
    return faces


def soft_mask(coverage: Coverage) -> jax.Array:
    """The eroded, blurred mask."""
    return coverage.weights


@dataclass(frozen=True)
class Mode:
    """A merge mode. Pixels of weight 0 are never written back."""

    recolour: Recolour = keep_colour
    layer: Layer = laid_face
    weigh: Weigh = soft_mask
    measures: bool = False  # colours, which are averaged along a face's track
    black: bool = False  # the rest of every frame is black, not dst's


def match_histogram(
    faces: jax.Array, swap: Swap, measurements: Measurements, masked: bool
) -> jax.Array:
    """`faces` [N, R, R, 3] with dst's histograms; `masked`: counted where the mask is solid."""
    measured = measurements.take(hist, faces, swap.dst, counted(swap, masked))
    return recoloured(hist, faces, measured)


def counted(swap: Swap, masked: bool) -> jax.Array:
    """bool [N, R, R, 1]: what a histogram counts, the face alone or the whole square."""
    return swap.masks > SOLID if masked else jnp.ones_like(swap.masks, bool)
