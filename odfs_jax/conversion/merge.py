"""A merge: a batch of faces through the network, and then into their frames, in two jitted calls.

The first call predicts the new faces and measures the statistics of colors that the merge needs,
the second one composites. In between, the statistics may be averaged along each face's track.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from omegaconf import OmegaConf

from odfs_jax.config import MergeConfig
from odfs_jax.conversion.auto import AUTO
from odfs_jax.conversion.finishing import SHARPENERS, degrade, sharpen
from odfs_jax.conversion.masks import (
    KEPT,
    MASKS,
    PREDICTED_FLOOR,
    SOLID,
    Kernels,
    MaskSettings,
    blend_mask,
)
from odfs_jax.conversion.modes import BlendInputs, Stats, build_mode
from odfs_jax.errors import UserError
from odfs_jax.faces.affine import invert, jnp_compose
from odfs_jax.faces.colors import TRANSFERS
from odfs_jax.faces.spec import FaceSpec
from odfs_jax.faces.warp import crop_faces, paste_faces
from odfs_jax.inference import Masker, Params, Swapper

RANGES = {
    "scale": (-50, 50),  # per cent of the face
    "erode": (-100, 100),  # per cent of the 2018 program's formula, added to the model's own
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
    "color": (AUTO, *TRANSFERS),
    "mask": (AUTO, *MASKS),
    "feather": ("linear", "smooth"),
    "sharpen_by": tuple(SHARPENERS),
}
DST_BORDER = 0.12  # of the square's side
ENLARGE = 4  # bilinear reads between pixels so enlarged are as good as Lanczos reads
EXPOSURES = 9  # pictures of a moving face that make up a blurred one
ALL_KERNELS = 256.0  # per cent: hardly an erosion or a blur is larger, the model's own included


class Placement(NamedTuple):
    """Where the faces of a batch are in their regions; float32 unless said."""

    model_from_region: jax.Array  # [N, 2, 3]: region pixels to dst's face in the model's pixels
    motion: jax.Array | None  # [N, 2, 3]: its change in the time of a frame; None: at rest
    outlines: jax.Array | None  # uint8 [N, R, R, 3] of dst's points, see `masks.outline_masks`
    seen: jax.Array | None = None  # uint8 [N, R, R]: 255 where dst's face is seen; None: everywhere


class Prediction(NamedTuple):
    """What the network gave for a batch, and the statistics of colors that were measured of it."""

    faces: jax.Array  # float32 [N, R, R, 3]
    masks: jax.Array  # float32 [N, R, R, 1]
    dst_masks: jax.Array | None  # float32 [N, R, R, 1], of dst's own faces; None: not used
    stats: Stats


class Merged(NamedTuple):
    """The regions with the new faces in them."""

    pixels: jax.Array  # uint8 [N, S, S, 3]
    alpha: jax.Array  # uint8 [N, S, S]: how much of the pixel is new, 255: all of it
    side: jax.Array  # int32 [N]: shorter side of each solid mask in pixels, 0: not merged


class Amounts(NamedTuple):
    """The settings that programs have as inputs: to change them compiles nothing."""

    kernels: Kernels
    opacity: float  # shares
    sharpen: float
    motion_blur: float
    src_from_dst: np.ndarray | None  # [2, 3], pixels of the model; None: the identity


class Programs(NamedTuple):
    """Functions with `Amounts` as first argument, for all merges of one `program_key`."""

    predict: Callable[..., Prediction]
    composite: Callable[..., Merged]
    show: Callable[..., dict[str, jax.Array]]


@dataclass(frozen=True)
class Merge:
    """How faces are merged: jitted functions, which compile once a region size.

    Regions are uint8 [N, S, S, 3], cropped with `region_scale`; what the network sees is cropped
    out of them. `composite` gets them again, for other faces may have been merged meanwhile. A
    pixel of alpha 0 comes back bit for bit.
    """

    predict: Callable[[Params, jax.Array, Placement], Prediction]
    composite: Callable[[jax.Array, Placement, Prediction], Merged]
    show: Callable[[jax.Array, Placement, Prediction], dict[str, jax.Array]]  # steps of `composite`
    programs: Programs  # what these three are made of
    config: MergeConfig
    region_scale: float  # how much larger than the face square regions are, see `face_region`
    black_background: bool  # the rest of every frame is black, not dst's
    smoothing: int  # frames before and after over which `Prediction.stats` is averaged
    needs_outlines: bool  # `Placement.outlines` is used
    sees: str | None  # where `Placement.seen` is from: "stored", "network"; None: it is not used

    @property
    def needs_motion(self) -> bool:
        """True when `Placement.motion` is used."""
        return self.config.motion_blur > 0

    @property
    def window(self) -> int:
        """How many frames before and after a frame its merge depends on."""
        return max(self.smoothing, int(self.needs_motion))


@dataclass(frozen=True)
class Pasting:
    """How faces and their masks are pasted into regions: what modes and colors do not change."""

    resolution: int  # of the new faces
    masking: MaskSettings  # the largest kernels
    choice: str  # `merge.mask` without "stored" or "network"
    sees: bool  # `Placement.seen` is used
    sharpened: bool
    sharpen_by: str
    blurred: bool  # by motion
    bicubic: float  # per cent, as `denoise` and `jpeg` of `merge.degrade`
    denoise: float
    jpeg: float

    @partial(jax.jit, static_argnums=0)
    def paste(
        self,
        amounts: Amounts,
        regions: jax.Array,
        placement: Placement,
        faces: jax.Array,
        masks: jax.Array,
        dst_masks: jax.Array | None,
    ) -> BlendInputs:
        """`regions` [N, S, S, 3] beside faces and masks of a `Prediction` that are pasted there."""
        side = regions.shape[1]
        if self.sharpened:
            faces = sharpen(faces, amounts.sharpen, self.sharpen_by)
        layers = jnp.concatenate([faces, masks], axis=-1)
        face_from_region = _to_src(placement.model_from_region, amounts.src_from_dst)

        def exposure(time: jax.Array) -> jax.Array:
            moved = placement.model_from_region + time * placement.motion
            return _paste(layers, _to_src(moved, amounts.src_from_dst), side)

        if self.blurred and placement.motion is not None:
            times = jnp.linspace(-0.5, 0.5, EXPOSURES) * amounts.motion_blur
            pasted = jax.lax.map(exposure, times).mean(0)
        else:
            pasted = _paste(layers, face_from_region, side)
        new_faces = degrade(
            pasted[..., :3], self.bicubic / 100, self.denoise / 100, self.jpeg / 100
        )
        new_masks, shown, covered = self._choose_masks(pasted[..., 3], dst_masks, placement)
        mask = blend_mask(
            new_masks, face_from_region, self.resolution, self.masking, amounts.kernels
        )
        alpha = jnp.maximum(mask.alpha, covered * mask.square)
        mask = mask._replace(alpha=alpha * shown)
        return BlendInputs(regions.astype(jnp.float32) / 255, new_faces, face_from_region, mask)

    def _choose_masks(
        self, predicted: jax.Array, dst_masks: jax.Array | None, placement: Placement
    ) -> tuple[jax.Array, jax.Array | float, jax.Array | float]:
        """(the masks that `merge.mask` asks for, what may be shown of a new face, what must be).

        All [N, S, S]. Not to be shown is what `merge.keep` keeps of dst, and what lies before dst's
        face: it has an edge of its own, which neither erosion nor blur may move. With all of dst's
        face the new one covers dst's eyes and mouth up to the outline of a turned head, or they
        would shine through its blurred edge.
        """
        side, hull, kept, features, seen = predicted.shape[1], None, 0.0, 0.0, 1.0
        if self.sees and placement.seen is not None:
            seen = placement.seen.astype(jnp.float32)[..., None] / 255
            reads = math.ceil(2 * self.resolution / side)
            # Bilinear: what rings beside an edge would paint over what lies before the face.
            seen = paste_faces(seen, placement.model_from_region, side, side, supersample=reads)
            seen = seen[..., 0]
        if placement.outlines is not None:
            outlines = placement.outlines.astype(jnp.float32) / 255
            outlines = _paste(outlines, placement.model_from_region, side)
            hull, kept, features = (outlines[..., index] for index in range(3))
        match self.choice:
            case "both" | "dst":
                own = _paste(dst_masks, placement.model_from_region, side)[..., 0]
                chosen = predicted * own if self.choice == "both" else own
            case "product":
                chosen = predicted * hull
            case "hull":
                chosen = hull
            case "sum":
                chosen = jnp.minimum(predicted + hull, 1.0)
            case "seen":
                chosen = seen
            case _:
                chosen = predicted
        return chosen, (1 - kept) * seen, features * chosen if self.choice == "dst" else 0.0


def _to_src(model_from_region: jax.Array, src_from_dst: jax.Array | None) -> jax.Array:
    """The matrices from region pixels to the new face's pixels, not to the dst face's."""
    if src_from_dst is None:
        return model_from_region
    return _compose(src_from_dst, model_from_region)


def build_merge(
    swapper: Swapper,
    config: MergeConfig,
    dst_from_src: np.ndarray | None = None,
    programs: Programs | None = None,
    *,
    whole: bool = True,
) -> Merge:
    """The merge of `swapper`'s faces with the settings `config`.

    `dst_from_src` [2, 3] maps pixels of the new face to pixels of the dst face that it replaces,
    both as the model has them; None: the identity. `programs` are those of a merge of the same
    `program_key`. A `whole` merge compiles each of its calls into one program, the fastest; else
    they are several, which merges of other modes, colors, erosions and blurs share. Raises
    UserError for a setting out of range.
    """
    check_merge(config)
    if AUTO in (config.color, config.mask):
        raise ValueError("merge.color=auto, merge.mask=auto: chosen before, see `auto`")
    transfer = TRANSFERS[config.color]
    mode = build_mode(config, {"masked": swapper.masked_hist_match})
    input_spec, output_spec = swapper.input_spec, swapper.output_spec
    masking = mask_settings(swapper, config)
    # Without "stored" or "network": the mask that what is seen of dst's face is taken off.
    sees, choice = _split_choice(config.mask)
    # A network without a mask of dst's own: the hull of dst's points stands for it.
    if not swapper.has_dst_mask:
        choice = {"both": "product", "dst": "hull"}.get(choice, choice)
    pasting = Pasting(
        resolution=output_spec.resolution,
        masking=masking.rounded(1.0 if whole else ALL_KERNELS),
        choice=choice,
        sees=sees is not None,
        sharpened=bool(config.sharpen),
        sharpen_by=config.sharpen_by,
        blurred=config.motion_blur > 0,
        bicubic=config.degrade.bicubic,
        denoise=config.degrade.denoise,
        jpeg=config.degrade.jpeg,
    )
    amounts = Amounts(
        masking.kernels,
        config.opacity / 100,
        config.sharpen / 100,
        config.motion_blur,
        None if dst_from_src is None else invert(dst_from_src),
    )

    # ---- First call: the network's faces, and what their colors need ----

    def predict(
        amounts: Amounts, params: Params, regions: jax.Array, placement: Placement
    ) -> Prediction:
        dst = _crop(regions, placement.model_from_region, output_spec)
        if replace(input_spec, gray=False) == replace(output_spec, gray=False):
            inputs = dst
        else:
            input_from_output = input_spec.matrix_from(output_spec)
            matrices = _compose(input_from_output, placement.model_from_region)
            inputs = _crop(regions, matrices, input_spec)
        faces, masks, dst_masks = swapper.predict(params, inputs)
        masks = jnp.where(masks < PREDICTED_FLOOR, 0.0, masks)
        stats: Stats = {}
        if transfer is not None:
            solid = masks > SOLID
            # What lies before dst's face has colors of its own.
            if sees and placement.seen is not None:
                solid &= (placement.seen > 127)[..., None]
            stats["color"] = transfer.measure(faces, dst, solid)
        if mode.measure is not None:
            recolored = apply_transfer(faces, stats)
            stats |= mode.measure(
                recolored,
                masks,
                dst,
                lambda faces: pasting.paste(amounts, regions, placement, faces, masks, dst_masks),
            )
        return Prediction(faces, masks, dst_masks if choice in ("both", "dst") else None, stats)

    # ---- Both calls: the colors of `merge.color` ----

    def apply_transfer(faces: jax.Array, stats: Stats) -> jax.Array:
        return faces if transfer is None else transfer.apply(faces, stats["color"])

    # ---- Second call: the regions with the new faces in them ----

    def blend(
        amounts: Amounts, regions: jax.Array, placement: Placement, prediction: Prediction
    ) -> tuple[jax.Array, BlendInputs, jax.Array, jax.Array]:
        """(faces in their final colors, what is blended, the mode's picture of it, its alpha)."""
        faces = apply_transfer(prediction.faces, prediction.stats)
        if mode.recolor is not None:
            faces = mode.recolor(faces, prediction.stats)
        inputs = pasting.paste(
            amounts, regions, placement, faces, prediction.masks, prediction.dst_masks
        )
        layer = mode.layer(inputs, prediction.stats)
        return faces, inputs, layer, mode.alpha(inputs.mask) * amounts.opacity

    def composite(
        amounts: Amounts, regions: jax.Array, placement: Placement, prediction: Prediction
    ) -> Merged:
        _, inputs, layer, alpha = blend(amounts, regions, placement, prediction)
        return Merged(*_lay_over(regions, layer, alpha), inputs.mask.side)

    # ---- debug=true: the picture of each step by name, [N, h, w] or [N, h, w, 3] ----

    def show(
        amounts: Amounts, regions: jax.Array, placement: Placement, prediction: Prediction
    ) -> dict[str, jax.Array]:
        faces, inputs, layer, alpha = blend(amounts, regions, placement, prediction)
        merged = composite(amounts, regions, placement, prediction)
        pictures = [
            ("dst", regions / 255),
            ("dst face", _crop(regions, placement.model_from_region, output_spec)),
            ("predicted", prediction.faces),
            ("predicted mask", prediction.masks[..., 0]),
            ("recolored", faces),
            ("pasted", inputs.faces),
            ("mask", inputs.mask.pasted),
            ("eroded", inputs.mask.solid),
            ("alpha", alpha),
            ("layer", layer),
            ("merged", merged.pixels / 255),
        ]
        return {f"{number:02d} {name}": picture for number, (name, picture) in enumerate(pictures)}

    if programs is None:
        programs = Programs(predict, composite, show)
        programs = Programs(*map(jax.jit, programs)) if whole else programs
    return Merge(
        predict=partial(programs.predict, amounts),
        composite=partial(programs.composite, amounts),
        show=partial(programs.show, amounts),
        programs=programs,
        config=config,
        region_scale=region_scale(dst_from_src, output_spec.resolution),
        black_background=mode.black_background,
        smoothing=config.color_smoothing if transfer or mode.measure else 0,
        needs_outlines=bool(config.keep)
        or choice in ("dst", "hull", "product", "sum")
        or config.mask.startswith("stored"),  # the hull of faces that nothing is stored of
        sees=sees,
    )


def program_key(swapper: Swapper, config: MergeConfig, dst_from_src: np.ndarray | None) -> str:
    """A text that is the same for merges of `swapper` that share `Programs`.

    They differ in `Amounts`: erosion and blur up to the next power of two, opacity, sharpening,
    motion blur, scale and anchor, and in what only the host does.
    """
    rounded = mask_settings(swapper, config).rounded()
    moved = dst_from_src is not None
    settings = OmegaConf.to_container(OmegaConf.create(config), resolve=True)
    settings |= {"erode": rounded.erode, "blur": rounded.blur, "anchor": moved}
    settings |= {name: bool(settings[name]) for name in ("sharpen", "motion_blur")}
    del settings["opacity"], settings["color_smoothing"], settings["scale"]
    return json.dumps(settings, sort_keys=True)


def build_seeing(
    masker: Masker, output_spec: FaceSpec
) -> Callable[[Params, jax.Array, jax.Array], jax.Array]:
    """see(params, regions, model_from_region) -> uint8 [N, R, R]: 255 where faces are seen.

    It is what `masker` finds in regions [N, S, S, 3], in the pixels of a swapper's `output_spec`.
    Raises UserError where the two networks cut faces in ways that have no fixed place in each
    other.
    """
    spec = masker.spec
    if spec.face_type.is_dfl != output_spec.face_type.is_dfl:
        raise UserError(
            f"merge.mask=network: the mask network takes {spec.face_type} faces, the model "
            f"{output_spec.face_type} ones; apply it first: python scripts/masks.py action=apply"
        )

    mask_from_model = spec.matrix_from(output_spec)

    @jax.jit
    def see(params: Params, regions: jax.Array, model_from_region: jax.Array) -> jax.Array:
        matrices = _compose(mask_from_model, model_from_region)
        found = masker.predict(params, _crop(regions, matrices, spec))
        matrices = jnp.broadcast_to(jnp.asarray(mask_from_model), (len(regions), 2, 3))
        return _to_bytes(_paste(found, matrices, output_spec.resolution)[..., 0])

    return see


def _split_choice(mask: str) -> tuple[str | None, str]:
    """(where what is seen comes from, the other factor's name) of `merge.mask`."""
    first, _, rest = mask.partition("_")
    if first in ("stored", "network"):
        return first, rest or "seen"
    return ("stored" if mask in ("both", "dst") else None), mask


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
    """The sum of the model's and the user's erosion and blur.

    dst's own mask reaches to the ear of a turned head, beyond the face square, whose straight edge
    would show in a beard: so `mask=dst` fades out over DST_BORDER at least.
    """
    return MaskSettings(
        erode=swapper.erode_modifier + config.erode,
        blur=swapper.blur_modifier + config.blur,
        border=max(swapper.border, DST_BORDER) if config.mask == "dst" else swapper.border,
        smooth=config.feather == "smooth",
    )


def region_scale(dst_from_src: np.ndarray | None, resolution: int) -> float:
    """How far the new face's square reaches from dst's middle; 1: as far as dst's own square."""
    if dst_from_src is None:
        return 1.0
    middle, half = (resolution - 1) / 2, resolution / 2
    edge = np.array([middle - half, middle + half])
    corners = np.stack(np.meshgrid(edge, edge), -1).reshape(4, 2)
    placed = corners @ dst_from_src[:, :2].T + dst_from_src[:, 2]
    return max(1.0, float(np.abs(placed - middle).max() / half))


def _compose(a_from_b: np.ndarray, b_from_c: jax.Array) -> jax.Array:
    """a_from_c [N, 2, 3] of one matrix [2, 3] and N matrices [N, 2, 3]."""
    return jax.vmap(jnp_compose, (None, 0))(jnp.asarray(a_from_b, jnp.float32), b_from_c)


# The face square takes a third to all of its region's side (`face_region.SIDES`, any rotation, and
# a region may be one size larger than needed). Reads may lie 1.5 pixels apart: one covers two.


@partial(jax.jit, static_argnums=2)
def _crop(regions: jax.Array, face_from_region: jax.Array, spec: FaceSpec) -> jax.Array:
    """The faces [N, R, R, 3] of `regions`, in RGB, at the resolution of `spec`."""
    supersample = math.ceil(regions.shape[1] / (1.5 * spec.resolution))
    return crop_faces(regions, face_from_region, spec.resolution, supersample)


def _paste(faces: jax.Array, face_from_region: jax.Array, side: int) -> jax.Array:
    """`faces` [N, R, R, C] pasted into regions of `side` pixels: [N, S, S, C]."""
    size = faces.shape[1]
    return paste_faces(
        faces,
        face_from_region,
        side,
        side,
        supersample=math.ceil(2 * size / side),
        enlarge=ENLARGE if side > size else 1,
    )


@jax.jit
def _lay_over(
    regions: jax.Array, layer: jax.Array, alpha: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`layer` [N, S, S, 3] over `regions`, by the share `alpha` [N, S, S]; both as bytes."""
    below, shares = regions.astype(jnp.float32) / 255, alpha[..., None]
    merged = below + shares * (layer - below)
    return jnp.where(shares > 0, _to_bytes(merged), regions), _to_bytes(alpha)


def _to_bytes(values: jax.Array) -> jax.Array:
    return jnp.round(jnp.clip(values, 0.0, 1.0) * 255).astype(jnp.uint8)
