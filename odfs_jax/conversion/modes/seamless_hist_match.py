"""`merge=seamless_hist_match`: as seamless, then the clone takes the dst face's histogram."""

import jax

from odfs_jax.conversion.colors.base import Measurements, recoloured
from odfs_jax.conversion.colors.histogram import hist
from odfs_jax.conversion.modes.base import Mode, Scene, Swap, counted
from odfs_jax.conversion.modes.seamless import cloned
from odfs_jax.faces.warp import crop_faces


def seamless_hist_match(masked: bool) -> Mode:
    """`masked`: count only pixels of the face (mask > 0.9), else the whole square around it."""

    def layer(scene: Scene, faces: jax.Array, swap: Swap, measurements: Measurements) -> jax.Array:
        clones = cloned(scene, faces, swap, measurements)
        size = swap.faces.shape[1]
        seen = crop_faces(clones, scene.matrices, size, -(-clones.shape[1] // size))
        measured = measurements.take(hist, seen, swap.dst, counted(swap, masked))
        return recoloured(hist, clones, measured)

    return Mode(layer=layer, measures=True)
