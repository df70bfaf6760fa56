"""Transfers that change a face's colors by one matrix and one shift: rct, lct and mkl.

rct: mean and standard deviation of each axis of the l-alpha-beta space (Reinhard et al., below).
lct: mean and covariance, by the square roots of both, T = St^(1/2) Ss^(-1/2); the "principal axes"
transfer in Pitie and Kokaram, "The linear Monge-Kantorovitch linear colour mapping", CVMP 2007.
mkl: mean and covariance with the least movement of colors, the closed form of the same paper:
T = Ss^(-1/2) (Ss^(1/2) St Ss^(1/2))^(1/2) Ss^(-1/2).

Faces and targets are float32 [N, R, R, 3] in [0, 1]; `where` is bool [N, R, R, 1], True for the
pixels that are counted; pictures are float32 [N, h, w, 3].
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Reinhard, Ashikhmin, Gooch, Shirley, "Color transfer between images", IEEE CG&A 21(5), 2001:
# equations 4 and 6 of linear light to cone responses and of their logarithms to opponent colors.
CONES = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
OPPONENT = np.diag(1 / np.sqrt([3, 6, 2])) @ np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]])
DARKEST = 1 / 255  # of a cone response: the logarithm needs a floor
LEAST_SPREAD = 1e-4  # of opponent colors: one that does not vary is not stretched without end
LEAST_VARIANCE = (1 / 255) ** 2 / 12  # added to RGB's: that of rounding to 8 bits


class Moments(NamedTuple):
    """The means [N, 3] and the covariances [N, 3, 3] of the new face and of dst's."""

    mean: jax.Array
    covariance: jax.Array
    wanted_mean: jax.Array
    wanted_covariance: jax.Array


def measure(faces: jax.Array, targets: jax.Array, where: jax.Array) -> Moments:
    """The moments of `faces` and `targets`, in RGB."""
    return Moments(*_mean_and_covariance(faces, where), *_mean_and_covariance(targets, where))


def measure_opponent(faces: jax.Array, targets: jax.Array, where: jax.Array) -> Moments:
    """The moments of `faces` and `targets`, in l-alpha-beta."""
    return measure(_to_opponent(faces), _to_opponent(targets), where)


def apply_rct(pictures: jax.Array, moments: Moments) -> jax.Array:
    """`pictures` with the mean and spread of the targets in l-alpha-beta, clipped to [0, 1]."""
    spread, wanted = (
        jnp.sqrt(jnp.diagonal(c, axis1=1, axis2=2))
        for c in (moments.covariance, moments.wanted_covariance)
    )
    scale = wanted / jnp.maximum(spread, LEAST_SPREAD)
    matrices = scale[:, :, None] * jnp.eye(3)[None]
    return jnp.clip(_from_opponent(_transform(_to_opponent(pictures), moments, matrices)), 0.0, 1.0)


def apply_lct(pictures: jax.Array, moments: Moments) -> jax.Array:
    """`pictures` with the mean and covariance of the targets, by square roots, in [0, 1]."""
    _, inverse_root = _roots(_with_floor(moments.covariance))
    root, _ = _roots(_with_floor(moments.wanted_covariance))
    matrices = jnp.matmul(root, inverse_root, precision="highest")
    return jnp.clip(_transform(pictures, moments, matrices), 0.0, 1.0)


def apply_mkl(pictures: jax.Array, moments: Moments) -> jax.Array:
    """`pictures` with the mean and covariance of the targets, least moved, in [0, 1]."""
    root, inverse_root = _roots(_with_floor(moments.covariance))
    inner = _sandwiched(root, _with_floor(moments.wanted_covariance))
    matrices = _sandwiched(inverse_root, _roots(inner)[0])
    return jnp.clip(_transform(pictures, moments, matrices), 0.0, 1.0)


def _mean_and_covariance(values: jax.Array, where: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean [N, 3] and covariance [N, 3, 3] of the counted pixels of `values` [N, R, R, 3]."""
    weights = where.astype(jnp.float32)
    count = jnp.maximum(weights.sum(axis=(1, 2)), 1.0)
    mean = (values * weights).sum(axis=(1, 2)) / count
    away = (values - mean[:, None, None, :]) * weights
    squares = jnp.einsum("nyxc,nyxd->ncd", away, away, precision="highest")
    return mean, squares / count[..., None]


def _multiply(matrices: jax.Array, colors: jax.Array) -> jax.Array:
    """Each color of `colors` [N, h, w, 3] times the matrix [N, 3, 3] or [3, 3] of its picture."""
    matrices = jnp.broadcast_to(jnp.asarray(matrices, jnp.float32), (len(colors), 3, 3))
    # A float32 product with TF32 inputs would move colors by a thousandth.
    return jnp.einsum("ndc,nyxc->nyxd", matrices, colors, precision="highest")


def _transform(colors: jax.Array, moments: Moments, matrices: jax.Array) -> jax.Array:
    """`colors` less the new face's mean, times `matrices` [N, 3, 3], plus dst's mean."""
    away = colors - moments.mean[:, None, None, :]
    return _multiply(matrices, away) + moments.wanted_mean[:, None, None, :]


def _with_floor(covariance: jax.Array) -> jax.Array:
    return covariance + LEAST_VARIANCE * jnp.eye(3)[None]


def _roots(covariance: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The symmetric square root of [N, 3, 3], positive definite, and its inverse."""
    values, axes = jnp.linalg.eigh(covariance)
    root = jnp.sqrt(jnp.maximum(values, LEAST_VARIANCE**2))

    def along(scale: jax.Array) -> jax.Array:
        return jnp.einsum("nij,nj,nkj->nik", axes, scale, axes, precision="highest")

    return along(root), along(1 / root)


def _sandwiched(outer: jax.Array, inner: jax.Array) -> jax.Array:
    return jnp.einsum("nij,njk,nkl->nil", outer, inner, outer, precision="highest")


def _to_opponent(rgb: jax.Array) -> jax.Array:
    cones = jnp.maximum(_multiply(CONES, rgb), DARKEST)
    return _multiply(OPPONENT, jnp.log10(cones))


def _from_opponent(opponent: jax.Array) -> jax.Array:
    return _multiply(np.linalg.inv(CONES), 10 ** _multiply(np.linalg.inv(OPPONENT), opponent))
