"""What a colour transfer is: what it measures of two faces, and what it then does to pixels.

Apart, because a clip's faces are measured first and what was measured is averaged along each
face's track: colours worked out frame by frame flicker with the mask and the network's noise.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Statistics = Any  # a pytree of float32 [N, ...] whose mean over frames is itself a measurement


class Measured(NamedTuple):
    """What was measured of N faces."""

    statistics: Statistics
    counted: jax.Array  # float32 [N]: 1 where there was something to count, else 0


@dataclass(frozen=True)
class Transfer:
    """A colour transfer. Faces are float32 [N, R, R, 3] in [0, 1].

    `measure` takes (faces, targets, where bool [N, R, R, 1]) and counts pixels `where` is True;
    `apply` moves all pixels of pictures of any size, [N, h, w, 3], and clips them to [0, 1].
    """

    measure: Callable[[jax.Array, jax.Array, jax.Array], Statistics]
    apply: Callable[[jax.Array, Statistics], jax.Array]


@dataclass
class Measurements:
    """The measurements of one merge, in the order in which it asks for them.

    `given` are those of an earlier pass over the same faces, averaged; None: they are made here.
    """

    given: tuple[Measured, ...] | None = None
    made: list[Measured] = field(default_factory=list)

    def take(
        self, transfer: Transfer, faces: jax.Array, targets: jax.Array, where: jax.Array
    ) -> Measured:
        """What `transfer` needs to know of `faces` and `targets`."""
        if self.given is not None:
            measured = self.given[len(self.made)]
        else:
            counted = where.any(axis=(1, 2, 3)).astype(jnp.float32)
            measured = Measured(transfer.measure(faces, targets, where), counted)
        self.made.append(measured)
        return measured


def recoloured(transfer: Transfer, pictures: jax.Array, measured: Measured) -> jax.Array:
    """`pictures` [N, h, w, 3] moved as `measured` says; as they are where nothing was counted."""
    moved = transfer.apply(pictures, measured.statistics)
    return jnp.where(measured.counted[:, None, None, None] > 0, moved, pictures)


def mean_and_covariance(values: jax.Array, where: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean [N, 3] and covariance [N, 3, 3] of the pixels of `values` that `where` counts."""
    weights = where.astype(jnp.float32)
    count = jnp.maximum(weights.sum(axis=(1, 2)), 1.0)
    mean = (values * weights).sum(axis=(1, 2)) / count
    away = (values - mean[:, None, None, :]) * weights
    squares = jnp.einsum("nyxc,nyxd->ncd", away, away, precision="highest")
    return mean, squares / count[..., None]


def mixed(matrices: jax.Array, colours: jax.Array) -> jax.Array:
    """Each colour of `colours` [N, h, w, 3] through the matrix [N, 3, 3] or [3, 3] of its face."""
    matrices = jnp.broadcast_to(jnp.asarray(matrices, jnp.float32), (len(colours), 3, 3))
    # A float32 product with TF32 inputs would move colours by a thousandth.
    return jnp.einsum("ndc,nyxc->nyxd", matrices, colours, precision="highest")
