"""Training samples, made on the device: transform, warp and crop in one resampling.

Source: docs/reference_2018.md section 6.

Coordinates run from the pixels that a network takes or gives back to those of the stored picture:
by its crop, by the random transform, through the warp. For each picture the stored one is then read
once, bilinearly. All pictures of a face get the same transform, mirroring and light. Keys come
first.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from odfs_jax.errors import UserError
from odfs_jax.faces.affine import jnp_compose
from odfs_jax.faces.colors import TRANSFERS
from odfs_jax.faces.jpeg import BLOCK, LUMA_QUANTA, cosines
from odfs_jax.faces.spec import LUMA, FaceSpec
from odfs_jax.faces.warp import affine_coordinates, bilinear, pixel_means, warp_affine

CELLS = (2, 4, 8)  # the warp grid has cells of width/2, /4 or /8, one at random
NODES = CELLS[-1] + 1
TRUNCATE = 2.5  # sigmas
HSV_DRAWS, LOSS_DRAWS = 4, 5  # folded into a sample's key; 0 to 3 are what it is split into
TRANSFORM = ("rotation", "scale", "shift")  # settings of `random_transform`
COLOR_TRANSFERS = ("none", "rct", "lct", "mkl", "idt", "sot")
MEASURED_AT = 64  # pixels of a face whose colors are measured
LOSSES = ("blur", "shrink", "noise", "jpeg")  # settings by which an input gets worse, in this order
# Of chroma at quality 50: ITU T.81, table K.2.
CHROMA_QUANTA = np.full((BLOCK, BLOCK), 99, np.float32)
CHROMA_QUANTA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
BLUE, RED = 0.564, 0.713  # chroma of a difference to luma: ITU T.871

# (the stored face, its store_from_model, how the network takes it in), as in `sample`
Stored = tuple[jax.Array, jax.Array, FaceSpec]


def sample(
    key: jax.Array,
    image: jax.Array,
    store_from_model: jax.Array,
    *,
    input_spec: FaceSpec,
    target_specs: Mapping[str, FaceSpec],
    masks: Sequence[str],
    augment_cfg: Mapping,
    lender: Stored | None = None,
) -> tuple[jax.Array, dict[str, dict[str, jax.Array]]]:
    """One training sample of a stored face: the network's input, and what it must give back.

    Args:
        key: decides everything that is random.
        image: the stored face, uint8 [S, S, 3 + M]: RGB, then a channel for each of `masks`.
        store_from_model: [2, 3], maps the pixels of `input_spec` to those of `image`.
        input_spec: the picture that the network takes.
        target_specs: the pictures that it must give back, by name.
        masks: the names of the M masks, "mask" and "eyes_mouth" say.
        augment_cfg: an `AugmentConfig` as `at` and `of_side` give it.
        lender: another face, with masks likewise, whose colors this one takes on.

    Returns the warped face [R, R, 3], and for each name of `target_specs` the face that was not
    warped, {"face": [R, R, 1 or 3], and each of `masks`: [R, R, 1]}; float32 in [0, 1].
    """
    size = image.shape[0]
    own = image, store_from_model, input_spec
    recolor = None if lender is None else recoloring(augment_cfg, own, lender, masks.index("mask"))
    store_from_model, grid, light = draw(key, store_from_model, size, input_spec, augment_cfg)
    picture = image.astype(jnp.float32) / 255
    finest = max(spec.face_side for spec in (input_spec, *target_specs.values()))

    def read(spec: FaceSpec, warp: bool) -> tuple[jax.Array, jax.Array]:
        """(RGB [R, R, 3], masks [R, R, M], none with the warp), read once from the stored one."""
        reads = math.ceil(finest / spec.face_side - 1e-6)  # coarse beside the finest: average
        matrix = jnp_compose(store_from_model, jnp.asarray(input_spec.matrix_from(spec)))
        places = affine_coordinates(matrix, spec.resolution, spec.resolution, reads)
        if warp:
            places = warp_coordinates(grid, *places, size)
        layers = pixel_means(bilinear(picture[..., :3] if warp else picture, *places), reads)
        face = layers[..., :3] if recolor is None else recolor(layers[..., :3])
        return jnp.minimum(face * light(spec), 1), layers[..., 3:]

    warped, _ = read(input_spec, warp=True)
    if augment_cfg["hsv"]:  # a key of its own, so that all else is drawn as without it
        warped = random_hsv(jax.random.fold_in(key, HSV_DRAWS), warped, augment_cfg["hsv"])
    if any(augment_cfg[name] for name in LOSSES):
        warped = degraded(jax.random.fold_in(key, LOSS_DRAWS), warped, augment_cfg)
    targets = {}
    for name, spec in target_specs.items():
        face, areas = read(spec, warp=False)
        layers = {mask: areas[..., i : i + 1] for i, mask in enumerate(masks)}
        targets[name] = {"face": spec.to_target(face)} | layers
    return input_spec.to_input(warped), targets


def sample_with_mask(
    key: jax.Array,
    image: jax.Array,
    store_from_model: jax.Array,
    *,
    spec: FaceSpec,
    augment_cfg: Mapping,
) -> tuple[jax.Array, jax.Array]:
    """One training sample of a stored face for a mask network: (face [R,R,3], mask [R,R,1]).

    Both are warped, and read once. `image` is uint8 [S, S, 4], RGB and mask; all else is as in
    `sample`.
    """
    size = image.shape[0]
    matrix, grid, light = draw(key, store_from_model, size, spec, augment_cfg)
    places = affine_coordinates(matrix, spec.resolution, spec.resolution)
    layers = bilinear(image.astype(jnp.float32) / 255, *warp_coordinates(grid, *places, size))
    face = layers[..., :3] * light(spec)
    if augment_cfg["hsv"]:
        face = random_hsv(jax.random.fold_in(key, HSV_DRAWS), face, augment_cfg["hsv"])
    return jnp.clip(face, 0, 1), layers[..., 3:]


def draw(
    key: jax.Array, store_from_model: jax.Array, size: int, spec: FaceSpec, augment_cfg: Mapping
) -> tuple[jax.Array, jax.Array, Callable[[FaceSpec], jax.Array]]:
    """What is random about where a stored face of `size` pixels is read, and about its light.

    Returns (the matrix [2, 3] from pixels of `spec` to stored ones, mirrored or not and moved, the
    warp as `random_grid`, the light as `random_light`).
    """
    key_transform, key_warp, key_flip, key_light = jax.random.split(key, 4)
    flip = jax.random.bernoulli(key_flip, augment_cfg["flip"])
    turned = jnp.where(flip, mirror(store_from_model, spec.resolution), store_from_model)
    matrix = jnp_compose(random_transform(key_transform, size, augment_cfg), turned)
    grid = random_grid(key_warp, augment_cfg["warp"])
    return matrix, grid, random_light(key_light, spec, augment_cfg)


def at(augment_cfg: Mapping, step: jax.Array) -> dict:
    """An `AugmentConfig` as it is at iteration `step`: see `warp_until` and `transform_until`.

    Where a warped face went is uncertain, and the network answers that with blur. Late in a run it
    has learned what the warp is for, and a run without it sharpens. So it is with faces that are
    turned, scaled and moved; and where they no longer are, a network does not take dst's features,
    which lie a little lower than src's, for src's face moved down.
    """

    def strength(name: str, until: int | None) -> float | jax.Array:
        value = augment_cfg[name]
        return value if until is None else jnp.where(step < until, value, 0.0)

    until = dict.fromkeys(TRANSFORM, augment_cfg["transform_until"])
    until["warp"] = augment_cfg["warp_until"]
    return {**augment_cfg, **{name: strength(name, end) for name, end in until.items()}}


def unchanged(augment_cfg: Mapping) -> dict:
    """An `AugmentConfig` that leaves faces as they are stored."""
    amounts = dict.fromkeys(augment_cfg, 0.0)
    return amounts | {"warp_until": None, "transform_until": None, "color_transfer": "none"}


def of_side(augment_cfg: Mapping, side: str) -> dict:
    """An `AugmentConfig` as it is for the faces of "src" or "dst"."""
    flip = augment_cfg[f"flip_{side}"]
    return {
        **augment_cfg,
        "flip": augment_cfg["flip"] if flip is None else flip,
        "hsv": augment_cfg["hsv"] if side == "src" else 0.0,
        "color_transfer": augment_cfg["color_transfer"] if side == "src" else "none",
    }


def check_colors(augment_cfg: Mapping) -> None:
    """Raises UserError when `color_transfer` of an `AugmentConfig` names none."""
    if (name := augment_cfg["color_transfer"]) not in COLOR_TRANSFERS:
        expected = ", ".join(COLOR_TRANSFERS)
        raise UserError(f"augment.color_transfer={name}: expected one of {expected}")


def recoloring(
    augment_cfg: Mapping, own: Stored, lender: Stored, mask: int
) -> Callable[[jax.Array], jax.Array]:
    """move(picture [H, W, 3]): `picture`, a part of `own`, in the colors of the face `lender`.

    Measured where both are face; their masks are channel 3 + `mask`. So the network learns src's
    face in dst's light and skin, and the swap needs less of a color transfer.
    """
    transfer = TRANSFERS[augment_cfg["color_transfer"]]
    faces = []
    for image, store_from_model, spec in (own, lender):
        model_from_small = spec.matrix_from(FaceSpec(spec.face_type, MEASURED_AT))
        matrix = jnp_compose(store_from_model, jnp.asarray(model_from_small))
        picture = image.astype(jnp.float32) / 255
        faces.append(warp_affine(picture, matrix, MEASURED_AT, MEASURED_AT)[None])
    where = (faces[0] * faces[1])[..., 3 + mask : 4 + mask] > 0.5
    stats = transfer.measure(faces[0][..., :3], faces[1][..., :3], where)
    return lambda picture: transfer.apply(picture[None], stats)[0]


def degraded(key: jax.Array, picture: jax.Array, augment_cfg: Mapping) -> jax.Array:
    """RGB `picture` [R, R, 3] in [0, 1], made as bad as an old or compressed clip is; in [0, 1].

    Of each of LOSSES that is above 0 a random share is taken, from nothing to all of it.
    """
    shares = jax.random.uniform(key, (len(LOSSES),))
    blur, shrink, noise, jpeg = (
        augment_cfg[name] * share for name, share in zip(LOSSES, shares, strict=True)
    )
    if augment_cfg["blur"]:
        picture = along_both(blurring(picture.shape[0], blur), picture)
    if augment_cfg["shrink"]:
        picture = along_both(shrinking(picture.shape[0], shrink), picture)
    if augment_cfg["noise"]:
        draws = jax.random.normal(jax.random.fold_in(key, 1), picture.shape)
        picture = jnp.clip(picture + noise * draws, 0, 1)
    return compressed(picture, 100 * (1 - jpeg)) if augment_cfg["jpeg"] else picture


def along_both(matrix: jax.Array, picture: jax.Array) -> jax.Array:
    """The columns and the rows of `picture` [R, R, C], each multiplied by `matrix` [R, R]."""
    return jnp.einsum("yh,hwc,xw->yxc", matrix, picture, matrix, precision="highest")


def blurring(size: int, sigma: jax.Array) -> jax.Array:
    """The matrix [size, size] of a gaussian blur by `sigma` pixels; beyond the ends is nothing."""
    pixel = jnp.arange(float(size))
    apart = pixel[:, None] - pixel[None, :]
    weights = jnp.exp(-0.5 * (apart / jnp.maximum(sigma, 1e-3)) ** 2)
    return weights / weights.sum(axis=1, keepdims=True)


def shrinking(size: int, share: jax.Array) -> jax.Array:
    """The matrix [size, size] that makes a line shorter by `share` of it, and long again.

    Shorter by means of the pixels that one stands for, longer linearly, as OpenCV's INTER_AREA and
    INTER_LINEAR do.
    """
    count = jnp.maximum(1.0, jnp.round(size * (1 - share)))
    factor, pixel = size / count, jnp.arange(float(size))
    first = pixel[:, None] * factor  # where each of the few pixels begins; those from `count` on
    ends = jnp.minimum(first + factor, pixel[None, :] + 1)  # are beyond the line, and empty
    down = jnp.maximum(0, ends - jnp.maximum(first, pixel[None, :])) / factor
    place = jnp.clip((pixel + 0.5) / factor - 0.5, 0, count - 1)
    up = jnp.maximum(0, 1 - jnp.abs(place[:, None] - pixel[None, :]))
    return jnp.matmul(up, down, precision="highest")


def compressed(picture: jax.Array, quality: jax.Array) -> jax.Array:
    """RGB `picture` [R, R, 3] in [0, 1] after JPEG of `quality` 1 to 100, R a multiple of 8.

    The quantization of ITU T.81's tables, scaled as libjpeg does; chroma is not halved.
    """
    size = picture.shape[0]
    luma = sum(weight * picture[..., i] for i, weight in enumerate(LUMA))
    planes = jnp.stack([luma, (picture[..., 2] - luma) * BLUE, (picture[..., 0] - luma) * RED])
    quality = jnp.clip(quality, 1, 100)
    scale = jnp.where(quality < 50, 50 / quality, 2 - quality / 50)
    tables = np.stack([LUMA_QUANTA, CHROMA_QUANTA, CHROMA_QUANTA])
    tables = jnp.clip(jnp.round(jnp.asarray(tables) * scale), 1, 255)[:, None, None]
    dct = jnp.asarray(cosines())
    level = jnp.array([128.0, 0, 0]).reshape(3, 1, 1, 1, 1)
    blocks = (255 * planes).reshape(3, size // BLOCK, BLOCK, size // BLOCK, BLOCK).swapaxes(
        2, 3
    ) - level
    waves = jnp.einsum("uy,pabyx,vx->pabuv", dct, blocks, dct, precision="highest")
    waves = jnp.round(waves / tables) * tables
    blocks = jnp.einsum("uy,pabuv,vx->pabyx", dct, waves, dct, precision="highest") + level
    luma, blue, red = blocks.swapaxes(2, 3).reshape(3, size, size) / 255
    r, b = luma + red / RED, luma + blue / BLUE
    g = (luma - LUMA[0] * r - LUMA[2] * b) / LUMA[1]
    return jnp.clip(jnp.stack([r, g, b], axis=-1), 0, 1)


def random_hsv(key: jax.Array, picture: jax.Array, strength: float) -> jax.Array:
    """RGB `picture` [H, W, 3] in [0, 1] in another hue, saturation and value, all its pixels alike.

    The hue turns by up to half a circle times `strength`, the others move by half of it. So the
    encoder learns src's face in the light of other clips; what is to be rebuilt stays as it is.
    """
    turn, more, brighter = strength / 2 * jax.random.uniform(key, (3,), minval=-1.0)
    r, g, b = (picture[..., i] for i in range(3))
    value, least = picture.max(-1), picture.min(-1)
    span = value - least
    divisor = jnp.where(span == 0, 1, span)
    sixth = jnp.where(value == r, (g - b) / divisor, (r - g) / divisor + 4)
    sixth = jnp.where((value == g) & (value != r), (b - r) / divisor + 2, sixth)
    saturation = jnp.clip(span / jnp.where(value == 0, 1, value) + more, 0, 1)
    value = jnp.clip(value + brighter, 0, 1)

    def channel(first: float) -> jax.Array:
        place = (first + sixth + 6 * turn) % 6
        return value * (1 - saturation * jnp.clip(jnp.minimum(place, 4 - place), 0, 1))

    return jnp.stack([channel(first) for first in (5.0, 3.0, 1.0)], axis=-1)


def random_light(
    key: jax.Array, input_spec: FaceSpec, augment_cfg: Mapping
) -> Callable[[FaceSpec], jax.Array]:
    """light(spec): factors [R, R, 3] of a random tint and of light that falls off over the face.

    Not in the 2018 program: where src and dst were filmed in different light, the encoder can tell
    them apart by color alone, and the swap suffers. `color` and `light` of `augment_cfg` are the
    strengths; the light runs from edge to edge of `input_spec`.
    """
    key_color, key_light = jax.random.split(key)
    tint = jnp.exp(augment_cfg["color"] * jax.random.uniform(key_color, (1, 1, 3), minval=-1.0))
    overall, fall_down, fall_right = augment_cfg["light"] * jax.random.uniform(
        key_light, (3,), minval=-1.0
    )

    def light(spec: FaceSpec) -> jax.Array:
        input_from_spec = jnp.asarray(input_spec.matrix_from(spec))
        places = affine_coordinates(input_from_spec, spec.resolution, spec.resolution)
        down, right = (2 * place / (input_spec.resolution - 1) - 1 for place in places)  # -1 to 1
        return tint * jnp.exp(overall + fall_down * down + fall_right * right)[..., None]

    return light


def random_transform(key: jax.Array, size: int, augment_cfg: Mapping) -> jax.Array:
    """Matrix [2, 3] of a random rotation, scale and shift about the middle of `size` pixels."""
    angle, scale, right, down = jax.random.uniform(key, (4,), minval=-1.0)
    angle = jnp.deg2rad(augment_cfg["rotation"]) * angle
    scale = 1 + augment_cfg["scale"] * scale
    cos, sin = jnp.cos(angle) / scale, jnp.sin(angle) / scale
    middle = (size - 1) / 2
    shift = augment_cfg["shift"] * size
    x = middle - cos * middle - sin * middle + shift * right
    y = middle + sin * middle - cos * middle + shift * down
    return jnp.stack([jnp.stack([cos, sin, x]), jnp.stack([-sin, cos, y])])


def random_grid(key: jax.Array, strength: float) -> jax.Array:
    """Shifts [9, 9, 2] (rows, cols) of the warp's nodes, in shares of the picture's width.

    A coarser grid is enlarged to nine nodes, which is exact for linear interpolation.
    """
    key_cells, *keys = jax.random.split(key, 1 + len(CELLS))
    grids = []
    for cells, k in zip(CELLS, keys, strict=True):
        normal = jax.random.truncated_normal(k, -TRUNCATE, TRUNCATE, (cells - 1, cells - 1, 2))
        inner = normal / TRUNCATE * (strength / cells)
        nodes = jnp.pad(inner, ((1, 1), (1, 1), (0, 0)))  # the border stays where it is
        lift = _enlarge(cells)
        grids.append(jnp.einsum("yi,ijc,xj->yxc", lift, nodes, lift, precision="highest"))
    return jnp.stack(grids)[jax.random.randint(key_cells, (), 0, len(CELLS))]


def warp_coordinates(
    grid: jax.Array, rows: jax.Array, cols: jax.Array, size: int
) -> tuple[jax.Array, jax.Array]:
    """(rows, cols) moved by the warp `grid` [9, 9, 2] of a `size` pixels wide picture."""
    per_cell = (NODES - 1) / (size - 1)
    shift = bilinear(grid, rows * per_cell, cols * per_cell) * size
    return rows + shift[..., 0], cols + shift[..., 1]


def mirror(store_from_model: jax.Array, resolution: int) -> jax.Array:
    """The matrix [2, 3] that reads a picture `resolution` pixels wide from right to left."""
    right, down, origin = store_from_model.T
    return jnp.stack([-right, down, origin + (resolution - 1) * right], axis=1)


def _enlarge(cells: int) -> jax.Array:
    """Matrix [9, cells + 1] of linear interpolation between `cells` + 1 nodes."""
    position = jnp.linspace(0, cells, NODES)[:, None]
    return jnp.maximum(0, 1 - jnp.abs(position - jnp.arange(cells + 1.0)[None, :]))
