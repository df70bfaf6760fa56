"""How alike faces are, for many pairs at once on the device: chains, sums of distances, people.

A row distance takes the features of one face and of N faces, which a `Layout` may have rearranged,
and returns [N]; a block distance takes the features of n and of m faces and returns [n, m]. All are
float32.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

BLOCK = 512  # faces on each side of a block of pairs
ROUNDING = 2e-6  # what float32 leaves of 1 - (a sum of products that is 1)
# Of dlib's embedding: frames of one synthetic actor are .13 to .22 apart, of two actors .54 to .74;
# dlib's own .6 takes two of the actors for one.
SAME_PERSON = 0.5
PEOPLE_ROWS = 1024  # faces whose distances to all are computed at a time
SSIM_MEAN, SSIM_VARIANCE = 0.01**2, 0.03**2  # Wang et al. 2004, for values in [0, 1]

Distance = Callable[[jax.Array, Any], jax.Array]
Layout = Callable[[jax.Array], Any]  # features [N, ...] as a row distance takes them


class Windows(NamedTuple):
    """The SSIM windows of N faces, window first: pixels without their mean, means, variances."""

    pixels: jax.Array  # [W, N, 49]
    means: jax.Array  # [W, N]
    variances: jax.Array  # [W, N]


def bhattacharyya(one: jax.Array, others: jax.Array) -> jax.Array:
    """Bhattacharyya distances [N] of `one` [3, 256] to `others` [N, 3, 256], summed over R, G, B.

    Both are `measures.histogram`s p, q. sqrt(1 - sum(p q)), which is `cv2.HISTCMP_BHATTACHARYYA`,
    is computed as sqrt(sum((p - q)^2) / 2): equal for sums of squares of 1, and exact near 0.
    """
    return jnp.sqrt(jnp.square(one[None] - others).sum(-1) / 2).sum(-1)


def bhattacharyya_block(some: jax.Array, others: jax.Array) -> jax.Array:
    """Bhattacharyya distances [n, m] of all pairs of `some` [n, 3, 256] and `others` [m, 3, 256].

    Matrix products make this about ten times faster than rows; channels nearer than 0.0014 count as
    equal.
    """

    def channel(p: jax.Array, q: jax.Array) -> jax.Array:
        squared = 1 - jnp.matmul(p, q.T, precision="highest")
        return jnp.sqrt(jnp.where(squared < ROUNDING, 0.0, squared))

    return sum(channel(some[:, c], others[:, c]) for c in range(3))


def l1(one: jax.Array, others: jax.Array) -> jax.Array:
    """Sums of absolute differences [N] of `one` [K] to each of `others` [N, K]."""
    return jnp.abs(one[None] - others).sum(-1)


def l1_block(some: jax.Array, others: jax.Array) -> jax.Array:
    """Sums of absolute differences [n, m] of all pairs of `some` [n, K] and `others` [m, K]."""
    return jax.vmap(l1, (0, None))(some, others)


def windows_first(features: jax.Array) -> Windows:
    """`measures.windows` of N faces, float32 [N, W, 51], rearranged for `ssim_distance`.

    Products over such pixels are sixteen times faster than over those of `features`.
    """
    by_window = features.swapaxes(0, 1)
    return Windows(by_window[..., :-2], by_window[..., -2], by_window[..., -1])


def ssim_distance(one: jax.Array, others: Windows) -> jax.Array:
    """1 - SSIM, [N], of `one` [W, 51] (`measures.windows`) and each of N `others`.

    The mean over the windows. Source: Wang et al., "Image quality assessment", IEEE TIP 2004.
    """
    covariance = jnp.einsum("wk,wnk->wn", one[:, :-2], others.pixels, precision="highest")
    mean, variances = one[:, None, -2], one[:, None, -1] + others.variances
    squares = mean**2 + others.means**2
    luminance = (2 * mean * others.means + SSIM_MEAN) / (squares + SSIM_MEAN)
    structure = (2 * covariance + SSIM_VARIANCE) / (variances + SSIM_VARIANCE)
    return 1 - (luminance * structure).mean(0)


def unchanged(features: jax.Array) -> jax.Array:
    """`features` themselves."""
    return features


def greedy_chain(
    features: np.ndarray, distance: Distance, layout: Layout = unchanged
) -> tuple[np.ndarray, np.ndarray]:
    """Visits all faces: from the first one, always on to the nearest that is not visited yet.

    `features` are [N, ...]; `distance` is a row distance, which takes them rearranged by `layout`.
    Returns (order [N], steps [N]); `steps` are the distances between neighbors, the first 0. Of
    equally near faces the first in `features` is taken.
    """
    order, steps = _chain(features, distance, layout)
    return np.asarray(order), np.asarray(steps)


@partial(jax.jit, static_argnames=("distance", "layout"))
def _chain(features: jax.Array, distance: Distance, layout: Layout) -> tuple[jax.Array, jax.Array]:
    others = layout(features)

    def step(state, _):
        visited, last = state
        distances = jnp.where(visited, jnp.inf, distance(features[last], others))
        nearest = jnp.argmin(distances)
        return (visited.at[nearest].set(True), nearest), (nearest, distances[nearest])

    first = jnp.zeros((), jnp.int32)
    visited = jnp.zeros(len(features), bool).at[first].set(True)
    _, (order, steps) = jax.lax.scan(step, (visited, first), length=len(features) - 1)
    return jnp.concatenate([first[None], order]), jnp.concatenate([jnp.zeros(1), steps])


def near_leaders(
    features: np.ndarray, within: float, distance: Distance, layout: Layout = unchanged
) -> np.ndarray:
    """The leader [N] of each face: the first one that is within a distance of it and leads itself.

    Faces are taken in the order of `features` [N, ...]. One without a leader leads all of those not
    led yet that are nearer to it than `within`, and itself.
    """
    return np.asarray(_leaders(features, within, distance, layout))


@partial(jax.jit, static_argnames=("distance", "layout"))
def _leaders(features: jax.Array, within: float, distance: Distance, layout: Layout) -> jax.Array:
    others, count = layout(features), len(features)

    def lead(leaders, index):
        near = (distance(features[index], others) <= within).at[index].set(True)
        led = jnp.where((leaders == count) & near, index, leaders)
        return jnp.where(leaders[index] == count, led, leaders), None

    nobody = jnp.full(count, count, jnp.int32)
    return jax.lax.scan(lead, nobody, jnp.arange(count, dtype=jnp.int32))[0]


def total_distances(features: np.ndarray, distance: Distance) -> np.ndarray:
    """The sum, [N], of the distances of each face to all others.

    `features` are [N, ...]; `distance` is a block distance. Computed in blocks of BLOCK x BLOCK.
    """
    count = len(features)
    blocks = -(-count // BLOCK)
    padded = np.zeros((blocks * BLOCK, *features.shape[1:]), np.float32)
    padded[:count] = features
    real = (np.arange(blocks * BLOCK) < count).astype(np.float32).reshape(blocks, BLOCK)
    padded = padded.reshape(blocks, BLOCK, *features.shape[1:])
    return np.asarray(_totals(padded, real, distance)).reshape(-1)[:count]


@partial(jax.jit, static_argnames="distance")
def _totals(features: jax.Array, real: jax.Array, distance: Distance) -> jax.Array:
    """[blocks, BLOCK] sums of `features` [blocks, BLOCK, ...]; `real` is 0 for padding, else 1."""

    def rows(some: jax.Array) -> jax.Array:
        def add(total, block):
            others, counted = block
            return total + (distance(some, others) * counted[None]).sum(1), None

        return jax.lax.scan(add, jnp.zeros(BLOCK), (features, real))[0]

    return jax.lax.map(rows, features)


def group_people(embeddings: np.ndarray) -> list[np.ndarray]:
    """Indices of the faces of each person, by their `embeddings` [N, 128]; the most frequent first.

    The face with most others within SAME_PERSON is taken, with all of those, for one person; the
    remaining faces likewise. The most typical face of a person, the nearest to the mean, comes
    first. A face unlike all others is a group of one.
    """
    same = _same_person(embeddings)
    counts = same.sum(1)
    left = np.ones(len(embeddings), bool)
    groups = []
    while left.any():
        seed = np.where(left, counts, -1).argmax()
        group = np.flatnonzero(same[seed] & left)
        left[group] = False
        counts -= same[group].sum(0)
        distance = np.linalg.norm(embeddings[group] - embeddings[group].mean(0), axis=1)
        groups.append(group[np.argsort(distance, kind="stable")])
    return groups


def _same_person(embeddings: np.ndarray) -> np.ndarray:
    """bool [N, N]: whether two faces are within SAME_PERSON of each other; symmetric."""
    squares = (embeddings**2).sum(1)
    near = np.zeros((len(embeddings), len(embeddings)), bool)
    for start in range(0, len(embeddings), PEOPLE_ROWS):
        rows = slice(start, start + PEOPLE_ROWS)
        products = embeddings[rows] @ embeddings.T
        near[rows] = squares[rows, None] + squares - 2 * products < SAME_PERSON**2
    near |= near.T
    np.fill_diagonal(near, True)
    return near
