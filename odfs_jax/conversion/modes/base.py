"""What a merge mode is: up to four pure functions on batches, called inside the merge's jits.

The first jitted call runs the network and `measure`; the second one makes the picture with
`recolor`, `layer` and `alpha`. In between, the statistics are averaged along each face's track.
Pictures are float32 RGB in [0, 1], NHWC; R is the model's resolution, S the region's side.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from odfs_jax.conversion.colors import ColorStats
from odfs_jax.conversion.masks import SOLID, BlendMask

Stats = dict[str, ColorStats]  # what was measured, by name


class BlendInputs(NamedTuple):
    """A batch of new faces pasted into their regions, and the regions."""

    regions: jax.Array  # [N, S, S, 3] of dst's frames
    faces: jax.Array  # [N, S, S, 3]
    face_from_region: jax.Array  # [N, 2, 3]: region pixels to the new face's pixels
    mask: BlendMask


def pasted_face(blend: BlendInputs, _stats: Stats) -> jax.Array:
    """The new face itself."""
    return blend.faces


def soft_alpha(mask: BlendMask) -> jax.Array:
    """The eroded, blurred mask."""
    return mask.alpha


@dataclass(frozen=True)
class Mode:
    """A merge mode. Pixels of alpha 0 are never written back.

    `measure` takes the network's faces [N, R, R, 3] (in the colors of `merge.color`), their masks
    [N, R, R, 1], dst's faces [N, R, R, 3], and a function that pastes faces [N, R, R, 3] and
    returns a `BlendInputs`. It returns statistics of colors by name, which `recolor` and `layer`
    get; None: the mode measures nothing.
    `recolor` takes the faces and the statistics, and returns the faces in other colors; None: they
    keep theirs.
    `layer` returns the picture [N, S, S, 3] that is blended over the regions.
    `alpha` returns how much of it is visible, [N, S, S].
    """

    measure: (
        Callable[
            [jax.Array, jax.Array, jax.Array, Callable[[jax.Array], BlendInputs]],
            Stats,
        ]
        | None
    ) = None
    recolor: Callable[[jax.Array, Stats], jax.Array] | None = None
    layer: Callable[[BlendInputs, Stats], jax.Array] = pasted_face
    alpha: Callable[[BlendMask], jax.Array] = soft_alpha
    black_background: bool = False  # the rest of every frame is black, not dst's


def counted_pixels(masks: jax.Array, masked: bool) -> jax.Array:
    """bool, the shape of `masks`: what a histogram counts, the face alone or the whole square."""
    return masks > SOLID if masked else jnp.ones_like(masks, bool)
