"""Frames made smaller for detectors that would take seconds over a large one."""

import cv2
import numpy as np


def reduced(image: np.ndarray, max_side: int) -> tuple[np.ndarray, float]:
    """`image` (uint8 [H,W,3]) with its longer side at most `max_side` pixels, and by what scale.

    Averaged by area. Box edges and points of the result, divided by the scale, are those of
    `image`; this counts pixels from the picture's edge and is off by less than half a pixel of
    the smaller picture.
    """
    height, width, _ = image.shape
    scale = min(1.0, max_side / max(height, width))
    if scale == 1:
        return image, scale
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), scale
