"""Transfers that move a face's colours by one matrix: rct, lct and mkl."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from odfs_jax.conversion.colors.base import Transfer, mean_and_covariance, mixed

# Reinhard, Ashikhmin, Gooch, Shirley, "Color transfer between images", IEEE CG&A 21(5), 2001:
# equations 4 and 6 of linear light to cone responses and of their logarithms to opponent colours.
CONES = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
OPPONENT = np.diag(1 / np.sqrt([3, 6, 2])) @ np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]])
DARKEST = 1 / 255  # of a cone response: the logarithm needs a floor
LEAST_SPREAD = 1e-4  # of opponent colours: one that does not vary is not stretched without end
LEAST_VARIANCE = (1 / 255) ** 2 / 12  # added to RGB's: that of rounding to 8 bits


class Moments(NamedTuple):
    """The means [N, 3] and the covariances [N, 3, 3] of the new face and of dst's."""

    mean: jax.Array
    covariance: jax.Array
    wanted_mean: jax.Array
    wanted_covariance: jax.Array


def _measure(faces: jax.Array, targets: jax.Array, where: jax.Array) -> Moments:
    return Moments(*mean_and_covariance(faces, where), *mean_and_covariance(targets, where))


def _measure_opponent(faces: jax.Array, targets: jax.Array, where: jax.Array) -> Moments:
    return _measure(_to_opponent(faces), _to_opponent(targets), where)


def _apply_rct(pictures: jax.Array, moments: Moments) -> jax.Array:
    spread, wanted = (
        jnp.sqrt(jnp.diagonal(c, axis1=1, axis2=2))
        for c in (moments.covariance, moments.wanted_covariance)
    )
    scale = wanted / jnp.maximum(spread, LEAST_SPREAD)
    matrices = scale[:, :, None] * jnp.eye(3)[None]
    return jnp.clip(_from_opponent(_moved(_to_opponent(pictures), moments, matrices)), 0.0, 1.0)


def _apply_lct(pictures: jax.Array, moments: Moments) -> jax.Array:
    _, inverse_root = _roots(_with_floor(moments.covariance))
    root, _ = _roots(_with_floor(moments.wanted_covariance))
    matrices = jnp.matmul(root, inverse_root, precision="highest")
    return jnp.clip(_moved(pictures, moments, matrices), 0.0, 1.0)


def _apply_mkl(pictures: jax.Array, moments: Moments) -> jax.Array:
    root, inverse_root = _roots(_with_floor(moments.covariance))
    inner = _sandwiched(root, _with_floor(moments.wanted_covariance))
    matrices = _sandwiched(inverse_root, _roots(inner)[0])
    return jnp.clip(_moved(pictures, moments, matrices), 0.0, 1.0)


# Mean and standard deviation of each axis of the l alpha beta space (Reinhard et al., above).
rct = Transfer(_measure_opponent, _apply_rct)
# The whole covariance, by the square roots of both: T = St^(1/2) Ss^(-1/2); the "principal axes"
# transfer in Pitie and Kokaram, "The linear Monge-Kantorovitch linear colour mapping", CVMP 2007.
lct = Transfer(_measure, _apply_lct)
# The same covariance, reached with the least movement of colours: the closed form of that paper,
# T = Ss^(-1/2) (Ss^(1/2) St Ss^(1/2))^(1/2) Ss^(-1/2).
mkl = Transfer(_measure, _apply_mkl)


def _moved(colours: jax.Array, moments: Moments, matrices: jax.Array) -> jax.Array:
    """`colours` about the new face's mean, through `matrices`, about dst's mean."""
    away = colours - moments.mean[:, None, None, :]
    return mixed(matrices, away) + moments.wanted_mean[:, None, None, :]


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
    cones = jnp.maximum(mixed(CONES, rgb), DARKEST)
    return mixed(OPPONENT, jnp.log10(cones))


def _from_opponent(opponent: jax.Array) -> jax.Array:
    return mixed(np.linalg.inv(CONES), 10 ** mixed(np.linalg.inv(OPPONENT), opponent))
