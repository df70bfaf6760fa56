"""Training samples, made on the device: transform, warp and cut in one resampling. Spec section 6.

Coordinates run from the model's pixels back to the stored picture: out of the cut, out of the
transform, through the warp. The picture is then read once, bilinearly. Keys come first.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from odfs_jax.faces.warp import affine_coordinates, bilinear

CELLS = (2, 4, 8)  # the warp grid has cells of width/2, /4 or /8, one at random
NODES = CELLS[-1] + 1
TRUNCATE = 2.5  # sigmas


def sample(
    key: jax.Array, image: jax.Array, cut: jax.Array, *, resolution: int, settings: Mapping
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One training sample of a stored face.

    `image` is uint8 [S, S, 3 + M] (RGB and masks, the hull's first), `cut` [2, 3] maps model pixels
    to stored ones, `settings` is an `AugmentConfig`. Returns (warped face [R,R,3], face [R,R,3],
    masks [R,R,M]), float32 in [0, 1]: the network sees the first and must give back the others.
    """
    size = image.shape[0]
    key_transform, key_warp, key_flip, key_light = jax.random.split(key, 4)
    flip = jax.random.bernoulli(key_flip, settings["flip"])
    rows, cols = affine_coordinates(_flipped(cut, flip, resolution), resolution, resolution)
    matrix = random_transform(key_transform, size, settings)
    rows, cols = (
        matrix[1, 0] * cols + matrix[1, 1] * rows + matrix[1, 2],
        matrix[0, 0] * cols + matrix[0, 1] * rows + matrix[0, 2],
    )
    grid = random_grid(key_warp, settings["warp"])
    picture = image.astype(jnp.float32) / 255
    true = bilinear(picture, rows, cols)
    warped = bilinear(picture[..., :3], *warp_coordinates(grid, rows, cols, size))
    light = random_light(key_light, resolution, settings)
    return jnp.minimum(warped * light, 1), jnp.minimum(true[..., :3] * light, 1), true[..., 3:]


def random_light(key: jax.Array, resolution: int, settings: Mapping) -> jax.Array:
    """Factors [R, R, 3] of a random tint and of light that falls off across the picture.

    Not in the 2018 program: where src and dst were filmed in different light, the encoder can tell
    them apart by colour alone, and the swap suffers. `settings` gives `color` and `light`.
    """
    key_color, key_light = jax.random.split(key)
    tint = jnp.exp(settings["color"] * jax.random.uniform(key_color, (1, 1, 3), minval=-1.0))
    overall, down, right = settings["light"] * jax.random.uniform(key_light, (3,), minval=-1.0)
    place = jnp.linspace(-1.0, 1.0, resolution)
    fall = overall + down * place[:, None] + right * place[None, :]
    return tint * jnp.exp(fall)[..., None]


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


def _flipped(cut: jax.Array, flip: jax.Array, resolution: int) -> jax.Array:
    """`cut` read from right to left when `flip`."""
    mirrored = jnp.stack([-cut[:, 0], cut[:, 1], cut[:, 2] + (resolution - 1) * cut[:, 0]], axis=1)
    return jnp.where(flip, mirrored, cut)


def _enlarge(cells: int) -> jax.Array:
    """Matrix [9, cells + 1] of linear interpolation between `cells` + 1 nodes."""
    position = jnp.linspace(0, cells, NODES)[:, None]
    return jnp.maximum(0, 1 - jnp.abs(position - jnp.arange(cells + 1.0)[None, :]))
