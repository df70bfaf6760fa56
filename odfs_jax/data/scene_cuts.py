"""Cuts between shots: whether two frames of a clip belong to different ones."""

import numpy as np

CUT_THRESHOLD = 32.0  # mean difference of the pixels of two frames, of 255, that means a cut
SAMPLES = 32  # rows and columns of a frame that are compared, about


def subsampled(image: np.ndarray) -> np.ndarray:
    """Every n-th pixel of `image` uint8 [H, W, 3] as float32 [h, w, 3], for `is_scene_cut`.

    h and w are between SAMPLES and 2 SAMPLES where the image has that many pixels.
    """
    steps = (max(1, size // SAMPLES) for size in image.shape[:2])
    return image[tuple(slice(None, None, step) for step in steps)].astype(np.float32)


def is_scene_cut(before: np.ndarray, after: np.ndarray) -> bool:
    """True when two `subsampled` frames, float32 [h, w, 3], are of different shots."""
    return before.shape != after.shape or float(np.abs(after - before).mean()) > CUT_THRESHOLD
