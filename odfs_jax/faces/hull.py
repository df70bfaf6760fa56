"""The face's outline from its 68 points: three convex hulls, filled."""

import cv2
import numpy as np

# Shared spec section 2. The union of the three is not convex: cheeks, nose, brows.
HULLS = (
    (*range(0, 17), *range(48, 68)),
    (*range(27, 31), 33),
    (*range(17, 27), 0, 27, 16, 33),
)


def hull_mask(landmarks: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [height, width], 255 inside the face hull of `landmarks` [68, 2] pixels, 0 outside."""
    mask = np.zeros((height, width), np.uint8)
    points = np.rint(landmarks).astype(np.int32)
    for hull in HULLS:
        cv2.fillConvexPoly(mask, cv2.convexHull(points[list(hull)]), 255)
    return mask
