"""The preview: rows of each person's face, what the network rebuilds of it, and the swap."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from odfs_jax.data.faceset import Faceset
from odfs_jax.faces.affine import jnp_invert
from odfs_jax.faces.spec import FaceSpec, to_rgb
from odfs_jax.faces.warp import crop_faces
from odfs_jax.nets.base import SwapNet

ROWS = 4
SAMPLES = 5  # sets of faces, of which one is shown


def make_preview(net: SwapNet, facesets: dict[str, Faceset]) -> Callable[..., jax.Array]:
    """preview(params, sample=0) -> uint8 RGB [ROWS * R, columns * R, 3].

    Each of the SAMPLES sets (`sample` counts on from the last to the first) has faces from all over
    the facesets. The columns are src as the network sees it, what it rebuilds of src, the same of
    dst, and the swap of dst: five for most networks. R is the largest of their sizes; smaller ones
    are enlarged. The call returns at once, with the picture still being drawn on the first device.
    """
    device = jax.local_devices()[0]
    samples = [
        jax.device_put({side: _spread(faceset, k) for side, faceset in facesets.items()}, device)
        for k in range(SAMPLES)
    ]

    @jax.jit
    def render(params: dict, faces: dict[str, jax.Array]) -> jax.Array:
        rebuilt = net.apply({"params": params}, faces["src"], faces["dst"])
        swap, _ = net.apply({"params": params}, faces["dst"], method="swap")
        cells = []
        for side in ("src", "dst"):
            cells += [faces[side], *(rebuilt[name][0] for name in net.target_specs[side])]
        return grid([*cells, swap])

    def preview(params: dict, sample: int = 0) -> jax.Array:
        return render(jax.device_put(params, device), samples[sample % SAMPLES])

    return preview


def grid(columns: list[jax.Array]) -> jax.Array:
    """uint8 [rows * R, columns * R, 3] of pictures [rows, r, r, 1 or 3]; R is the largest r."""
    size = max(column.shape[1] for column in columns)
    shape = (len(columns[0]), size, size, 3)
    columns = [jax.image.resize(to_rgb(column), shape, "linear") for column in columns]
    grid = jnp.concatenate(jnp.concatenate(columns, axis=2), axis=0)
    return jnp.round(grid * 255).astype(jnp.uint8)


def _spread(faceset: Faceset, sample: int) -> jax.Array:
    """Faces [ROWS, R, R, 3] as the network sees them, from all over the faceset."""
    count = len(faceset)
    between = max(1, round(count / (ROWS * SAMPLES)))  # faces from one sample to the next
    chosen = np.linspace(0, count - 1, ROWS).round().astype(int) + sample * between
    chosen %= count
    cuts, seen = faceset.cuts[chosen], faceset.seen
    finest = np.sqrt(np.linalg.det(cuts[:, :, :2])).max()  # stored pixels for one of the network's
    return _cut_out(faceset.images[chosen][..., :3], cuts, seen, math.ceil(finest))


@partial(jax.jit, static_argnames=("seen", "reads"))
def _cut_out(images: jax.Array, cuts: jax.Array, seen: FaceSpec, reads: int) -> jax.Array:
    """Faces [N, R, R, 3] as `seen`; `cuts` map its pixels to those of `images`."""
    return seen.to_input(crop_faces(images, jax.vmap(jnp_invert)(cuts), seen.resolution, reads))
