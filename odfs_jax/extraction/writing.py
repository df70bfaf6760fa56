"""Writes faces into an aligned folder: crops them, names the files, keeps the journal.

Automatic and manual extraction both come here.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from odfs_jax.data.aligned_png import FaceData, Pose, Source, write_face
from odfs_jax.data.media.frames import Frame
from odfs_jax.extraction.detection import Detection
from odfs_jax.extraction.journal import RUN, Done, ExtractionJournal
from odfs_jax.faces import affine, align, pose
from odfs_jax.faces.crop import crop_face
from odfs_jax.faces.types import FaceType

MANUAL = "manual"  # the detector, landmarker and run of faces that a person placed


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
        landmarks=affine.transform(matrix, landmarks),
        source=_source_of(frame, detection),
        pose=Pose(*(round(angle, 3) for angle in angles)),
        detector=detector,
        landmarker=detection.landmarker,
        score=round(detection.score, 5),
        extra=extra,
    )
    return frame.image if whole else crop_face(frame.image, matrix, size), data


def _source_of(frame: Frame, detection: Detection) -> Source:
    height, width, _ = frame.image.shape
    return Source(
        file=frame.file,
        frame=frame.index,
        pts=frame.pts,
        width=width,
        height=height,
        rect=detection.rect,
        landmarks=detection.landmarks,
    )


def write_faces(
    folder: Path,
    frame: Frame,
    faces: Iterable[Detection],
    face_type: FaceType,
    size: int,
    detector: str,
    extra: dict[str, Any],
    avoid: frozenset[str] = frozenset(),
) -> list[Path]:
    """Writes an aligned PNG `<frame>_<k>.png` for each face, k = 0 the first.

    Landmarks must be there. A name in `avoid` is passed over; any other file of that name is
    replaced. Raises ValueError for points that are no face.
    """
    paths: list[Path] = []
    crops = [
        aligned_face(frame, face, face_type, size, detector, extra | face.extra) for face in faces
    ]
    number = 0
    for image, data in crops:
        while (name := f"{frame.index:05d}_{number}.png") in avoid:
            number += 1
        number += 1
        paths.append(folder / name)
        write_face(paths[-1], image, data)
    return paths


def accept_faces(
    folder: Path,
    frame: Frame,
    landmarks: Sequence[np.ndarray],
    face_type: FaceType,
    size: int,
    landmarker: str = MANUAL,
) -> list[Path]:
    """Adds what a person accepted in `frame` to the aligned `folder`; the PNGs written.

    Manual extraction goes through this function. `landmarks` are [68,2] a face, in pixels of
    `frame.image` (as everywhere, 0 is the center of the first pixel), found by `landmarker` or
    dragged by hand. The faces are cropped and written as in automatic extraction; they carry
    `detector: manual`, score 1 and the points' own box. No PNG in the folder is replaced. The
    frame, also with an empty list, is noted as finished and seen: it is no longer doubtful, and no
    later run of `extract.py` without overwrite=true touches it. Nothing is lost if the process is
    killed.

    Raises ValueError, with nothing written, when points coincide or are not finite; BadFileError
    when the folder's journal is damaged; OSError.
    """
    journal = ExtractionJournal.read(folder)
    faces = [Detection(_box(points), None, 1.0, points, landmarker) for points in landmarks]
    taken = frozenset(path.name for path in folder.glob("*.png"))
    paths = write_faces(folder, frame, faces, face_type, size, MANUAL, {RUN: MANUAL}, taken)
    journal.add(Done(frame.file, frame.index, frame.pts, len(paths), seen=True))
    return paths


def _box(points: np.ndarray) -> np.ndarray:
    return np.concatenate([points.min(axis=0), points.max(axis=0)])
