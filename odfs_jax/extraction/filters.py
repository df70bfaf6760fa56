"""Which of the faces found in a frame are kept. What is left out gets a reason."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from odfs_jax.config import FiltersConfig, check_values
from odfs_jax.data.aligned_png import read_image_and_face
from odfs_jax.data.media.frames import Frame
from odfs_jax.data.media.picture_folder import read_picture
from odfs_jax.data.workspace import image_files
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.extraction.detection import Detection, Detector, Landmarker
from odfs_jax.extraction.journal import Dropped
from odfs_jax.faces import affine, align
from odfs_jax.faces.identity import embedding

# How far faces of one person in other poses and lights lie from the mean of their examples:
# synthetic actors .15 to .44, other people from .52 on. Examples that differ more among themselves
# set a wider measure of their own.
TYPICAL_SPREAD = 0.3
IDENTITY = "identity"  # the key in a PNG's data that holds the distances to the examples
Kept = tuple[list[Detection], list[Dropped]]
Filter = Callable[[Frame, list[Detection]], Kept]


@dataclass(frozen=True)
class PlausibilityFilter:
    """Keeps what looks like a face, by the limits under `filters` in configs/extract.yaml."""

    min_score: float
    min_size: float
    min_area: float
    max_area: float
    max_shape: float
    max_roll: float | None

    def __call__(self, frame: Frame, faces: list[Detection]) -> Kept:
        """The faces kept, and the others with the reason. Their landmarks must be known."""
        reasons = [self.reason(face) for face in faces]
        kept = [face for face, reason in zip(faces, reasons, strict=True) if reason is None]
        return kept, [drop(f, r) for f, r in zip(faces, reasons, strict=True) if r is not None]

    def reason(self, face: Detection) -> str | None:
        """Why `face` is left out, None when it is kept."""
        if face.score < self.min_score:
            return f"score {face.score:.2f} below {self.min_score}"
        try:
            matrix = align.umeyama(face.landmarks[align.INNER], align.MEAN_FACE)
        except ValueError:
            return "points of no face"  # they coincide, or the landmarker gave none
        scale = np.sqrt(np.linalg.det(matrix[:, :2]))  # mean faces / pixel
        if not scale > 0:
            return "points of no face"
        if 1 / scale < self.min_size:
            return f"{1 / scale:.0f} pixels from brows to lips, fewer than {self.min_size:g}"
        area = 1 / scale**2 / max(np.prod(face.box[2:] - face.box[:2]), 1e-9)
        if not self.min_area <= area <= self.max_area:
            limits = f"{self.min_area:g} to {self.max_area:g}"
            return f"points cover {area:.2f} of the box's area, not {limits}"
        seen = affine.transform(matrix, face.landmarks[align.INNER])
        shape = np.linalg.norm(seen - align.MEAN_FACE, axis=1).mean()
        if shape > self.max_shape:
            return f"shape {shape:.2f} from the mean face, above {self.max_shape:g}"
        roll = np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
        if self.max_roll is not None and abs(roll) > self.max_roll:
            return f"roll of {roll:.0f} degrees, beyond {self.max_roll:g}"
        return None


@dataclass(frozen=True)
class LargestFilter:
    """Keeps the `count` largest boxes of a frame."""

    count: int

    def __call__(self, frame: Frame, faces: list[Detection]) -> Kept:
        order = np.argsort([-np.prod(f.box[2:] - f.box[:2]) for f in faces], kind="stable")
        kept = set(order[: self.count].tolist())
        left = [face for i, face in enumerate(faces) if i not in kept]
        reason = f"not among the {self.count} largest of the frame"
        return [faces[i] for i in sorted(kept)], [drop(face, reason) for face in left]


def drop(face: Detection, reason: str) -> Dropped:
    """`face` as it is listed when it is left out."""
    return Dropped(reason, face.rect, round(float(face.score), 5))


def keep_all_of(filters: Sequence[Filter], frame: Frame, faces: list[Detection]) -> Kept:
    """What is left of `faces` after every filter, and everything that they left out."""
    dropped: list[Dropped] = []
    for keep in filters:
        faces, left_out = keep(frame, faces)
        dropped += left_out
    return faces, dropped


def build_filters(config: Mapping[str, Any], max_faces: int | None) -> list[Filter]:
    """The filters of the settings `filters` and `max_faces`, to be applied in this order.

    Raises UserError for a number out of its range.
    """
    check_values(FiltersConfig, "filters", config)
    filters: list[Filter] = [PlausibilityFilter(**config)]
    if max_faces is not None:
        if max_faces < 1:
            raise UserError(f"max_faces={max_faces}: expected 1 or more, or null for all")
        filters.append(LargestFilter(max_faces))
    return filters


@dataclass(frozen=True)
class PersonFilter:
    """Keeps at most one face of a frame, the nearest to the examples, if it is near enough.

    `mean` [128] of the examples' embeddings; `spread`, their mean distance to the mean of the
    others, but at least TYPICAL_SPREAD; `limit` is a multiple of it.
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
                kept.append(replace(face, extra=face.extra | {IDENTITY: note}))
        return kept, dropped


def person_from_embeddings(embeddings: np.ndarray, limit: float) -> PersonFilter:
    """The person of the examples' `embeddings` [n,128], n from 1."""
    spread, count = TYPICAL_SPREAD, len(embeddings)
    if count > 1:
        others = (embeddings.sum(0) - embeddings) / (count - 1)
        spread = max(spread, float(np.linalg.norm(embeddings - others, axis=1).mean()))
    return PersonFilter(embeddings.mean(0), spread, limit)


def build_person_filter(
    path: Path, limit: float, detector: Detector, landmarker: Landmarker
) -> PersonFilter:
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
    return person_from_embeddings(
        np.stack([_example(f, detector, landmarker) for f in files]), limit
    )


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
