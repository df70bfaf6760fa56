"""What JPEG does to 8 x 8 pixels. Source: ITU-T T.81, of which table K.1 is at quality 50."""

import numpy as np

BLOCK = 8  # pixels
LUMA_QUANTA = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)


def cosines() -> np.ndarray:
    """float32 [BLOCK, BLOCK]: the orthonormal cosine transform, a row for each frequency."""
    index = np.arange(BLOCK)
    waves = np.cos(np.pi * (2 * index[None, :] + 1) * index[:, None] / (2 * BLOCK)) / 2
    waves[0] /= np.sqrt(2)
    return waves.astype(np.float32)
