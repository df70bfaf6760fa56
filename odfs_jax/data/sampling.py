"""Which faces make up a step's batch: the choices of `data.sampling`. And faces to look at.

A draw is pure, runs on the device and depends on key and step only, so a resumed run draws what an
unbroken one would have.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from odfs_jax.data.faceset import Faceset

BINS = 64  # of the yaw, from -90 to 90 degrees: docs/reference_2018.md section 6

Faces = tuple[jax.Array, jax.Array]  # int32 [B] each: which faces, and 1 where mirrored
# (key, step) -> {"src": faces, "dst": faces}
Draw = Callable[[jax.Array, jax.Array], dict[str, Faces]]


def evenly_spread(count: int, chosen: int) -> np.ndarray:
    """Places int [chosen], ascending, in a sequence of `count`: both ends, and the same apart.

    Where there are more to choose than there are, some come several times.
    """
    return np.linspace(0, count - 1, chosen).round().astype(int)


def uniform(facesets: Mapping[str, Faceset], batch_size: int) -> Draw:
    """Every face once an epoch, in a new random order each time; src and dst independently."""

    def draw(key: jax.Array, step: jax.Array) -> dict[str, Faces]:
        as_they_are = jnp.zeros(batch_size, jnp.int32)
        return {
            side: (
                epoch_order(jax.random.fold_in(key, i), step, len(facesets[side]), batch_size),
                as_they_are,
            )
            for i, side in enumerate(sorted(facesets))
        }

    return draw


def uniform_yaw(facesets: Mapping[str, Faceset], batch_size: int) -> Draw:
    """Every yaw that a side has as often as any other, so that profiles are not rare.

    A yaw bin that the side has is drawn first, then a face of it; src and dst independently.
    """
    tables = {}
    for side, faceset in facesets.items():
        bins = yaw_bins(faceset.yaws)
        count = np.bincount(bins, minlength=BINS)
        filled = np.flatnonzero(count)
        firsts = (np.cumsum(count) - count)[filled]
        tables[side] = np.argsort(bins, kind="stable"), firsts, count[filled]

    def draw(key: jax.Array, step: jax.Array) -> dict[str, Faces]:
        drawn = {}
        for i, side in enumerate(sorted(tables)):
            own = jax.random.fold_in(jax.random.fold_in(key, i), step)
            key_bin, key_face = jax.random.split(own)
            order, firsts, counts = (jnp.asarray(table, jnp.int32) for table in tables[side])
            chosen = jax.random.randint(key_bin, (batch_size,), 0, len(firsts))
            within = jax.random.randint(key_face, (batch_size,), 0, counts[chosen])
            drawn[side] = order[firsts[chosen] + within], jnp.zeros(batch_size, jnp.int32)
        return drawn

    return draw


def yaw_matched(facesets: Mapping[str, Faceset], batch_size: int) -> Draw:
    """src's head turned as dst's is: LIAEF128YAW of docs/reference_2018.md section 6.

    A yaw bin that dst has is drawn first, then a dst face of it and a src face of the nearest bin
    that src has; src's is mirrored where it is nearer so.
    """
    bins = {side: yaw_bins(faceset.yaws) for side, faceset in facesets.items()}
    faces = {side: np.argsort(b, kind="stable") for side, b in bins.items()}  # bin after bin
    counts = {side: np.bincount(b, minlength=BINS) for side, b in bins.items()}
    firsts = {side: np.cumsum(count) - count for side, count in counts.items()}
    filled = np.flatnonzero(counts["dst"])
    nearest, mirror = nearest_bins(counts["src"] > 0)
    places = {"dst": (filled, np.zeros_like(filled)), "src": (nearest[filled], mirror[filled])}

    def draw(key: jax.Array, step: jax.Array) -> dict[str, Faces]:
        key_bin, *keys = jax.random.split(jax.random.fold_in(key, step), 3)
        chosen = jax.random.randint(key_bin, (batch_size,), 0, len(filled))
        drawn = {}
        for side, key_side in zip(sorted(places), keys, strict=True):
            bin_, mirrored = (jnp.asarray(table, jnp.int32)[chosen] for table in places[side])
            first, count, order = (
                jnp.asarray(table[side], jnp.int32) for table in (firsts, counts, faces)
            )
            within = jax.random.randint(key_side, (batch_size,), 0, count[bin_])
            drawn[side] = order[first[bin_] + within], mirrored
        return drawn

    return draw


SAMPLINGS: dict[str, Callable[[Mapping[str, Faceset], int], Draw]] = {
    "uniform": uniform,
    "uniform_yaw": uniform_yaw,
    "yaw_matched": yaw_matched,
}


def epoch_order(key: jax.Array, step: jax.Array, count: int, batch_size: int) -> jax.Array:
    """The faces of step number `step` of `count`, each once an epoch: int32 [batch_size]."""
    place = step * batch_size + jnp.arange(batch_size)
    first = step * batch_size // count
    epochs = first + jnp.arange((batch_size - 1) // count + 2)  # as many as a batch can touch

    def order(epoch: jax.Array) -> jax.Array:
        return jax.random.permutation(jax.random.fold_in(key, epoch), count)

    return jax.vmap(order)(epochs)[place // count - first, place % count]


def yaw_bins(yaws: np.ndarray) -> np.ndarray:
    """int [N] in 0..63: the bin of each yaw in degrees; the mirror image of bin b is 63 - b."""
    return np.clip(np.floor((yaws / 90 + 1) * (BINS / 2)), 0, BINS - 1).astype(int)


def nearest_bins(filled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every bin, the nearest one of `filled` [64], and 1 where it is so when mirrored.

    Of two as near, the one that need not be mirrored.
    """
    own = np.flatnonzero(filled)
    looks_like = np.concatenate([own, BINS - 1 - own])  # as they are, and mirrored
    best = np.abs(np.arange(BINS)[:, None] - looks_like).argmin(axis=1)  # the first of equals
    return own[best % len(own)], best // len(own)
