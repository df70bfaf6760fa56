"""Which part of an aligned picture is face: what somebody drew, or a network found, and stored.

What was drawn counts before what was found, and the hull of the points stands in for neither.
"""

import cv2
import numpy as np

from odfs_jax.data.aligned_png import MAX_MASK, FaceData
from odfs_jax.data.media import png
from odfs_jax.faces.hull import face_mask

BY_HAND = "hand"  # the maker of a mask that somebody painted; no network's, which has its step
FINER = 4  # times larger drawn than needed and averaged down, so that outlines are smooth


def stored_mask(face: FaceData) -> np.ndarray | None:
    """uint8 [*face.shape], 255 on the face, of its polygons or its mask; None without either.

    Polygons that only exclude are taken off the mask, or without one off the hull of the points.
    Raises ValueError for a mask whose pixels cannot be decoded.
    """
    height, width = face.shape
    drawn = any(area.include for area in face.polygons)
    if face.mask is None and not face.polygons:
        return None
    if drawn:
        area = np.zeros((height, width), np.uint8)
    elif face.mask is None:
        area = face_mask(face.landmarks, height, width, brows=True)
    else:
        gray = png.decode(face.mask)[..., 0]
        smaller = height < gray.shape[0]
        method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        area = cv2.resize(gray, (width, height), interpolation=method)
    for include in (True, False):
        own = [polygon.points for polygon in face.polygons if polygon.include == include]
        inside = _filled(own, height, width) if own else 0
        area = np.maximum(area, inside) if include else np.minimum(area, 255 - inside)
    return area.astype(np.uint8)


def is_drawn(face: FaceData) -> bool:
    """True when somebody said which part of the picture is face: by polygons, or with a brush."""
    return bool(face.polygons) or face.mask_maker == BY_HAND


def encode_mask(mask: np.ndarray) -> bytes:
    """`mask`, uint8 [N, N], as `FaceData.mask` has it: averaged down to MAX_MASK a side at most."""
    if len(mask) > MAX_MASK:
        mask = cv2.resize(mask, (MAX_MASK, MAX_MASK), interpolation=cv2.INTER_AREA)
    return png.encode(mask)


def _filled(areas: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """uint8 [height, width]: 255 inside any of the polygons [n, 2], with smooth outlines."""
    small = max(height, width) * FINER <= 4096
    finer = FINER if small else 1
    mask = np.zeros((height * finer, width * finer), np.uint8)
    for points in areas:
        fine = np.rint(points * finer + (finer - 1) / 2).astype(np.int32)
        cv2.fillPoly(mask, [fine], 255)
    return cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
