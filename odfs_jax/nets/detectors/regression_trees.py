"""A cascade of regression trees that moves the points of a face into place.

Each stage reads some pixels near the points, lets every tree choose a leaf by comparing pairs of
them, and adds up the leaves. Source: Kazemi and Sullivan, "One millisecond face alignment with an
ensemble of regression trees", CVPR 2014. The arithmetic is that of dlib's `shape_predictor`, except
that points are not rounded to whole pixels.

Shapes are float32 [P,2,B]: P points (x, y), B starts, in units of each start's square. Starts are
the last axis, so that a vector unit takes them side by side.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Stages(NamedTuple):
    """T stages of F pixels and K trees with L leaves each, for P points.

    Splits and leaves are numbered row by row of a tree, left before right: split 0 is the root,
    splits 1 and 2 are below it. A face goes left where its first pixel minus its second is above
    the threshold.
    """

    anchors: jax.Array  # int32 [T, F]: the point that a pixel is read near ...
    offsets: jax.Array  # float32 [T, F, 2]: ... and how far from it, on the mean shape
    first: jax.Array  # int32 [T, (L-1) * K]: pixels that splits compare, split by split
    second: jax.Array  # int32 [T, (L-1) * K]
    thresholds: jax.Array  # float32 [T, L-1, K]
    leaves: jax.Array  # float32 [T, L * K, 2P]: steps (x, y) of all points, leaf by leaf


def refine(
    stages: Stages, mean: jax.Array, shapes: jax.Array, squares: jax.Array, pictures: jax.Array
) -> jax.Array:
    """`shapes` [P,2,B] moved by all `stages`.

    Args:
      stages: the trained cascade.
      mean: its mean shape [P,2].
      shapes: where the points are before, one shape a start.
      squares: [3,B], the left, top and side of each start's square in pixels.
      pictures: gray uint8 [N,H,W]; each belongs to B/N starts in a row. Pixels outside are 0.
    """

    def step(shapes: jax.Array, stage: Stages) -> tuple[jax.Array, None]:
        pixels = _read(stage, mean, shapes, squares, pictures)
        chosen = _chosen_leaves(stage, pixels)
        # A GPU's default (TF32) would move points by a thousandth of the square a stage.
        moves = jnp.matmul(stage.leaves.T, chosen, precision="highest")
        return shapes + moves.reshape(shapes.shape), None

    return lax.scan(step, shapes, stages)[0]


def placed(shapes: jax.Array, squares: jax.Array) -> jax.Array:
    """Shapes [P,2,B], in units of `squares` [3,B], as points [B,P,2] in pixels of pictures."""
    return (squares[None, :2] + shapes * squares[None, None, 2]).transpose(2, 0, 1)


def _read(
    stage: Stages, mean: jax.Array, shapes: jax.Array, squares: jax.Array, pictures: jax.Array
) -> jax.Array:
    """The pixels [F,B] that a stage compares, 0..255; where they are read turns with the shape."""
    count, height, width = pictures.shape
    cosine, sine = _similarity(mean, shapes)
    x, y = stage.offsets[:, 0, None], stage.offsets[:, 1, None]
    near = shapes[stage.anchors]
    left, top, side = squares[:, None]
    columns = left + (cosine * x - sine * y + near[:, 0]) * side
    rows = top + (sine * x + cosine * y + near[:, 1]) * side
    columns, rows = (jnp.floor(a + 0.5).astype(jnp.int32) for a in (columns, rows))
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    picture = jnp.repeat(jnp.arange(count, dtype=jnp.int32), shapes.shape[-1] // count)
    place = (picture[None] * height + rows) * width + columns
    values = pictures.reshape(-1)[jnp.where(inside, place, 0)].astype(jnp.float32)
    return jnp.where(inside, values, 0.0)


def _similarity(mean: jax.Array, shapes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(scale * cosine, scale * sine) [1,B] of the similarity that best maps `mean` to a shape."""
    centered = mean - mean.mean(axis=0, keepdims=True)
    away = shapes - shapes.mean(axis=0, keepdims=True)
    x, y = centered[:, 0, None], centered[:, 1, None]
    total = (centered**2).sum()
    cosine = (x * away[:, 0] + y * away[:, 1]).sum(axis=0, keepdims=True) / total
    sine = (x * away[:, 1] - y * away[:, 0]).sum(axis=0, keepdims=True) / total
    return cosine, sine


def _chosen_leaves(stage: Stages, pixels: jax.Array) -> jax.Array:
    """float32 [L*K, B]: 1 at the leaf that each tree chooses, else 0."""
    splits, trees = stage.thresholds.shape
    differences = pixels[stage.first] - pixels[stage.second]
    left = differences.reshape(splits, trees, -1) > stage.thresholds[..., None]
    reached = jnp.ones((1, *left.shape[1:]), bool)
    while len(reached) <= splits:  # row by row of a tree: whoever is at a split goes left or right
        row = left[len(reached) - 1 : 2 * len(reached) - 1]
        reached = jnp.stack([reached & row, reached & ~row], axis=1).reshape(-1, *left.shape[1:])
    return reached.reshape(-1, left.shape[-1]).astype(jnp.float32)
