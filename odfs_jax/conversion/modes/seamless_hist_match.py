"""`merge=seamless_hist_match`: the Poisson clone, which then takes the dst face's histogram."""

from collections.abc import Callable

import jax

from odfs_jax.conversion.colors import TRANSFERS
from odfs_jax.conversion.modes.base import BlendInputs, Mode, Stats, counted_pixels
from odfs_jax.conversion.modes.seamless import cloned_face
from odfs_jax.faces.warp import crop_faces

HIST = TRANSFERS["hist"]


def seamless_hist_match(masked: bool) -> Mode:
    """`masked`: count only pixels of the face (mask > 0.9), else the whole square around it."""

    def measure(
        faces: jax.Array,
        masks: jax.Array,
        dst: jax.Array,
        paste: Callable[[jax.Array], BlendInputs],
    ) -> Stats:
        blend = paste(faces)
        clones, size = cloned_face(blend), faces.shape[1]
        supersample = -(-clones.shape[1] // size)
        clones = crop_faces(clones, blend.face_from_region, size, supersample)
        return {"hist": HIST.measure(clones, dst, counted_pixels(masks, masked))}

    def layer(blend: BlendInputs, stats: Stats) -> jax.Array:
        return HIST.apply(cloned_face(blend), stats["hist"])

    return Mode(measure=measure, layer=layer)
