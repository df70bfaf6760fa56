"""A batch of faces through the network, and then into their frames: two jitted calls.

Between the two, what was measured of colours may be averaged along each face's track.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from odfs_jax.config import MergeConfig
from odfs_jax.conversion.colors import TRANSFERS
from odfs_jax.conversion.colors.base import Measured, Measurements, Transfer, recoloured
from odfs_jax.conversion.finishing import SHARPENERS, Finish, degraded, sharpened
from odfs_jax.conversion.masks import (
    KEPT,
    MASKS,
    PREDICTED_FLOOR,
    SOLID,
    Coverage,
    MaskSettings,
    cover,
)
from odfs_jax.conversion.modes import Mode, build_mode
from odfs_jax.conversion.modes.base import Scene, Swap
from odfs_jax.errors import UserError
from odfs_jax.faces.affine import invert, jnp_compose
from odfs_jax.faces.spec import FaceSpec
from odfs_jax.faces.warp import crop_faces, paste_faces
from odfs_jax.inference import Params, Swapper

RANGES = {
    "scale": (-50, 50),  # per cent of the face
    "erode": (-100, 100),  # per cent of the spec's formula, the user's share
    "blur": (-100, 200),
    "opacity": (0, 100),
    "color_smoothing": (0, 250),  # frames: so many wait in memory
    "sharpen": (0, 100),
    "motion_blur": (0, 1),
    "degrade.bicubic": (0, 100),
    "degrade.denoise": (0, 100),
    "degrade.jpeg": (0, 100),
}
CHOICES = {
    "color": tuple(TRANSFERS),
    "mask": MASKS,
    "feather": ("linear", "smooth"),
    "sharpen_by": tuple(SHARPENERS),
}


def check_merge(config: MergeConfig) -> None:
    """Raises UserError for the first setting that is out of its range."""
    for name, (low, high) in RANGES.items():
        value = attrgetter(name)(config)
        if not low <= value <= high:
            raise UserError(f"merge.{name}={value:g}: expected {low}..{high}")
    for name, known in CHOICES.items():
        value = attrgetter(name)(config)
        if value not in known:
            raise UserError(f"merge.{name}={value}: expected one of {', '.join(known)}")
    for name in config.keep:
        if name not in KEPT:
            raise UserError(f"merge.keep={name}: expected some of {', '.join(KEPT)}")


def mask_settings(swapper: Swapper, config: MergeConfig) -> MaskSettings:
    """The model's modifiers and the user's together."""
    return MaskSettings(
        erode=swapper.erode_modifier + config.erode,
        blur=swapper.blur_modifier + config.blur,
        border=swapper.border,
        smooth=config.feather == "smooth",
    )


def scaled(placement: np.ndarray | None, scale: float, resolution: int) -> np.ndarray | None:
    """`placement` [2, 3] of a face that is `scale` per cent larger about its middle; None: nothing.

    It maps the new face's pixels to those of the dst face that it is laid on.
    """
    if not scale:
        return placement
    factor = 1 + scale / 100
    middle = (resolution - 1) / 2
    larger = np.array([[factor, 0.0, middle * (1 - factor)], [0.0, factor, middle * (1 - factor)]])
    if placement is None:
        return larger
    linear = placement[:, :2] @ larger[:, :2]
    shift = placement[:, :2] @ larger[:, 2:] + placement[:, 2:]
    return np.concatenate([linear, shift], axis=1)


def reach(placement: np.ndarray | None, resolution: int) -> float:
    """How far from dst's middle the placed face square reaches, 1: as far as dst's own square."""
    if placement is None:
        return 1.0
    middle, half = (resolution - 1) / 2, resolution / 2
    edge = np.array([middle - half, middle + half])
    corners = np.stack(np.meshgrid(edge, edge), -1).reshape(4, 2)
    placed = corners @ placement[:, :2].T + placement[:, 2]
    return max(1.0, float(np.abs(placed - middle).max() / half))


ENLARGE = 4  # bilinear reads between pixels so enlarged are as good as Lanczos reads
EXPOSURES = 9  # pictures of a moving face that make up a blurred one


class Places(NamedTuple):
    """Where the faces of a batch are in their regions; float32 unless said."""

    matrices: jax.Array  # [N, 2, 3]: region to the model's pixels of the dst face
    motion: jax.Array | None  # [N, 2, 3]: their change in the time of a frame; None: at rest
    outlines: jax.Array | None  # uint8 [N, R, R, 2] of dst's points, see `masks.outline_masks`


class Predicted(NamedTuple):
    """What the network gave for a batch, and what was measured of it."""

    faces: jax.Array  # float32 [N, R, R, 3]
    masks: jax.Array  # float32 [N, R, R, 1]
    measured: tuple[Measured, ...]


class Rendered(NamedTuple):
    """What is blended, and on the way to it; float32."""

    recoloured: jax.Array  # [N, R, R, 3]: the face that is laid
    faces: jax.Array  # [N, S, S, 3]: laid
    layer: jax.Array  # [N, S, S, 3]: what the mode makes of it
    coverage: Coverage
    weights: jax.Array  # [N, S, S]


class Merged(NamedTuple):
    """The regions with the new faces in them."""

    pixels: jax.Array  # uint8 [N, S, S, 3]
    weights: jax.Array  # uint8 [N, S, S]: by how much, 255 fully
    side: jax.Array  # int32 [N]: shorter side of each solid mask in pixels, 0: not merged


@dataclass(frozen=True)
class Merge:
    """How faces are merged. `predict` and `lay` compile once a region size.

    Regions are uint8 [N, S, S, 3], cut with `reach` for what the model makes; what it sees is cut
    out of the same ones. `lay` takes them again, for other faces may have been merged meanwhile. A
    pixel of weight 0 comes back bit for bit.
    """

    predict: Callable[[Params, jax.Array, Places], Predicted]
    lay: Callable[[jax.Array, Places, Predicted], Merged]
    show: Callable[[jax.Array, Places, Predicted], dict[str, jax.Array]]  # what `lay` went through
    config: MergeConfig
    reach: float  # of the regions, see `face_region.face_region`
    black: bool  # the rest of every frame is black, not dst's
    smoothing: int  # frames before and after over which `Predicted.measured` is averaged

    @property
    def moved(self) -> bool:
        """True when `Places.motion` is needed."""
        return self.config.motion_blur > 0

    @property
    def outlined(self) -> bool:
        """True when `Places.outlines` are needed."""
        return self.config.mask != "predicted" or bool(self.config.keep)

    @property
    def window(self) -> int:
        """How many frames before and after one play a part in its merge."""
        return max(self.smoothing, int(self.moved))


@dataclass(frozen=True)
class _Recipe:
    """All that is fixed while a merge is compiled."""

    swapper: Swapper
    config: MergeConfig
    placement: np.ndarray | None
    transfer: Transfer | None
    mode: Mode
    masks: MaskSettings
    finish: Finish


def build_merge(
    swapper: Swapper, config: MergeConfig, placement: np.ndarray | None = None
) -> Merge:
    """The merge of `swapper`'s faces as `config` asks.

    `placement` [2, 3] maps the new face's pixels to those of the dst face that it is laid on; None:
    they are the same. Raises UserError for a setting out of range.
    """
    check_merge(config)
    degrade = config.degrade
    placement = scaled(placement, config.scale, swapper.output_spec.resolution)
    recipe = _Recipe(
        swapper,
        config,
        placement,
        TRANSFERS[config.color],
        build_mode(config, {"masked": swapper.masked_hist_match}),
        mask_settings(swapper, config),
        Finish(
            config.sharpen / 100,
            config.sharpen_by,
            *(p / 100 for p in (degrade.bicubic, degrade.denoise, degrade.jpeg)),
        ),
    )
    return Merge(
        jax.jit(partial(_predict, recipe)),
        jax.jit(partial(_lay, recipe)),
        jax.jit(partial(_show, recipe)),
        config,
        reach(placement, swapper.output_spec.resolution),
        recipe.mode.black,
        config.color_smoothing if recipe.mode.measures or recipe.transfer else 0,
    )


def _predict(recipe: _Recipe, params: Params, regions: jax.Array, places: Places) -> Predicted:
    """The network's faces; what the colours need is measured as they are merged, by the way."""
    swapper = recipe.swapper
    made, seen = swapper.output_spec, swapper.input_spec
    dst = _crop(regions, places.matrices, made)
    if replace(made, gray=False) != replace(seen, gray=False):  # not pixel by pixel the same
        cut = _crop(regions, _after(seen.matrix_from(made), places.matrices), seen)
    else:
        cut = dst
    faces, masks = swapper.predict(params, cut)
    measurements = Measurements()
    _render(recipe, regions, places, Swap(faces, masks, dst), measurements)
    return Predicted(faces, masks, tuple(measurements.made))


def _lay(recipe: _Recipe, regions: jax.Array, places: Places, predicted: Predicted) -> Merged:
    rendered = _rendered(recipe, regions, places, predicted)
    weights = rendered.weights[..., None]
    below = regions.astype(jnp.float32) / 255
    merged = below + weights * (rendered.layer - below)
    pixels = jnp.where(weights > 0, _bytes(merged), regions)
    return Merged(pixels, _bytes(rendered.weights), rendered.coverage.side)


def _show(
    recipe: _Recipe, regions: jax.Array, places: Places, predicted: Predicted
) -> dict[str, jax.Array]:
    """All pictures on the way, [N, h, w] or [N, h, w, 3], named, in their order."""
    rendered = _rendered(recipe, regions, places, predicted)
    coverage, merged = rendered.coverage, _lay(recipe, regions, places, predicted)
    shown = [
        ("dst", regions / 255),
        ("dst face", _crop(regions, places.matrices, recipe.swapper.output_spec)),
        ("predicted", predicted.faces),
        ("predicted mask", predicted.masks[..., 0]),
        ("recoloured", rendered.recoloured),
        ("laid", rendered.faces),
        ("mask", coverage.mask),
        ("eroded", coverage.solid),
        ("weights", rendered.weights),
        ("layer", rendered.layer),
        ("merged", merged.pixels / 255),
    ]
    return {f"{number:02d} {name}": picture for number, (name, picture) in enumerate(shown)}


def _rendered(
    recipe: _Recipe, regions: jax.Array, places: Places, predicted: Predicted
) -> Rendered:
    swap = Swap(predicted.faces, predicted.masks, None)
    return _render(recipe, regions, places, swap, Measurements(predicted.measured))


def _render(
    recipe: _Recipe, regions: jax.Array, places: Places, swap: Swap, measurements: Measurements
) -> Rendered:
    mode, size = recipe.mode, recipe.swapper.output_spec.resolution
    swap = swap._replace(masks=jnp.where(swap.masks < PREDICTED_FLOOR, 0.0, swap.masks))
    if recipe.transfer is not None:
        measured = measurements.take(recipe.transfer, swap.faces, swap.dst, swap.masks > SOLID)
        swap = swap._replace(faces=recoloured(recipe.transfer, swap.faces, measured))
    swap = swap._replace(faces=mode.recolour(swap, measurements))
    layers = jnp.concatenate([sharpened(swap.faces, recipe.finish), swap.masks], axis=-1)
    layers, matrices = _pasted(recipe, layers, places, regions.shape[1])
    faces = degraded(layers[..., :3], recipe.finish)
    masks, kept = _masked(recipe, layers[..., 3], places)
    coverage = cover(masks, matrices, size, recipe.masks)
    coverage = coverage._replace(weights=coverage.weights * kept)
    scene = Scene(regions.astype(jnp.float32) / 255, matrices, coverage)
    layer = mode.layer(scene, faces, swap, measurements)
    weights = mode.weigh(coverage) * (recipe.config.opacity / 100)
    return Rendered(swap.faces, faces, layer, coverage, weights)


def _pasted(
    recipe: _Recipe, layers: jax.Array, places: Places, region: int
) -> tuple[jax.Array, jax.Array]:
    """(`layers` [N, R, R, C] laid into regions [N, S, S, C], the matrices region to new face)."""
    reads = _paste_reads(region, layers.shape[1])

    def placed(matrices: jax.Array) -> jax.Array:
        return matrices if recipe.placement is None else _after(invert(recipe.placement), matrices)

    def paste(matrices: jax.Array) -> jax.Array:
        return paste_faces(layers, placed(matrices), region, region, **reads)

    shutter = recipe.config.motion_blur
    if not shutter or places.motion is None:
        return paste(places.matrices), placed(places.matrices)
    times = jnp.linspace(-shutter / 2, shutter / 2, EXPOSURES)
    shots = jax.lax.map(lambda time: paste(places.matrices + time * places.motion), times)
    return shots.mean(0), placed(places.matrices)


def _masked(
    recipe: _Recipe, predicted: jax.Array, places: Places
) -> tuple[jax.Array, jax.Array | float]:
    """(the mask that `merge.mask` asks for, what `merge.keep` leaves of the weights) [N, S, S]."""
    kind, region = recipe.config.mask, predicted.shape[1]
    if places.outlines is None:
        return predicted, 1.0
    outlines = places.outlines.astype(jnp.float32) / 255
    reads = _paste_reads(region, outlines.shape[1])
    laid = paste_faces(outlines, places.matrices, region, region, **reads)
    hull, kept = laid[..., 0], 1 - laid[..., 1]
    masks = {
        "predicted": predicted,
        "hull": hull,
        "product": predicted * hull,
        "sum": jnp.minimum(predicted + hull, 1.0),
    }
    return masks[kind], kept


def _after(outer: np.ndarray, matrices: jax.Array) -> jax.Array:
    """`outer` [2, 3] after each of `matrices` [N, 2, 3]."""
    return jax.vmap(jnp_compose, (None, 0))(jnp.asarray(outer, jnp.float32), matrices)


def _crop(regions: jax.Array, matrices: jax.Array, view: FaceSpec) -> jax.Array:
    """dst's faces in RGB, with the pixels of `view`."""
    return crop_faces(regions, matrices, view.resolution, _crop_reads(regions.shape[1], view))


def _bytes(values: jax.Array) -> jax.Array:
    return jnp.round(jnp.clip(values, 0.0, 1.0) * 255).astype(jnp.uint8)


# The face square takes a third to all of its region's side (`face_region.SIDES`, any rotation, and
# a region may be one size larger than needed). Reads may lie 1.5 pixels apart: one covers two.


def _crop_reads(region: int, view: FaceSpec) -> int:
    return math.ceil(region / (1.5 * view.resolution))


def _paste_reads(region: int, size: int) -> dict[str, int]:
    return {
        "supersample": math.ceil(2 * size / region),
        "enlarge": ENLARGE if region > size else 1,
    }
