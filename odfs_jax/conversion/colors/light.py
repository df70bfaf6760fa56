"""dst's light on the new face: the new face times the quotient of both blurred faces.

Light changes slowly over a face, features change fast: the quotient image of Riklin-Raviv and
Shashua, CVPR 1999, with a gaussian of LIGHT_SIGMA for the slow part. It takes src's shadows away
and adds dst's, in every channel.
"""

import jax
import jax.numpy as jnp
import numpy as np

LIGHT_SIGMA = 0.12  # of the face square's side: wider than an eye or a mouth, narrower than a cheek
LIGHT_FLOOR = 0.02  # keeps the quotient of two dark places near 1


def measure(faces: jax.Array, targets: jax.Array, where: jax.Array) -> jax.Array:
    """The quotient [N, R, R, 3] of the blurred `targets` and `faces`, both [N, R, R, 3].

    Only pixels where `where`, bool [N, R, R, 1], is True are blurred; the quotient is 1 where the
    gaussian does not reach any of them.
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
    return jnp.where(total > 1e-6, (wanted + LIGHT_FLOOR) / (source + LIGHT_FLOOR), 1.0)


def apply(pictures: jax.Array, quotient: jax.Array) -> jax.Array:
    """`pictures` times `quotient`, both [N, R, R, 3]."""
    return jnp.clip(pictures * quotient, 0.0, 1.0)
