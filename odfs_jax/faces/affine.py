"""Affine matrices: inverted, joined and applied, on the host (numpy) and on the device (`jnp_`).

A matrix is [2, 3] and is named `a_from_b`: it maps (x, y, 1) in pixels of b to (x, y) in pixels of
a, so that names that meet in a product are the same: a_from_b, b_from_c -> a_from_c. Integer
coordinates are pixel centers, as OpenCV has them. What a and b can be:

    frame   a frame of a clip, or any picture as it was read
    region  the square part of a frame around one face, to which conversion is limited
    face    an aligned face as its PNG holds it
    store   an aligned face as training keeps it on the device
    model   a face in pixels of a network's input or output
    crop    the part of a picture that a detector or landmarker reads
"""

import jax
import jax.numpy as jnp
import numpy as np


def invert(matrix: np.ndarray) -> np.ndarray:
    """The inverse of affine matrices [..., 2, 3]. Host; raises LinAlgError for a singular one."""
    inverse = np.linalg.inv(matrix[..., :2])
    return np.concatenate([inverse, -inverse @ matrix[..., 2:]], axis=-1)


def transform(a_from_b: np.ndarray, points: np.ndarray) -> np.ndarray:
    """`points` [..., 2] of b in pixels of a. Host."""
    return points @ a_from_b[:, :2].T + a_from_b[:, 2]


def enlarged(a_from_b: np.ndarray, factor: float, middle: np.ndarray) -> np.ndarray:
    """`a_from_b` [2, 3] with what it maps made `factor` times as large about `middle` [2] of a."""
    linear, shift = a_from_b[:, :2], a_from_b[:, 2:]
    middle = np.reshape(middle, (2, 1))
    return np.concatenate([factor * linear, middle + factor * (shift - middle)], axis=1)


def jnp_invert(matrix: jax.Array) -> jax.Array:
    """The inverse of an affine matrix [2, 3]. Device; of a singular one inf or NaN."""
    (a, b, c), (d, e, f) = matrix
    linear = jnp.array([[e, -b], [-d, a]]) / (a * e - b * d)
    shift = -jnp.stack([linear[0, 0] * c + linear[0, 1] * f, linear[1, 0] * c + linear[1, 1] * f])
    return jnp.concatenate([linear, shift[:, None]], axis=1)


def jnp_compose(a_from_b: jax.Array, b_from_c: jax.Array) -> jax.Array:
    """The affine matrix a_from_c [2, 3]: first `b_from_c`, then `a_from_b`. Device."""
    moved = jnp.matmul(a_from_b[:, :2], b_from_c, precision="highest")  # TF32 would move pictures
    return moved + jnp.pad(a_from_b[:, 2:], ((0, 0), (2, 0)))
