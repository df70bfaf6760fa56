"""The merge modes. A new one is a function here, a row in `MODES` and a YAML in configs/merge/.

A mode is up to four pure functions on batches, called inside the merge's jits: the first jitted
call runs the network and `measure`; the second one makes the picture with `recolor`, `layer` and
`alpha`. In between, the statistics are averaged along each face's track.
Pictures are float32 RGB in [0, 1], NHWC; R is the model's resolution, S the region's side.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from odfs_jax.config import MergeConfig
from odfs_jax.conversion.masks import SOLID, BlendMask
from odfs_jax.conversion.poisson import clone
from odfs_jax.errors import UserError
from odfs_jax.faces.colors import TRANSFERS, ColorStats
from odfs_jax.faces.spec import to_gray, to_rgb
from odfs_jax.faces.warp import crop_faces

HIST = TRANSFERS["hist"]

Stats = dict[str, ColorStats]  # what was measured, by name


class BlendInputs(NamedTuple):
    """A batch of new faces pasted into their regions, and the regions."""

    regions: jax.Array  # [N, S, S, 3] of dst's frames
    faces: jax.Array  # [N, S, S, 3]
    face_from_region: jax.Array  # [N, 2, 3]: region pixels to the new face's pixels
    mask: BlendMask


Paste = Callable[[jax.Array], BlendInputs]  # of faces [N, R, R, 3]


def pasted_face(blend: BlendInputs, _stats: Stats) -> jax.Array:
    """The new face itself."""
    return blend.faces


def soft_alpha(mask: BlendMask) -> jax.Array:
    """The eroded, blurred mask."""
    return mask.alpha


@dataclass(frozen=True)
class Mode:
    """A merge mode. Pixels of alpha 0 are never written back.

    `measure` takes the network's faces [N, R, R, 3] (in the colors of `merge.color`), their masks
    [N, R, R, 1], dst's faces [N, R, R, 3], and a function that pastes faces [N, R, R, 3] and
    returns a `BlendInputs`. It returns statistics of colors by name, which `recolor` and `layer`
    get; None: the mode measures nothing.
    `recolor` takes the faces and the statistics, and returns the faces in other colors; None: they
    keep theirs.
    `layer` returns the picture [N, S, S, 3] that is blended over the regions.
    `alpha` returns how much of it is visible, [N, S, S].
    """

    measure: Callable[[jax.Array, jax.Array, jax.Array, Paste], Stats] | None = None
    recolor: Callable[[jax.Array, Stats], jax.Array] | None = None
    layer: Callable[[BlendInputs, Stats], jax.Array] = pasted_face
    alpha: Callable[[BlendMask], jax.Array] = soft_alpha
    black_background: bool = False  # the rest of every frame is black, not dst's


def overlay() -> Mode:
    """The predicted face in its own colors, blended with the eroded, blurred mask. No options."""
    return Mode()


def hist_match(masked: bool) -> Mode:
    """The predicted face takes the dst face's histogram, channel by channel.

    `masked`: count only pixels of the face (mask > 0.9), else the whole square around it.
    """

    def measure(faces: jax.Array, masks: jax.Array, dst: jax.Array, _paste: Paste) -> Stats:
        return {"hist": HIST.measure(faces, dst, counted_pixels(masks, masked))}

    def recolor(faces: jax.Array, stats: Stats) -> jax.Array:
        return HIST.apply(faces, stats["hist"])

    return Mode(measure=measure, recolor=recolor)


def hist_match_bw(masked: bool) -> Mode:
    """A gray predicted face takes the dst face's histogram: all color is dst's.

    `masked`: count only pixels of the face (mask > 0.9), else the whole square around it.
    """
    in_color = hist_match(masked)

    def measure(faces: jax.Array, masks: jax.Array, dst: jax.Array, paste: Paste) -> Stats:
        return in_color.measure(to_rgb(to_gray(faces)), masks, dst, paste)

    def recolor(faces: jax.Array, stats: Stats) -> jax.Array:
        return in_color.recolor(to_rgb(to_gray(faces)), stats)

    return Mode(measure=measure, recolor=recolor)


def seamless() -> Mode:
    """The predicted face cloned into dst's frame: Poisson blending. No options."""

    def layer(blend: BlendInputs, _stats: Stats) -> jax.Array:
        return cloned_face(blend)

    return Mode(layer=layer)


def seamless_hist_match(masked: bool) -> Mode:
    """The Poisson clone, which then takes the dst face's histogram.

    `masked`: count only pixels of the face (mask > 0.9), else the whole square around it.
    """

    def measure(faces: jax.Array, masks: jax.Array, dst: jax.Array, paste: Paste) -> Stats:
        blend = paste(faces)
        clones, size = cloned_face(blend), faces.shape[1]
        supersample = -(-clones.shape[1] // size)
        clones = crop_faces(clones, blend.face_from_region, size, supersample)
        return {"hist": HIST.measure(clones, dst, counted_pixels(masks, masked))}

    def layer(blend: BlendInputs, stats: Stats) -> jax.Array:
        return HIST.apply(cloned_face(blend), stats["hist"])

    return Mode(measure=measure, layer=layer)


def raw() -> Mode:
    """The face alone, on black, for compositing elsewhere. No options.

    It has the network's own colors and mask: nothing is eroded, blurred or faded out.
    """

    def predicted_alpha(mask: BlendMask) -> jax.Array:
        return mask.pasted * mask.square

    return Mode(alpha=predicted_alpha, black_background=True)


def raw_predict() -> Mode:
    """The whole square that the network predicted, pasted where the face is. No options.

    The mask plays no part: the picture shows what a model has learned, and where its mask is wrong.
    """

    def whole_square(mask: BlendMask) -> jax.Array:
        return mask.square

    return Mode(alpha=whole_square)


MODES = {
    "overlay": overlay,
    "hist_match": hist_match,
    "hist_match_bw": hist_match_bw,
    "seamless": seamless,
    "seamless_hist_match": seamless_hist_match,
    "raw": raw,
    "raw_predict": raw_predict,
}


def build_mode(merge: MergeConfig, own: Mapping[str, Any]) -> Mode:
    """The mode `merge.mode` with the options `merge.args`.

    `own` has the model's choices for options that are null in `merge.args`. Raises UserError for an
    unknown mode, an option that the mode does not have, and a value of another type.
    """
    if merge.mode not in MODES:
        raise UserError(f"merge.mode={merge.mode}: not one of {', '.join(sorted(MODES))}")
    options = inspect.signature(MODES[merge.mode]).parameters
    for name, value in merge.args.items():
        if name not in options:
            known = ", ".join(options) or "none"
            raise UserError(f"merge.args.{name}: {merge.mode} has no such option; it has: {known}")
        if not isinstance(value, options[name].annotation | None):
            expected = options[name].annotation.__name__
            raise UserError(f"merge.args.{name}={value!r}: expected a {expected}")
    chosen = {name: value for name, value in merge.args.items() if value is not None}
    return MODES[merge.mode](**{k: v for k, v in own.items() if k in options} | chosen)


@jax.jit
def cloned_face(blend: BlendInputs) -> jax.Array:
    """The new faces cloned into the regions where the eroded mask is solid, [N, S, S, 3]."""
    visible = blend.mask.alpha.any(axis=(1, 2), keepdims=True)
    inside = (blend.mask.solid > SOLID) & visible
    return jnp.clip(clone(blend.regions, blend.faces, inside), 0.0, 1.0)


def counted_pixels(masks: jax.Array, masked: bool) -> jax.Array:
    """bool, the shape of `masks`: what a histogram counts, the face alone or the whole square."""
    return masks > SOLID if masked else jnp.ones_like(masks, bool)
