"""Where dst's own points say that its face, its eyes and its mouth are, for the merge's masks."""

import cv2
import numpy as np

from odfs_jax.faces.hull import feature_mask, hull_mask

MASKS = ("predicted", "hull", "product", "sum")
KEPT = ("eyes", "mouth")
FINER = 4  # drawn larger and averaged down, so that outlines are smooth
FEATHER = 0.015  # of the face square's side: the gaussian at the edge of what dst keeps


def outlines(points: np.ndarray, resolution: int, keep: tuple[str, ...]) -> np.ndarray:
    """uint8 [R, R, 2]: 255 inside the hull of `points` [68, 2] face pixels; 255 where dst is kept.

    The second has a soft edge of its own, inside of which dst is kept fully.
    """
    size = resolution * FINER
    fine = points * FINER + (FINER - 1) / 2  # pixel edges, not centres, stay put
    masks = [hull_mask(fine, size, size)]
    kept = feature_mask(fine, size, size, keep) if keep else np.zeros((size, size), np.uint8)
    masks.append(cv2.GaussianBlur(kept, (0, 0), FEATHER * size) if keep else kept)
    small = (resolution, resolution)
    return np.stack([cv2.resize(m, small, interpolation=cv2.INTER_AREA) for m in masks], -1)
