"""From the network's mask to the alpha of the blend. Source: docs/reference_2018.md section 10.

Masks are float32 [N, S, S] in [0, 1] over square regions of a frame, 0 outside the region. Kernel
sizes are int32 [N]: each face has its own, the shapes stay the same. An even kernel reaches one
pixel further up and left, as OpenCV's do.
"""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from odfs_jax.faces.hull import face_mask, feature_mask
from odfs_jax.faces.warp import affine_coordinates, map_in_groups

# Of the network's two masks and dst's points.
OWN_MASKS = ("dst", "both", "predicted", "hull", "product", "sum")
MASKS = (*OWN_MASKS, "stored", "stored_predicted", "network", "network_predicted", "network_both")
KEPT = ("eyes", "mouth")

PREDICTED_FLOOR = 0.001  # of the network's mask, in face pixels
WARPED_FLOOR = 0.1  # of the mask in frame pixels
SOLID = 0.9  # what counts as face when its size is measured
INVISIBLE = 1e-4  # an alpha that cannot change an 8-bit pixel; also the rounding of running sums
FINER = 4  # times larger drawn than needed and averaged down, so that outlines are smooth
FEATURES_SIDE = 128  # pixels of the pictures in which features are drawn
FEATHER = 0.015  # of the face square's side: the gaussian at the edge of what is kept of dst


class Kernels(NamedTuple):
    """Shares of a mask's side that kernels take, factors of the 2018 program's formulas.

    A program has them as inputs: it is compiled for the largest kernels, not for these.
    """

    erode: float | jax.Array
    blur: float | jax.Array


@dataclass(frozen=True)
class MaskSettings:
    """How a mask is eroded and blurred, in per cent of the 2018 program's formulas."""

    erode: float  # negative: dilate
    blur: float
    border: float  # share of the face square's side that is faded out
    smooth: bool  # the ramp of the blurred edge as an S instead of a line

    @property
    def kernels(self) -> Kernels:
        """The kernels of these settings."""
        return Kernels(0.01 * abs(self.erode), 0.10 * 0.01 * max(self.blur, 0.0))

    def rounded(self, least: float = 1.0) -> "MaskSettings":
        """These settings with the next powers of two: a program for them serves all below, too.

        Kernels below `least` per cent count as that much.
        """
        erode = math.copysign(_power_of_two(abs(self.erode), least), self.erode)
        return replace(self, erode=erode, blur=_power_of_two(max(self.blur, 0.0), least))

    def max_erode(self, region: int) -> int:
        """The largest erosion kernel in a region of `region` pixels."""
        side = min(region, 0.126 / 0.00004551365 / 2)  # where the parabola is highest
        return int(side * (0.126 - side * 0.00004551365) * 0.01 * abs(self.erode)) + 1

    def max_blur(self, region: int) -> int:
        """The largest blur kernel in a region of `region` pixels."""
        return int(max(self.blur, 0.0) * 0.01 * 0.10 * region) + 1


class BlendMask(NamedTuple):
    """The mask of new faces at each step of its way to alpha, float32 [N, S, S]."""

    pasted: jax.Array  # in the regions, faint parts dropped
    solid: jax.Array  # eroded (or dilated), its edge not yet blurred; 0 outside the face square
    alpha: jax.Array  # of the blend: eroded, blurred, faded out towards the square's edge
    square: jax.Array  # 1 in the face square, 0 outside
    side: jax.Array  # int32 [N]: the shorter side of the mask in pixels, 0: no face


def blend_mask(
    masks: jax.Array,
    face_from_region: jax.Array,
    resolution: int,
    settings: MaskSettings,
    kernels: Kernels | None = None,
) -> BlendMask:
    """Erodes and blurs `masks` [N, S, S], which are pasted into the regions already.

    `kernels` may be any up to those of `settings`, which are what None stands for.

    `face_from_region` [N, 2, 3] maps region pixels to the new face's pixels, of which there are
    `resolution` a side. Whatever the settings, alpha is 0 outside the face square and falls to 0
    towards its edge, so that no straight edge can show. Of a face whose mask is nowhere solid it is
    0 everywhere.
    """
    blend = partial(_blend_mask, resolution, settings, kernels or settings.kernels)
    return map_in_groups(blend, 1, masks, face_from_region)


def _blend_mask(
    resolution: int,
    settings: MaskSettings,
    kernels: Kernels,
    masks: jax.Array,
    face_from_region: jax.Array,
) -> BlendMask:
    region = masks.shape[-1]
    masks = jnp.where(masks <= WARPED_FLOOR, 0.0, masks)
    side = solid_side(masks)
    erode_size, blur_size = kernel_sizes(side, kernels)
    solid = masks
    if settings.erode:
        reshape = erode if settings.erode > 0 else dilate
        solid = reshape(masks, erode_size, settings.max_erode(region))
    alpha = solid
    if settings.blur > 0:
        alpha = box_blur(solid, blur_size, settings.max_blur(region))
    depth, scale = jax.vmap(lambda m: _depth(m, region, resolution))(face_from_region)
    in_frame = depth / scale[:, None, None]
    alpha = jnp.minimum(alpha, in_frame / jnp.maximum(blur_size / 2, 1.0)[:, None, None])
    if settings.border > 0:
        alpha = alpha * jnp.minimum(depth / (settings.border * resolution), 1.0)
    visible = (side[:, None, None] > 0) & (alpha > INVISIBLE)
    alpha = jnp.where(visible, jnp.minimum(alpha, 1.0), 0.0)
    if settings.smooth:
        alpha = alpha * alpha * (3 - 2 * alpha)
    square = (depth > 0).astype(jnp.float32)
    return BlendMask(masks, solid * square, alpha, square, side)


def _power_of_two(value: float, least: float) -> float:
    """The smallest power of two that is below neither `value` nor `least`; 0 of 0."""
    return float(2 ** math.ceil(math.log2(max(value, least)))) if value else 0.0


def solid_side(masks: jax.Array) -> jax.Array:
    """int32 [N]: the shorter side of the bounding box of `masks` > 0.9; 0 where there is none."""

    def extent(line: jax.Array) -> jax.Array:
        index = jnp.arange(line.shape[-1])[None, :]
        last = jnp.max(jnp.where(line, index, -1), axis=-1)
        return jnp.maximum(last - jnp.min(jnp.where(line, index, line.shape[-1]), axis=-1), 0)

    solid = masks > SOLID
    return jnp.minimum(extent(solid.any(1)), extent(solid.any(2)))


def kernel_sizes(side: jax.Array, kernels: Kernels) -> tuple[jax.Array, jax.Array]:
    """(erosion or dilation, blur) kernels int32 [N] in pixels, for masks of `side` [N] pixels.

    Source: docs/reference_2018.md section 10.
    """
    side = side.astype(jnp.float32)
    erosion = side * (0.126 - side * 0.00004551365) * kernels.erode
    blur = side * kernels.blur
    return jnp.maximum(erosion, 0.0).astype(jnp.int32), blur.astype(jnp.int32)


def erode(masks: jax.Array, sizes: jax.Array, max_size: int) -> jax.Array:
    """Minimum under an ellipse `sizes` [N] pixels wide; 0 and 1 change nothing.

    Equals `cv2.erode` with `getStructuringElement(MORPH_ELLIPSE)` and a border of zeros.
    """
    count, side = masks.shape[:2]
    sizes = jnp.clip(sizes, 1, max_size)
    table = _running_minima(masks, max_size)
    corner = _corner(max_size)

    def row(index: jax.Array, result: jax.Array) -> jax.Array:
        # A smaller kernel reads its last row again, which does not change a minimum.
        down, left, right = _ellipse_row(sizes, jnp.minimum(index, sizes - 1))
        level = 31 - jax.lax.clz(left + right + 1)
        for start in (-left, right + 1 - (1 << level)):  # two runs of 2^level cover the row
            result = jnp.minimum(
                result, _shifted(table, level, corner + down, corner + start, side)
            )
        return result

    full = jnp.full((count, side, side), jnp.inf, masks.dtype)
    return jax.lax.fori_loop(0, sizes.max(), row, full)


def dilate(masks: jax.Array, sizes: jax.Array, max_size: int) -> jax.Array:
    """Maximum under an ellipse `sizes` [N] pixels wide; 0 and 1 change nothing.

    Equals `cv2.dilate` with `getStructuringElement(MORPH_ELLIPSE)` and a border of zeros.
    """
    return -erode(-masks, sizes, max_size)


def box_blur(masks: jax.Array, sizes: jax.Array, max_size: int) -> jax.Array:
    """Mean under a square of `sizes` [N] pixels; 0 and 1 change nothing.

    Equals `cv2.blur` with a border of zeros.
    """
    sizes = jnp.clip(sizes, 1, max_size)

    def columns(mask: jax.Array, size: jax.Array) -> jax.Array:
        padded = jnp.pad(mask, ((max_size, max_size), (0, 0)))
        sums = jnp.cumsum(padded, axis=0)
        start = max_size - size // 2
        high = jax.lax.dynamic_slice_in_dim(sums, start + size - 1, mask.shape[0])
        low = jax.lax.dynamic_slice_in_dim(sums, start - 1, mask.shape[0])
        return (high - low) / size.astype(mask.dtype)

    def both(mask: jax.Array, size: jax.Array) -> jax.Array:
        return columns(columns(mask, size).T, size).T

    return jax.vmap(both)(masks, sizes)


def _running_minima(masks: jax.Array, max_size: int) -> jax.Array:
    """[N, levels, padded, padded]: entry `level` holds minima of 2^level pixels to the right."""
    corner = _corner(max_size)
    level = jnp.pad(masks, ((0, 0), (corner, corner), (corner, corner)))
    levels = [level]
    for power in range(max_size.bit_length() - 1):
        reach = 1 << power
        level = jnp.minimum(level, jnp.pad(level[:, :, reach:], ((0, 0), (0, 0), (0, reach))))
        levels.append(level)
    return jnp.stack(levels, axis=1)


def _corner(max_size: int) -> int:
    return max_size // 2 + 1


def _ellipse_row(sizes: jax.Array, index: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(offset down, reach left, reach right) int32 [N] of row `index` [N] of OpenCV's ellipse."""
    radius = sizes // 2
    down = index - radius
    reach = jnp.round(jnp.sqrt((radius * radius - down * down).astype(jnp.float32)))
    reach = reach.astype(jnp.int32)
    return down, reach, jnp.minimum(reach, sizes - 1 - radius)


def _shifted(
    table: jax.Array, level: jax.Array, down: jax.Array, right: jax.Array, side: int
) -> jax.Array:
    """[N, side, side]: each face's `table` level [N] read from (down, right) [N] on."""

    def one(levels: jax.Array, *start: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(levels, start, (1, side, side))[0]

    return jax.vmap(one)(table, level, down, right)


def _depth(matrix: jax.Array, region: int, resolution: int) -> tuple[jax.Array, jax.Array]:
    """(distance [S, S] to the face square's edge in face pixels, 0 outside; face px a pixel)."""
    rows, cols = affine_coordinates(matrix, region, region)
    nearest = jnp.minimum(jnp.minimum(rows, cols), resolution - 1 - jnp.maximum(rows, cols))
    scale = jnp.sqrt(jnp.abs(jnp.linalg.det(matrix[:, :2])))
    return jnp.maximum(nearest + 0.5, 0.0), scale


def outline_masks(points: np.ndarray, resolution: int, keep: tuple[str, ...]) -> np.ndarray:
    """uint8 [R, R, 3] of dst's face: 255 inside the hull of `points`; where dst is kept; and where
    its eyes and mouth are.

    `points` [68, 2] are landmarks in pixels of the face, `keep` some of `KEPT`. Features have a
    soft edge of their own, inside of which they are 255.
    """
    small, size = (resolution, resolution), resolution * FINER

    def at(size: int) -> np.ndarray:  # pixel edges, not centres, stay put
        scale = size / resolution
        return points * scale + (scale - 1) / 2

    hull = face_mask(at(size), size, size)
    masks = [cv2.resize(hull, small, interpolation=cv2.INTER_AREA)]
    for names in (keep, KEPT):
        # Their edges are soft: a small picture of them is enough.
        features = np.zeros((FEATURES_SIDE, FEATURES_SIDE), np.uint8)
        if names:
            features = feature_mask(at(FEATURES_SIDE), *features.shape, names)
            features = cv2.GaussianBlur(features, (0, 0), FEATHER * FEATURES_SIDE)
        shrink = resolution < FEATURES_SIDE
        way = cv2.INTER_AREA if shrink else cv2.INTER_CUBIC
        masks.append(cv2.resize(features, small, interpolation=way))
    return np.stack(masks, -1)
