"""The preview: rows of (src, src rebuilt, dst, dst rebuilt, swap), of faces as they are."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from odfs_jax.data.faceset import OVERSAMPLING, Faceset
from odfs_jax.inference import crop_faces, inverse

ROWS = 4


def make_preview(net: nn.Module, facesets: dict[str, Faceset]) -> Callable[[dict], jax.Array]:
    """preview(params) -> uint8 RGB [ROWS * R, 5 * R, 3] of faces spread over the facesets.

    It returns at once, with the picture still being drawn on the first device.
    """
    chosen = {side: _spread(faceset) for side, faceset in facesets.items()}
    device = jax.local_devices()[0]
    images = jax.device_put(
        {side: _cut_out(net.resolution, *c) for side, c in chosen.items()}, device
    )

    @jax.jit
    def render(params: dict, src: jax.Array, dst: jax.Array) -> jax.Array:
        rebuilt = net.apply({"params": params}, src, dst)
        swap, _ = net.apply({"params": params}, dst, method="swap")
        cells = jnp.stack([src, rebuilt["src"][0], dst, rebuilt["dst"][0], swap], axis=1)
        rows, columns, height, width, _ = cells.shape
        grid = cells.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, 3)
        return jnp.round(grid * 255).astype(jnp.uint8)

    def preview(params: dict) -> jax.Array:
        return render(jax.device_put(params, device), images["src"], images["dst"])

    return preview


def _spread(faceset: Faceset) -> tuple[np.ndarray, np.ndarray]:
    chosen = np.linspace(0, len(faceset) - 1, ROWS).round().astype(int)
    return faceset.images[chosen], faceset.cuts[chosen]


def _cut_out(resolution: int, images: np.ndarray, cuts: np.ndarray) -> jax.Array:
    """Faces [ROWS, R, R, 3] in [0, 1]."""
    return crop_faces(images[..., :3], jax.vmap(inverse)(cuts), resolution, OVERSAMPLING)
