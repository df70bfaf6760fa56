"""`identity=PATH_OF_EXAMPLES`: of the faces in a frame, only the person whom the examples show."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from odfs_jax.data.aligned_png import read_image_and_face
from odfs_jax.data.media.frames import Frame
from odfs_jax.data.media.pictures import read_picture
from odfs_jax.data.workspace import image_files
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.extraction.detection import Detection, Detector, Landmarker
from odfs_jax.extraction.filters import Kept, drop
from odfs_jax.extraction.identity import embedding

NOTE = "identity"  # the key in a PNG's data
# How far faces of one person in other poses and lights lie from the mean of their examples:
# synthetic actors .15 to .44, other people from .52 on. Examples that differ more among themselves
# set a wider measure of their own.
TYPICAL = 0.3


@dataclass(frozen=True)
class Person:
    """Keeps at most one face of a frame, the nearest to the examples, if it is near enough.

    `mean` [128] of the examples' embeddings; `spread`, their mean distance to the mean of the
    others, but at least TYPICAL; `limit` is a multiple of it.
    """

    mean: np.ndarray
    spread: float
    limit: float

    def __call__(self, frame: Frame, faces: list[Detection]) -> Kept:
        found = [embedding(frame.image, face.landmarks) for face in faces]
        far = [float(np.linalg.norm(vector - self.mean)) / self.spread for vector in found]
        kept, dropped = [], []
        for face, relative in zip(faces, far, strict=True):
            note = {"distance": round(relative * self.spread, 4), "relative": round(relative, 4)}
            if relative > self.limit:
                reason = f"another person: {relative:.2f} times the spread, above {self.limit:g}"
                dropped.append(drop(face, reason))
            elif kept or relative > min(far):
                dropped.append(drop(face, "another face of the frame is nearer to the examples"))
            else:
                kept.append(replace(face, notes=face.notes | {NOTE: note}))
        return kept, dropped


def person_of(embeddings: np.ndarray, limit: float) -> Person:
    """The person of the examples' `embeddings` [n,128], n from 1."""
    spread, count = TYPICAL, len(embeddings)
    if count > 1:
        others = (embeddings.sum(0) - embeddings) / (count - 1)
        spread = max(spread, float(np.linalg.norm(embeddings - others, axis=1).mean()))
    return Person(embeddings.mean(0), spread, limit)


def build_person(path: Path, limit: float, detector: Detector, landmarker: Landmarker) -> Person:
    """The person in the aligned PNGs or pictures at `path`, a folder or one file.

    Of a picture that is no aligned face the largest face counts. Raises UserError when an example
    cannot be used.
    """
    if not limit > 0:
        raise UserError(f"identity_limit={limit}: expected a number above 0")
    if not path.exists():
        raise UserError(f"identity={path}: no such file or folder")
    files = image_files(path) if path.is_dir() else [path]
    if not files:
        raise UserError(f"identity={path}: no pictures in this folder")
    return person_of(np.stack([_example(f, detector, landmarker) for f in files]), limit)


def _example(path: Path, detector: Detector, landmarker: Landmarker) -> np.ndarray:
    try:
        image, face = read_image_and_face(path)
        return embedding(image, face.landmarks)
    except BadFileError:  # a plain picture
        image = read_picture(path)
    (faces,) = detector([Frame(path.name, 0, None, image)])
    if not faces:
        raise UserError(f"{path}: no face in this example; leave it out of identity=")
    points = faces[0].landmarks
    if points is None:
        (points,) = landmarker([image], [faces[0]])
    if not np.isfinite(points).all():
        raise UserError(f"{path}: no points of a face in this example; leave it out of identity=")
    return embedding(image, points)
