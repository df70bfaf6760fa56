"""Boxes of the detector: overlap, suppression, correction. float32 [n, 4]: x1, y1, x2, y2."""

from collections.abc import Callable

import numpy as np

PAIRED = 128  # boxes that are compared with all others at once

Overlap = Callable[[np.ndarray, np.ndarray], np.ndarray]


def union_overlap(box: np.ndarray, others: np.ndarray, margin: int = 0) -> np.ndarray:
    """Intersection over union of `box` [..., 4] with `others` [..., 4].

    With `margin` 1 both ends of a box count as inside it.
    """
    shared = _intersection(box, others, margin)
    return shared / (_area(box, margin) + _area(others, margin) - shared)


def smaller_overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection of both [..., 4] over the smaller area; both ends of a box count as inside."""
    shared = _intersection(box, others, 1)
    return shared / np.minimum(_area(box, 1), _area(others, 1))


def suppress(
    boxes: np.ndarray, scores: np.ndarray, limit: float, overlap: Overlap = union_overlap
) -> np.ndarray:
    """Indices of the boxes that stay, best first: of two that overlap above `limit`, the better."""
    order = np.argsort(-scores, kind="stable")
    kept = []
    while len(order):
        # All pairs of the best at once: a call of NumPy for each box would take most of the time.
        first = boxes[order[:PAIRED]]
        clear = overlap(first[:, None], boxes[order]) <= limit
        alive = np.ones(len(order), bool)
        for i in range(len(first)):
            if alive[i]:
                kept.append(order[i])
                alive &= clear[i]
        order = order[PAIRED:][alive[PAIRED:]]
    return np.array(kept, np.int64)


def square(boxes: np.ndarray) -> np.ndarray:
    """Squares [n, 4] around the same centers, with the longer side of each box."""
    size = boxes[:, 2:] - boxes[:, :2]
    side = size.max(axis=1, keepdims=True)
    corner = boxes[:, :2] + size * 0.5 - side * 0.5
    return np.concatenate([corner, corner + side], axis=1)


def shift_edges(boxes: np.ndarray, offsets: np.ndarray, margin: float) -> np.ndarray:
    """`boxes` with each edge moved by its offset [n, 4], a share of (width or height + margin)."""
    size = boxes[:, 2:] - boxes[:, :2] + np.float32(margin)
    return boxes + offsets * np.concatenate([size, size], axis=1)


def pixel_rects(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """int32 (left, top, right, bottom), the ends exclusive, clipped to the frame.

    The networks count pixels from 1, as their Matlab originals did. A rectangle that lies outside
    comes back empty.
    """
    rects = np.trunc(boxes).astype(np.int32)
    low = np.maximum(rects[:, :2] - 1, 0)
    return np.concatenate([low, np.minimum(rects[:, 2:], (width, height))], axis=1, dtype=np.int32)


def _intersection(box: np.ndarray, others: np.ndarray, margin: int) -> np.ndarray:
    low = np.maximum(box[..., :2], others[..., :2])
    high = np.minimum(box[..., 2:], others[..., 2:])
    return np.maximum(high - low + margin, 0).prod(axis=-1)


def _area(boxes: np.ndarray, margin: int) -> np.ndarray:
    return (boxes[..., 2:] - boxes[..., :2] + margin).prod(axis=-1)
