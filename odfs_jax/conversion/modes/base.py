"""What a merge mode is: two pure functions on batches, which the merge calls inside one jit."""

from collections.abc import Callable
from dataclasses import dataclass

import jax

# (predicted faces, dst faces [N, R, R, 3], predicted masks [N, R, R, 1]) -> faces
Recolour = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
# (regions of the frames, faces in frame pixels [N, S, S, 3], weights [N, S, S, 1]) -> regions
Blend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


@dataclass(frozen=True)
class Mode:
    """A merge mode. Pictures are float32 in [0, 1]; pixels of weight 0 are never written back."""

    recolour: Recolour  # in the model's face pixels, before the face goes back into the frame
    blend: Blend


def keep_colour(faces: jax.Array, _dst: jax.Array, _masks: jax.Array) -> jax.Array:
    """The predicted faces as they are."""
    return faces


def alpha_blend(regions: jax.Array, faces: jax.Array, weights: jax.Array) -> jax.Array:
    """`faces` over `regions` by `weights`."""
    return regions + weights * (faces - regions)
