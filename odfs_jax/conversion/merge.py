"""One jitted call for a batch of faces: crop, network, colour, mask, blend."""

import math
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from odfs_jax.config import MergeConfig
from odfs_jax.conversion.masks import PREDICTED_FLOOR, SOLID, MaskSettings, blend_weights
from odfs_jax.conversion.modes import Mode, build_mode
from odfs_jax.conversion.transfer import TRANSFERS
from odfs_jax.errors import UserError
from odfs_jax.faces.align import invert
from odfs_jax.faces.view import View, between
from odfs_jax.faces.warp import compose
from odfs_jax.inference import Params, Swapper, crop_faces, paste_faces

ERODE_RANGE = (-100, 100)  # the user's share, in per cent of the spec's formula
BLUR_RANGE = (-100, 200)
FEATHERS = ("linear", "smooth")
ENLARGE = 4  # bilinear reads between pixels so enlarged are as good as Lanczos reads

# (params, regions uint8 [N, S, S, 3], matrices [N, 2, 3] region -> face)
#   -> (merged regions uint8, shorter side of each solid mask in pixels int32 [N], 0: not merged)
Merge = Callable[[Params, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def build_merge(
    swapper: Swapper, config: MergeConfig, placement: np.ndarray | None = None
) -> Merge:
    """The jitted merge of `swapper`'s faces as `config` asks; one compilation a region size.

    Regions are cut for what the model makes; what it sees is cut out of the same ones.
    `placement` [2, 3] maps the new face's pixels to those of the dst face that it is laid on; None:
    they are the same. A pixel of weight 0 comes back bit for bit. Raises UserError for a setting
    out of range.
    """
    if config.color not in TRANSFERS:
        raise UserError(f"merge.color={config.color}: expected one of {', '.join(TRANSFERS)}")
    transfer = TRANSFERS[config.color]
    mode = build_mode(config, {"masked": swapper.masked_hist_match})
    settings = mask_settings(swapper, config)
    made, to_seen = swapper.made, between(swapper.made, swapper.seen)
    same = replace(made, grey=False) == replace(swapper.seen, grey=False)  # pixel by pixel

    def merge(
        params: Params, regions: jax.Array, matrices: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        dst = _crop(regions, matrices, made)
        seen = dst if same else _crop(regions, _after(to_seen, matrices), swapper.seen)
        faces, masks = swapper.predict(params, seen)
        faces = transfer(faces, dst, masks > SOLID)
        placed = matrices if placement is None else _after(invert(placement), matrices)
        return _lay_back(mode, settings, regions, placed, (faces, dst, masks))

    return jax.jit(merge)


def _after(outer: np.ndarray, matrices: jax.Array) -> jax.Array:
    """`outer` [2, 3] after each of `matrices` [N, 2, 3]."""
    return jax.vmap(compose, (None, 0))(jnp.asarray(outer, jnp.float32), matrices)


def _crop(regions: jax.Array, matrices: jax.Array, view: View) -> jax.Array:
    """dst's faces in RGB, with the pixels of `view`."""
    return crop_faces(regions, matrices, view.resolution, _crop_reads(regions.shape[1], view))


def mask_settings(swapper: Swapper, config: MergeConfig) -> MaskSettings:
    """The model's modifiers and the user's together. Raises UserError."""
    for name, value, (low, high) in (
        ("erode", config.erode, ERODE_RANGE),
        ("blur", config.blur, BLUR_RANGE),
    ):
        if not low <= value <= high:
            raise UserError(f"merge.{name}={value:g}: expected {low}..{high}")
    if config.feather not in FEATHERS:
        raise UserError(f"merge.feather={config.feather}: expected {' or '.join(FEATHERS)}")
    return MaskSettings(
        erode=swapper.erode_modifier + config.erode,
        blur=swapper.blur_modifier + config.blur,
        border=swapper.border,
        smooth=config.feather == "smooth",
    )


def _lay_back(
    mode: Mode,
    settings: MaskSettings,
    regions: jax.Array,
    matrices: jax.Array,
    predicted: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """`regions` with the (faces, dst, masks) [N, R, R, ...] of the network merged in."""
    faces, dst, masks = predicted
    masks = jnp.where(masks < PREDICTED_FLOOR, 0.0, masks)
    faces = mode.recolour(faces, dst, masks)
    region, size = regions.shape[1], faces.shape[1]
    layers = jnp.concatenate([faces, masks], axis=-1)
    layers = paste_faces(layers, matrices, region, region, **_paste_reads(region, size))
    weights, side = blend_weights(layers[..., 3], matrices, size, settings)
    weights = weights[..., None]
    merged = mode.blend(regions.astype(jnp.float32) / 255, layers[..., :3], weights)
    merged = jnp.round(jnp.clip(merged, 0.0, 1.0) * 255).astype(jnp.uint8)
    return jnp.where(weights > 0, merged, regions), side


# The face square takes a third to all of its region's side (`regions.SIDES`, any rotation, and a
# region may be one size larger than needed). Reads may lie 1.5 pixels apart: one covers two.


def _crop_reads(region: int, view: View) -> int:
    return math.ceil(region / (1.5 * view.resolution))


def _paste_reads(region: int, size: int) -> dict[str, int]:
    return {
        "supersample": math.ceil(2 * size / region),
        "enlarge": ENLARGE if region > size else 1,
    }
