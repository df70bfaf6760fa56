"""Cutting an affinely placed square out of a picture on the host, without aliasing."""

import math

import cv2
import numpy as np


def crop_face(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """`image` (uint8 [H,W,3]) as [size,size,3]; `matrix` [2,3] maps its points to the square's.

    Lanczos where the square is as fine as the picture or finer; where it is coarser, the square is
    drawn a whole number of times larger and averaged down. Beyond the picture its edge is repeated.
    """
    reduction = max(1, math.ceil(_coarseness(matrix) - 1e-3))
    large = matrix * reduction
    large[:, 2] += (reduction - 1) / 2  # integer coordinates are pixel centres
    square = cv2.warpAffine(
        image,
        large,
        (size * reduction, size * reduction),
        flags=cv2.INTER_LANCZOS4 if reduction == 1 else cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if reduction == 1:
        return square
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA)


def crop_face_fast(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """The same square, bilinear; where it is coarser, from a picture that is averaged down first.

    A whole number of times, so that fewer than two of its pixels, each way, go into one of the
    square: good enough to find a face in, at a third of the time or less.
    """
    reduction = max(1, math.floor(_coarseness(matrix)))
    if reduction > 1:
        image, to_picture = _averaged_down(image, matrix, size, reduction)
        matrix = matrix @ to_picture
    return cv2.warpAffine(
        image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def _averaged_down(
    image: np.ndarray, matrix: np.ndarray, size: int, step: int
) -> tuple[np.ndarray, np.ndarray]:
    """(what the square needs of `image`, `step` times smaller; matrix [3,3] from its points back).

    Taken are multiples of `step`, which are averaged fastest, except at the edge of the picture.
    """
    ends = np.array([[x, y, 1] for x in (-1, size) for y in (-1, size)])
    reach = ends @ cv2.invertAffineTransform(matrix).T
    limit = np.array(image.shape[1::-1])
    low = np.clip(np.floor(reach.min(axis=0)).astype(int) - step, 0, limit - 1)
    high = np.clip(np.ceil(reach.max(axis=0)).astype(int) + step + 1, low + 1, limit)
    high -= np.where((high < limit) & (high - low > step), (high - low) % step, 0)
    part = image[low[1] : high[1], low[0] : high[0]]
    pixels = np.maximum((high - low) // step, 1)
    small = cv2.resize(part, pixels.tolist(), interpolation=cv2.INTER_AREA)
    (x, y), (left, top) = (high - low) / pixels, low
    return small, np.array([[x, 0, left + (x - 1) / 2], [0, y, top + (y - 1) / 2], [0, 0, 1]])


def _coarseness(matrix: np.ndarray) -> float:
    """Pixels of the picture for one of the square, along a side."""
    return 1 / math.sqrt(abs(np.linalg.det(matrix[:, :2])))
