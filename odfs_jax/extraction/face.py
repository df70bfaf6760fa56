"""From a detection in a frame to the aligned face and everything known about it."""

from typing import Any

import numpy as np

from odfs_jax.data.aligned_png import FaceData, Pose, Source
from odfs_jax.data.media.frames import Frame
from odfs_jax.extraction.detection import Detection
from odfs_jax.faces import align, pose
from odfs_jax.faces.crop import cut
from odfs_jax.faces.types import FaceType


def aligned_face(
    frame: Frame,
    detection: Detection,
    face_type: FaceType,
    size: int,
    detector: str,
    extra: dict[str, Any],
) -> tuple[np.ndarray, FaceData]:
    """The aligned picture (uint8 RGB [size,size,3]) of one detection, and its data with `extra`.

    The landmarks must be there. `mark_only` gives the whole frame, whatever the `size`. Raises
    ValueError when the points cannot be those of a face.
    """
    landmarks = detection.landmarks
    matrix = align.alignment_matrix(landmarks, face_type, size)
    if not np.isfinite(matrix).all() or not np.isfinite(landmarks).all():
        raise ValueError("points of no face")
    whole = face_type is FaceType.MARK_ONLY
    angles = pose.angles_of(pose.rotation_of(landmarks))
    data = FaceData(
        face_type=face_type,
        size=max(frame.image.shape[:2]) if whole else size,
        landmarks=align.transform(matrix, landmarks),
        source=_source_of(frame, detection),
        pose=Pose(*(round(angle, 3) for angle in angles)),
        detector=detector,
        landmarker=detection.landmarker,
        score=round(detection.score, 5),
        extra=extra,
    )
    return frame.image if whole else cut(frame.image, matrix, size), data


def _source_of(frame: Frame, detection: Detection) -> Source:
    height, width, _ = frame.image.shape
    return Source(
        file=frame.file,
        frame=frame.index,
        pts=frame.pts,
        width=width,
        height=height,
        rect=rect_of(detection),
        landmarks=detection.landmarks,
    )


def rect_of(detection: Detection) -> tuple[float, float, float, float]:
    """The box (left, top, right, bottom) in frame pixels as it is written down."""
    left, top, right, bottom = (round(float(edge), 3) for edge in detection.box)
    return left, top, right, bottom
