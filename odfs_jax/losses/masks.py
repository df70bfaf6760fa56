"""How well a mask fits: the loss that a mask network minimizes, and what its users are told.

Masks are float32 [N, H, W, 1] in [0, 1], 1 on the face.
"""

import jax
import jax.numpy as jnp

from odfs_jax.faces.warp import largest

TOLERANCE = 0.008  # of a picture's diagonal: how far off an outline may be (Perazzi et al. 2016)


def cross_entropy(logits: jax.Array, masks: jax.Array) -> jax.Array:
    """Binary cross-entropy of each mask, [N], in nats a pixel; it takes what the sigmoid would."""
    per_pixel = jnp.maximum(logits, 0) - logits * masks + jnp.log1p(jnp.exp(-jnp.abs(logits)))
    return per_pixel.mean((1, 2, 3))


def iou(found: jax.Array, masks: jax.Array) -> jax.Array:
    """Intersection over union of each pair, [N], both cut at a half; 1 where both are empty."""
    found, masks = found > 0.5, masks > 0.5
    both, either = (area.sum((1, 2, 3)) for area in (found & masks, found | masks))
    return jnp.where(either > 0, both / jnp.maximum(either, 1), 1.0)


def boundary_score(found: jax.Array, masks: jax.Array) -> jax.Array:
    """F-score of the outlines of each pair, [N], both cut at a half; 1 where both are empty.

    A pixel of one outline counts where the other has one within TOLERANCE, in a square. Source:
    Perazzi et al., "A benchmark dataset and evaluation methodology for video object segmentation",
    CVPR 2016.
    """
    reach = max(1, round(TOLERANCE * (masks.shape[1] ** 2 + masks.shape[2] ** 2) ** 0.5))
    edges = [_outline((area > 0.5).astype(jnp.float32)) for area in (found, masks)]
    shares = []
    for own, other in (edges, edges[::-1]):
        hit = (own * largest(other, 2 * reach + 1)).sum((1, 2, 3))
        count = own.sum((1, 2, 3))
        shares.append(jnp.where(count > 0, hit / jnp.maximum(count, 1), 0.0))
    empty = (edges[0] + edges[1]).sum((1, 2, 3)) == 0
    precision, recall = shares
    score = 2 * precision * recall / jnp.maximum(precision + recall, 1e-9)
    return jnp.where(empty, 1.0, score)


def _outline(area: jax.Array) -> jax.Array:
    """The pixels of `area` that have one beside them which is not of it."""
    return area * (1 - jnp.minimum(area, 1 - largest(1 - area, 3)))
