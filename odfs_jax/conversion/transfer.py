"""Colour transfers by name, `merge.color`: dst's colours for the predicted face, before the mode.

Each is (faces, targets [N, R, R, 3] in [0, 1], where bool [N, R, R, 1]) -> faces: statistics are
taken `where` is True, all pixels are moved. A face with nothing to count is returned as it is.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

Transfer = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

# Reinhard, Ashikhmin, Gooch, Shirley, "Color transfer between images", IEEE CG&A 21(5), 2001:
# equations 4 and 6 of linear light to cone responses and of their logarithms to opponent colours.
CONES = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
OPPONENT = np.diag(1 / np.sqrt([3, 6, 2])) @ np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]])
DARKEST = 1 / 255  # of a cone response: the logarithm needs a floor
LIGHT_SIGMA = 0.12  # of the face square's side: wider than an eye or a mouth, narrower than a cheek
LIGHT_FLOOR = 0.02  # keeps the quotient of two dark places near 1


def none(faces: jax.Array, _targets: jax.Array, _where: jax.Array) -> jax.Array:
    """The predicted colours."""
    return faces


def rct(faces: jax.Array, targets: jax.Array, where: jax.Array) -> jax.Array:
    """Reinhard's transfer: mean and standard deviation of each axis of the l alpha beta space."""
    source, wanted = _to_opponent(faces), _to_opponent(targets)
    source_mean, source_std = _statistics(source, where)
    wanted_mean, wanted_std = _statistics(wanted, where)
    scale = wanted_std / jnp.maximum(source_std, 1e-4)
    moved = _from_opponent((source - source_mean) * scale + wanted_mean)
    return jnp.where(where.any(axis=(1, 2, 3), keepdims=True), jnp.clip(moved, 0.0, 1.0), faces)


def light(faces: jax.Array, targets: jax.Array, where: jax.Array) -> jax.Array:
    """dst's light: `faces` times the quotient of both pictures' blurred selves, inside `where`.

    What changes slowly over a face is its light, what changes fast its features: the quotient image
    of Riklin-Raviv and Shashua, CVPR 1999, with a gaussian of LIGHT_SIGMA for the slow part. Src's
    shadows go, dst's come, in every channel.
    """
    size = faces.shape[1]
    place = np.arange(size, dtype=np.float32)
    apart = (place[:, None] - place[None, :]) / (LIGHT_SIGMA * size)
    window = jnp.asarray(np.exp(-0.5 * apart**2))
    weights = where.astype(jnp.float32)

    def blur(values: jax.Array) -> jax.Array:
        return jnp.einsum("yh,nhwc,xw->nyxc", window, values, window, precision="highest")

    total = blur(weights)
    wanted, source = (blur(p * weights) / jnp.maximum(total, 1e-6) for p in (targets, faces))
    lit = jnp.clip(faces * (wanted + LIGHT_FLOOR) / (source + LIGHT_FLOOR), 0.0, 1.0)
    return jnp.where(total > 1e-6, lit, faces)


TRANSFERS: dict[str, Transfer] = {"none": none, "rct": rct, "light": light}


def _statistics(values: jax.Array, where: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation of each channel, [N, 1, 1, 3] each."""
    weights = where.astype(jnp.float32)
    count = jnp.maximum(weights.sum(axis=(1, 2), keepdims=True), 1.0)
    mean = (values * weights).sum(axis=(1, 2), keepdims=True) / count
    variance = (jnp.square(values - mean) * weights).sum(axis=(1, 2), keepdims=True) / count
    return mean, jnp.sqrt(variance)


def _to_opponent(rgb: jax.Array) -> jax.Array:
    cones = jnp.maximum(_mix(CONES, rgb), DARKEST)
    return _mix(OPPONENT, jnp.log10(cones))


def _from_opponent(opponent: jax.Array) -> jax.Array:
    return _mix(np.linalg.inv(CONES), 10 ** _mix(np.linalg.inv(OPPONENT), opponent))


def _mix(matrix: np.ndarray, colours: jax.Array) -> jax.Array:
    # A float32 product with TF32 inputs would move colours by a thousandth.
    return jnp.einsum(
        "dc,nyxc->nyxd", jnp.asarray(matrix, jnp.float32), colours, precision="highest"
    )
