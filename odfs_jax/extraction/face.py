"""From a detection in a frame to the aligned face and everything known about it."""

import numpy as np

from odfs_jax.data.aligned import FaceData, Pose, Source
from odfs_jax.data.frames import Frame
from odfs_jax.extraction.detection import Detection
from odfs_jax.faces import align, pose
from odfs_jax.faces.crop import cut
from odfs_jax.faces.types import FaceType

MIN_PIXELS = 16  # of the frame, that the side of an aligned picture must show


def aligned_face(
    frame: Frame,
    detection: Detection,
    face_type: FaceType,
    size: int,
    detector: str,
) -> tuple[np.ndarray, FaceData]:
    """The aligned picture (uint8 RGB [size,size,3]) of one detection, and its data.

    The landmarks must be there. Raises ValueError when the face is too small or its points cannot
    be those of a face.
    """
    landmarks = detection.landmarks
    matrix = align.alignment_matrix(landmarks, face_type, size)
    if not np.isfinite(matrix).all():
        raise ValueError("points of no face")
    side = size / np.sqrt(np.linalg.det(matrix[:, :2]))
    if side < MIN_PIXELS:
        raise ValueError(
            f"too small: {side:.0f} pixels of the frame, expected {MIN_PIXELS} or more"
        )
    height, width, _ = frame.image.shape
    source = Source(
        file=frame.file,
        frame=frame.index,
        pts=frame.pts,
        width=width,
        height=height,
        rect=tuple(round(float(edge), 3) for edge in detection.box),
        landmarks=landmarks,
    )
    angles = pose.angles_of(pose.rotation_of(landmarks))
    data = FaceData(
        face_type=face_type,
        size=size,
        landmarks=align.transform(matrix, landmarks),
        source=source,
        pose=Pose(*(round(angle, 3) for angle in angles)),
        detector=detector,
        landmarker=detection.landmarker,
        score=round(detection.score, 5),
    )
    return cut(frame.image, matrix, size), data
