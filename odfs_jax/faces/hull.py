"""Masks made of the 68 points: filled convex hulls of the face, its eyes and its mouth."""

from collections.abc import Iterable

import cv2
import numpy as np

# The face, by docs/reference_2018.md section 2: cheeks and mouth, nose, brows. Their union is not
# convex.
HULLS = (
    (*range(0, 17), *range(48, 68)),
    (*range(27, 31), 33),
    (*range(17, 27), 0, 27, 16, 33),
)
EYES = (range(36, 42), range(42, 48))
MOUTH = (range(48, 68),)
EYES_MOUTH = (*EYES, *MOUTH)
FEATURES = {"eyes": EYES, "mouth": MOUTH}
EYE_CORNERS = (36, 45)  # the outer ones
BROWS = tuple(range(17, 27))
BELOW_BROWS = (36, 36, 37, 38, 39, 42, 43, 44, 45, 45)  # the point of the eye under each of them
BROWS_RAISED = 0.5  # of the way from the eye to the brow: points lie on brows, not above them
MARGIN = 0.08  # of the corners' distance: lids and lips reach beyond their points


def face_mask(landmarks: np.ndarray, height: int, width: int, *, brows: bool = False) -> np.ndarray:
    """uint8 [height, width]: 255 inside the face with `landmarks` [68, 2] (pixels), 0 outside.

    The face ends at the points of the brows, as in the 2018 program, which cuts through the hair of
    the brows. With `brows` it reaches over them.
    """
    mask = _filled(landmarks, HULLS, height, width)
    if brows:
        raised = landmarks.copy()
        above = landmarks[list(BROWS)] - landmarks[list(BELOW_BROWS)]
        raised[list(BROWS)] += BROWS_RAISED * above
        mask |= _filled(raised, HULLS, height, width)
    return mask


def eyes_mask(landmarks: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [height, width]: 255 inside the eyes of `landmarks` [68, 2] (pixels), 0 elsewhere."""
    return _filled(landmarks, EYES, height, width)


def eyes_mouth_mask(landmarks: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [height, width]: 255 on eyes, mouth and a margin around each, 0 elsewhere.

    `landmarks` are [68, 2] pixels. The margin is MARGIN of the distance of the outer eye corners,
    and ends where the face mask does.
    """
    return feature_mask(landmarks, height, width, tuple(FEATURES))


def feature_mask(
    landmarks: np.ndarray, height: int, width: int, names: Iterable[str]
) -> np.ndarray:
    """uint8 [height, width]: 255 on the features called `names` and a margin around each, else 0.

    `landmarks` are [68, 2] pixels, `names` keys of FEATURES. The margin is MARGIN of the distance
    of the outer eye corners, and ends where the face mask does.
    """
    hulls = [hull for name in names for hull in FEATURES[name]]
    mask = _filled(landmarks, hulls, height, width)
    left, right = landmarks[list(EYE_CORNERS)]
    radius = int(np.clip(MARGIN * np.linalg.norm(right - left), 1, height))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return cv2.dilate(mask, disc) & face_mask(landmarks, height, width)


def _filled(
    landmarks: np.ndarray, hulls: Iterable[Iterable[int]], height: int, width: int
) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    points = np.rint(landmarks).astype(np.int32)
    for hull in hulls:
        cv2.fillConvexPoly(mask, cv2.convexHull(points[list(hull)]), 255)
    return mask
