"""How like its truth a rebuilt face is, measured on the device while a network trains.

The figures are those of `evaluation.truth` that need no registration: a rebuilt face lies where its
truth does. Pictures are [N, R, R, C] in [0, 1], areas [N, R, R, 1] in [0, 1]; a figure is the mean
over the pictures, float32.
"""

import jax
import jax.numpy as jnp
import numpy as np

from odfs_jax.faces.spec import to_gray
from odfs_jax.losses.terms import WINDOW, ssim_parts

SCHARR = np.outer([3, 10, 3], [-1, 0, 1]).astype(np.float32) / 16


def likeness(
    face: jax.Array, truth: jax.Array, area: jax.Array, eyes_mouth: jax.Array
) -> dict[str, jax.Array]:
    """Figures of rebuilt faces against `truth`, both RGB or gray.

    - "ssim": structural similarity of the brightness inside `area`, 1: equal.
    - "ssim/eyes_mouth": the same on eyes and mouth.
    - "ssim/sharpness": gradient energy over the truth's inside `area`; below 1: softer.

    Pictures smaller than SSIM's window raise ValueError.
    """
    face, truth = (p if p.shape[-1] == 1 else to_gray(p) for p in (face, truth))
    luminance, structure = ssim_parts(face, truth)
    edge = WINDOW // 2
    inner = slice(edge, -edge)  # where a window is full
    similar = luminance * structure

    def mean(values: jax.Array, where: jax.Array) -> jax.Array:
        return (values * where).sum((1, 2, 3)) / jnp.maximum(where.sum((1, 2, 3)), 1.0)

    energy, true_energy = (mean(_gradient_energy(p), area[:, 1:-1, 1:-1]) for p in (face, truth))
    return {
        "ssim": mean(similar, area[:, inner, inner]).mean(),
        "ssim/eyes_mouth": mean(similar, eyes_mouth[:, inner, inner]).mean(),
        "ssim/sharpness": (energy / jnp.maximum(true_energy, 1e-12)).mean(),
    }


def _gradient_energy(plane: jax.Array) -> jax.Array:
    """[N, R - 2, R - 2, 1]: the squared gradient of `plane` [N, R, R, 1] by Scharr's operator."""
    kernels = jnp.asarray(np.stack([SCHARR, SCHARR.T], -1)[:, :, None])
    slopes = jax.lax.conv_general_dilated(
        plane, kernels, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return (slopes**2).sum(-1, keepdims=True)
