"""Training samples, made on the device: transform, warp and cut in one resampling.

Source: docs/reference_2018.md section 6.

Coordinates run from a view's pixels back to the stored picture: out of the cut, out of the
transform, through the warp. For each picture the stored one is then read once, bilinearly. All
views of a face get the same transform, mirroring and light. Keys come first.
"""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from odfs_jax.faces.affine import jnp_compose
from odfs_jax.faces.spec import FaceSpec
from odfs_jax.faces.warp import affine_coordinates, bilinear, pixel_means

CELLS = (2, 4, 8)  # the warp grid has cells of width/2, /4 or /8, one at random
NODES = CELLS[-1] + 1
TRUNCATE = 2.5  # sigmas


def sample(
    key: jax.Array,
    image: jax.Array,
    cut: jax.Array,
    *,
    seen: FaceSpec,
    rebuilt: Mapping[str, FaceSpec],
    settings: Mapping,
) -> tuple[jax.Array, dict[str, tuple[jax.Array, jax.Array]]]:
    """One training sample of a stored face: what the network sees, and what it must give back.

    `image` is uint8 [S, S, 3 + M] (RGB and masks, the hull's first), `cut` [2, 3] maps the pixels
    of `seen` to stored ones, `settings` is an `AugmentConfig`. Returns the warped face [R,R,3] as
    `seen` and, by the names of `rebuilt`, the face as each view gives it out [R,R,C] with its masks
    [R,R,M]; float32 in [0, 1].
    """
    size = image.shape[0]
    key_transform, key_warp, key_flip, key_light = jax.random.split(key, 4)
    flip = jax.random.bernoulli(key_flip, settings["flip"])
    cut = jnp.where(flip, mirrored(cut, seen.resolution), cut)
    to_stored = jnp_compose(random_transform(key_transform, size, settings), cut)
    grid = random_grid(key_warp, settings["warp"])
    light = random_light(key_light, seen, settings)
    picture = image.astype(jnp.float32) / 255
    finest = max(view.face_side for view in (seen, *rebuilt.values()))

    def face(view: FaceSpec, warp: bool) -> tuple[jax.Array, jax.Array]:
        """(RGB [R,R,3], masks [R,R,M]) of `view`, read once from the stored picture."""
        reads = math.ceil(finest / view.face_side - 1e-6)  # coarse beside the finest: average
        matrix = jnp_compose(to_stored, jnp.asarray(seen.matrix_from(view)))
        places = affine_coordinates(matrix, view.resolution, view.resolution, reads)
        if warp:
            places = warp_coordinates(grid, *places, size)
        layers = pixel_means(bilinear(picture[..., :3] if warp else picture, *places), reads)
        return jnp.minimum(layers[..., :3] * light(view), 1), layers[..., 3:]

    shown = seen.to_input(face(seen, warp=True)[0])
    true = {name: (view, *face(view, warp=False)) for name, view in rebuilt.items()}
    return shown, {name: (view.to_target(rgb), masks) for name, (view, rgb, masks) in true.items()}


def at(settings: Mapping, step: jax.Array) -> dict:
    """`settings` (an `AugmentConfig`) as they are at iteration `step`, for `sample`.

    Where a warped face went is uncertain, and the network answers that with blur. Late in a run it
    has learnt what the warp is for, and `warp_until` ends it.
    """
    until = settings["warp_until"]
    warp = settings["warp"] if until is None else jnp.where(step < until, settings["warp"], 0.0)
    return {**settings, "warp": warp}


def random_light(
    key: jax.Array, seen: FaceSpec, settings: Mapping
) -> Callable[[FaceSpec], jax.Array]:
    """light(view): factors [R, R, 3] of a random tint and of light that falls off across `seen`.

    Not in the 2018 program: where src and dst were filmed in different light, the encoder can tell
    them apart by colour alone, and the swap suffers. `settings` gives `color` and `light`.
    """
    key_color, key_light = jax.random.split(key)
    tint = jnp.exp(settings["color"] * jax.random.uniform(key_color, (1, 1, 3), minval=-1.0))
    overall, fall_down, fall_right = settings["light"] * jax.random.uniform(
        key_light, (3,), minval=-1.0
    )

    def light(view: FaceSpec) -> jax.Array:
        to_seen = jnp.asarray(seen.matrix_from(view))
        places = affine_coordinates(to_seen, view.resolution, view.resolution)
        down, right = (2 * place / (seen.resolution - 1) - 1 for place in places)  # -1 to 1
        return tint * jnp.exp(overall + fall_down * down + fall_right * right)[..., None]

    return light


def random_transform(key: jax.Array, size: int, settings: Mapping) -> jax.Array:
    """Matrix [2, 3] of a random rotation, scale and shift about the middle of `size` pixels."""
    angle, scale, right, down = jax.random.uniform(key, (4,), minval=-1.0)
    angle = jnp.deg2rad(settings["rotation"]) * angle
    scale = 1 + settings["scale"] * scale
    cos, sin = jnp.cos(angle) / scale, jnp.sin(angle) / scale
    middle = (size - 1) / 2
    shift = settings["shift"] * size
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


def mirrored(cut: jax.Array, resolution: int) -> jax.Array:
    """`cut` [2, 3] of a picture `resolution` pixels wide, read from right to left."""
    return jnp.stack([-cut[:, 0], cut[:, 1], cut[:, 2] + (resolution - 1) * cut[:, 0]], axis=1)


def _enlarge(cells: int) -> jax.Array:
    """Matrix [9, cells + 1] of linear interpolation between `cells` + 1 nodes."""
    position = jnp.linspace(0, cells, NODES)[:, None]
    return jnp.maximum(0, 1 - jnp.abs(position - jnp.arange(cells + 1.0)[None, :]))
