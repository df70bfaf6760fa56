"""Transfers of the whole distribution of colors, along one direction of RGB space after another.

Along a direction both distributions are one-dimensional, and the transport between them is a
monotone curve. `idt` moves colors by the curves of three perpendicular directions at a time, in
other directions each round (Pitie, Kokaram, Dahyot, "Automated colour grading using colour
distribution transfer", CVIU 107, 2007); `sot` by the mean of many directions, a gradient step on
the sliced Wasserstein distance (Bonneel, Rabin, Peyre, Pfister, JMIV 51, 2015). The directions are
fixed, so that every frame is treated the same way.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from odfs_jax.conversion.colors.histogram import look_up

BINS = 256  # of a curve, over all that RGB in [0, 1] can be along its direction
COUNTED = 64  # pixels a side of the face that are counted, at most: a curve needs no more
IDT_ROUNDS = 12
SOT_ROUNDS, SOT_DIRECTIONS = 8, 9  # directions a round: three perpendicular triples
IDT_STEP = SOT_STEP = 3.0  # the mean of n directions moves a color by a third of the way in 3-D
FLOOR = 1e-6  # of a bin's share: a distribution function must rise to have an inverse


def rotations(count: int) -> np.ndarray:
    """Rotations float32 [count, 3, 3]: the identity, then random ones from a fixed seed."""
    normal = np.random.default_rng(0).standard_normal((count, 3, 3))
    rotated = np.linalg.qr(normal)[0]
    rotated[0] = np.eye(3)
    return rotated.astype(np.float32)


IDT = rotations(IDT_ROUNDS)[:, None]  # [rounds, triples, direction, channel]
SOT = rotations(SOT_ROUNDS * SOT_DIRECTIONS // 3).reshape(SOT_ROUNDS, -1, 3, 3)


def _measure(
    directions: np.ndarray, step: float, faces: jax.Array, targets: jax.Array, where: jax.Array
) -> jax.Array:
    """Curves float32 [N, rounds, directions, 256]: how far each place along a direction moves."""
    stride = -(-faces.shape[1] // COUNTED)
    faces, targets, where = (p[:, ::stride, ::stride] for p in (faces, targets, where))
    weights = where.reshape(len(where), -1).astype(jnp.float32)

    def measure_round(colors: jax.Array, axes: jax.Array) -> tuple[jax.Array, jax.Array]:
        source, target = _along(axes, colors), _along(axes, targets)
        curve = jax.vmap(jax.vmap(_curve, in_axes=(0, 0, None)))
        curves = curve(source, target, weights)
        return _move(colors, axes, curves, step), curves

    _, curves = jax.lax.scan(measure_round, faces, jnp.asarray(directions))
    return curves.swapaxes(0, 1)


def _apply(
    directions: np.ndarray, step: float, pictures: jax.Array, curves: jax.Array
) -> jax.Array:
    """`pictures` [N, h, w, 3] moved by `curves`, round after round, clipped to [0, 1]."""

    def apply_round(colors: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple:
        return _move(colors, *at, step), None

    rounds = (jnp.asarray(directions), curves.swapaxes(0, 1))
    return jnp.clip(jax.lax.scan(apply_round, pictures, rounds)[0], 0.0, 1.0)


def _along(axes: jax.Array, colors: jax.Array) -> jax.Array:
    """[N, directions, pixels]: places 0..255 of `colors` [N, h, w, 3] along `axes` [n, 3]."""
    places = jnp.einsum("dc,nyxc->ndyx", axes, colors, precision="highest")
    low, width = _range(axes)
    places = (places - low[None, :, None, None]) / width[None, :, None, None] * (BINS - 1)
    return places.reshape(*places.shape[:2], -1)


def _move(colors: jax.Array, axes: jax.Array, curves: jax.Array, step: float) -> jax.Array:
    """`colors` moved along each direction by its curve."""
    places = _along(axes, colors)
    moves = jax.vmap(jax.vmap(look_up))(curves, places) * _range(axes)[1][None, :, None]
    share = step / len(axes)
    moves = jnp.einsum("ndp,dc->npc", moves, axes, precision="highest") * share
    return colors + moves.reshape(colors.shape)


def _range(axes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(lowest place, width) [n] of the unit cube along `axes` [n, 3]."""
    return jnp.minimum(axes, 0).sum(-1), jnp.abs(axes).sum(-1)


def _curve(source: jax.Array, target: jax.Array, weights: jax.Array) -> jax.Array:
    """[256]: from places 0..255 of `source` [pixels] to `target`, as shares of the range."""
    share, target_share = _distribution(source, weights), _distribution(target, weights)
    places = jnp.arange(BINS, dtype=jnp.float32)
    moves = jnp.interp(share, target_share, places) - places
    # Beyond the face's own colors the move of the nearest of them holds.
    full = (share > 2 * BINS * FLOOR) & (share < 1 - 2 * BINS * FLOOR)
    first, last = jnp.argmax(full), BINS - 1 - jnp.argmax(full[::-1])
    nearest = jnp.clip(jnp.arange(BINS), first, last)
    return jnp.where(full.any(), moves[nearest], moves) / (BINS - 1)


def _distribution(places: jax.Array, weights: jax.Array) -> jax.Array:
    """[256]: the share of `places` [pixels] up to each whole one; each counts in two bins."""
    places = jnp.clip(places, 0.0, BINS - 1)
    low = jnp.minimum(places.astype(jnp.int32), BINS - 2)
    above = (places - low.astype(jnp.float32)) * weights
    counts = jnp.zeros(BINS).at[low].add(weights - above).at[low + 1].add(above)
    counts = counts / jnp.maximum(weights.sum(), 1.0) + FLOOR
    sums = jnp.cumsum(counts)
    return (sums - counts / 2) / sums[-1]


def _directions(triples: np.ndarray) -> np.ndarray:
    """float32 [rounds, directions, 3] of `triples` [rounds, triples, 3, 3]."""
    return triples.reshape(len(triples), -1, 3)


measure_idt = partial(_measure, _directions(IDT), IDT_STEP)
apply_idt = partial(_apply, _directions(IDT), IDT_STEP)
measure_sot = partial(_measure, _directions(SOT), SOT_STEP)
apply_sot = partial(_apply, _directions(SOT), SOT_STEP)
