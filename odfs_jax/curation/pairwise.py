"""How unlike two faces are, for many pairs at once on the device, and orders made from that.

A row distance takes the features of one face and of N faces, [N, ...] or as an `Arrange` gives
them, and gives [N]; a block distance takes those of n and of m faces and gives [n, m]. All float32.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

BLOCK = 512  # faces on each side of a block of pairs
SAME = 2e-6  # what is left of 1 - (a sum of products that is 1) in float32
SSIM_MEAN, SSIM_VARIANCE = 0.01**2, 0.03**2  # Wang et al. 2004, for values in [0, 1]

Distance = Callable[[jax.Array, Any], jax.Array]
Arrange = Callable[[jax.Array], Any]  # features [N, ...] once, as a row distance takes them


class Windows(NamedTuple):
    """W windows of N faces, each one's pixels as in `measures.windows`."""

    pixels: jax.Array  # [W, N, 49]
    means: jax.Array  # [W, N]
    variances: jax.Array  # [W, N]


def bhattacharyya(one: jax.Array, others: jax.Array) -> jax.Array:
    """[N]: sum over R, G, B of the distance of `one` [3, 256] to each of `others` [N, 3, 256].

    Both are `measures.histogram`s p, q. sqrt(1 - sum(p q)), which is `cv2.HISTCMP_BHATTACHARYYA`,
    is computed as sqrt(sum((p - q)^2) / 2): the same for sums of squares of 1, and exact near 0.
    """
    return jnp.sqrt(jnp.square(one[None] - others).sum(-1) / 2).sum(-1)


def bhattacharyya_block(some: jax.Array, others: jax.Array) -> jax.Array:
    """[n, m]: `bhattacharyya` of all pairs of `some` [n, 3, 256] and `others` [m, 3, 256].

    As matrix products, about ten times faster; channels nearer than 0.0014 count as equal.
    """

    def channel(p: jax.Array, q: jax.Array) -> jax.Array:
        apart = 1 - jnp.matmul(p, q.T, precision="highest")
        return jnp.sqrt(jnp.where(apart < SAME, 0.0, apart))

    return sum(channel(some[:, c], others[:, c]) for c in range(3))


def l1(one: jax.Array, others: jax.Array) -> jax.Array:
    """[N]: sum of absolute differences of `one` [K] to each of `others` [N, K]."""
    return jnp.abs(one[None] - others).sum(-1)


def l1_block(some: jax.Array, others: jax.Array) -> jax.Array:
    """[n, m]: `l1` of all pairs."""
    return jax.vmap(l1, (0, None))(some, others)


def windows_first(features: jax.Array) -> Windows:
    """`measures.windows` of N faces [N, W, 51] as `dissimilarity` wants them.

    Products with such pixels are sixteen times faster than with those of `features` as they lie.
    """
    swapped = features.swapaxes(0, 1)
    return Windows(swapped[..., :-2], swapped[..., -2], swapped[..., -1])


def dissimilarity(one: jax.Array, others: Windows) -> jax.Array:
    """[N]: 1 - SSIM of `one` [W, 51] (`measures.windows`) and each of N `others`.

    Mean over the windows. Source: Wang et al., "Image quality assessment", IEEE TIP 2004.
    """
    covariance = jnp.einsum("wk,wnk->wn", one[:, :-2], others.pixels, precision="highest")
    mean, variances = one[:, None, -2], one[:, None, -1] + others.variances
    squares = mean**2 + others.means**2
    luminance = (2 * mean * others.means + SSIM_MEAN) / (squares + SSIM_MEAN)
    structure = (2 * covariance + SSIM_VARIANCE) / (variances + SSIM_VARIANCE)
    return 1 - (luminance * structure).mean(0)


def as_they_lie(features: jax.Array) -> jax.Array:
    """`features` themselves."""
    return features


def chain(
    features: np.ndarray, distance: Distance, arrange: Arrange = as_they_lie
) -> tuple[np.ndarray, np.ndarray]:
    """(order [N], steps [N]): from the first face, always on to the nearest one not yet visited.

    `features` [N, ...], `distance` of a row, which takes the N as `arrange` gives them; `steps` are
    the distances gone, the first 0. Of equally near faces the first in `features` is taken.
    """
    order, steps = _chain(features, distance, arrange)
    return np.asarray(order), np.asarray(steps)


@partial(jax.jit, static_argnames=("distance", "arrange"))
def _chain(
    features: jax.Array, distance: Distance, arrange: Arrange
) -> tuple[jax.Array, jax.Array]:
    arranged = arrange(features)

    def go_on(state, _):
        visited, last = state
        away = jnp.where(visited, jnp.inf, distance(features[last], arranged))
        following = jnp.argmin(away)
        return (visited.at[following].set(True), following), (following, away[following])

    first = jnp.zeros((), jnp.int32)
    visited = jnp.zeros(len(features), bool).at[first].set(True)
    _, (order, steps) = jax.lax.scan(go_on, (visited, first), length=len(features) - 1)
    return jnp.concatenate([first[None], order]), jnp.concatenate([jnp.zeros(1), steps])


def totals(features: np.ndarray, distance: Distance) -> np.ndarray:
    """[N]: the sum of the distances of each face to all others.

    `features` [N, ...], `distance` of a block. Computed in blocks of BLOCK x BLOCK pairs.
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
    """[blocks, BLOCK] of `features` [blocks, BLOCK, ...]; `real` is 0 for faces of the padding."""

    def rows(some: jax.Array) -> jax.Array:
        def add(total, block):
            others, counted = block
            return total + (distance(some, others) * counted[None]).sum(1), None

        return jax.lax.scan(add, jnp.zeros(BLOCK), (features, real))[0]

    return jax.lax.map(rows, features)
