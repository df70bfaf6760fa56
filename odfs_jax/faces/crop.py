"""Faces cropped out of pictures on the host, without aliasing."""

import math

import cv2
import numpy as np


def crop_face(image: np.ndarray, face_from_image: np.ndarray, size: int) -> np.ndarray:
    """The square uint8 [size,size,3] that a matrix [2,3] places in `image` (uint8 [H,W,3]).

    Lanczos where the square is as fine as the image or finer. A coarser square is drawn a whole
    number of times larger, bilinear, and averaged down. Beyond the image its edge is repeated.
    """
    reduction = max(1, math.ceil(_coarseness(face_from_image) - 1e-3))
    large = face_from_image * reduction
    large[:, 2] += (reduction - 1) / 2  # integer coordinates are pixel centers
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


def crop_face_fast(image: np.ndarray, face_from_image: np.ndarray, size: int) -> np.ndarray:
    """The square [size,size,3] that a matrix [2,3] places in `image` (uint8 [H,W,3]), bilinear.

    Where the square is coarser than the image, the image is first averaged down a whole number of
    times, so that fewer than two of its pixels, each way, make one of the square. Good enough to
    find a face in, at a third of `crop_face`'s time or less. Beyond the image its edge is repeated.
    """
    reduction = max(1, math.floor(_coarseness(face_from_image)))
    if reduction > 1:
        image, image_from_small = _averaged_down(image, face_from_image, size, reduction)
        face_from_image = face_from_image @ image_from_small
    return cv2.warpAffine(
        image,
        face_from_image,
        (size, size),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _averaged_down(
    image: np.ndarray, face_from_image: np.ndarray, size: int, step: int
) -> tuple[np.ndarray, np.ndarray]:
    """(the part of `image` that the square needs, `step` times smaller; image_from_small [3,3]).

    The part is a multiple of `step` wide and high, which is averaged fastest, except at the edge of
    the image.
    """
    ends = np.array([[x, y, 1] for x in (-1, size) for y in (-1, size)])
    reach = ends @ cv2.invertAffineTransform(face_from_image).T
    limit = np.array(image.shape[1::-1])
    low = np.clip(np.floor(reach.min(axis=0)).astype(int) - step, 0, limit - 1)
    high = np.clip(np.ceil(reach.max(axis=0)).astype(int) + step + 1, low + 1, limit)
    high -= np.where((high < limit) & (high - low > step), (high - low) % step, 0)
    part = image[low[1] : high[1], low[0] : high[0]]
    pixels = np.maximum((high - low) // step, 1)
    small = cv2.resize(part, pixels.tolist(), interpolation=cv2.INTER_AREA)
    (x, y), (left, top) = (high - low) / pixels, low
    return small, np.array([[x, 0, left + (x - 1) / 2], [0, y, top + (y - 1) / 2], [0, 0, 1]])


def _coarseness(face_from_image: np.ndarray) -> float:
    """Image pixels for one pixel of the square, along a side."""
    return 1 / math.sqrt(abs(np.linalg.det(face_from_image[:, :2])))
