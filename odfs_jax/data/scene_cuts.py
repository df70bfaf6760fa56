"""Whether two frames of a clip belong to one shot."""

import numpy as np

CUT = 32.0  # mean difference of two frames' pixels, of 255, above which they are two shots
SPARSE = 32  # rows and columns of a frame that are compared


def sparse(image: np.ndarray) -> np.ndarray:
    """float32 [h, w, 3]: some of the pixels of `image` uint8 [H, W, 3], for `is_cut`."""
    steps = (max(1, size // SPARSE) for size in image.shape[:2])
    return image[tuple(slice(None, None, step) for step in steps)].astype(np.float32)


def is_cut(before: np.ndarray, after: np.ndarray) -> bool:
    """True when two `sparse` frames are of two shots."""
    return before.shape != after.shape or float(np.abs(after - before).mean()) > CUT
