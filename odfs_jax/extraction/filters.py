"""Which of the faces found in a frame are kept. What is left out gets a reason."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from odfs_jax.data.media.frames import Frame
from odfs_jax.errors import UserError
from odfs_jax.extraction.detection import Detection
from odfs_jax.extraction.face import rect_of
from odfs_jax.extraction.journal import Dropped
from odfs_jax.faces import align

# Setting: what it may be. `max_roll` may also be null, for any roll.
RANGES = {
    "min_score": (0, 1),
    "min_size": (1, 4096),
    "min_area": (0, 100),
    "max_area": (0, 100),
    "max_shape": (0, 10),
    "max_roll": (0, 180),
}
Kept = tuple[list[Detection], list[Dropped]]
Keep = Callable[[Frame, list[Detection]], Kept]


@dataclass(frozen=True)
class Filters:
    """What `filters` of configs/extract.yaml sets; the meanings stand there."""

    min_score: float
    min_size: float
    min_area: float
    max_area: float
    max_shape: float
    max_roll: float | None

    def __call__(self, frame: Frame, faces: list[Detection]) -> Kept:
        """(the faces that look like one, the others with the reason). Landmarks must be there."""
        reasons = [self.reason(face) for face in faces]
        kept = [face for face, reason in zip(faces, reasons, strict=True) if reason is None]
        return kept, [drop(f, r) for f, r in zip(faces, reasons, strict=True) if r is not None]

    def reason(self, face: Detection) -> str | None:
        """Why `face` is not taken for one, None when it is."""
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
        seen = align.transform(matrix, face.landmarks[align.INNER])
        shape = np.linalg.norm(seen - align.MEAN_FACE, axis=1).mean()
        if shape > self.max_shape:
            return f"shape {shape:.2f} from the mean face, above {self.max_shape:g}"
        roll = np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
        if self.max_roll is not None and abs(roll) > self.max_roll:
            return f"roll of {roll:.0f} degrees, beyond {self.max_roll:g}"
        return None


@dataclass(frozen=True)
class Largest:
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
    return Dropped(reason, rect_of(face), round(float(face.score), 5))


def keep_all_of(filters: Sequence[Keep], frame: Frame, faces: list[Detection]) -> Kept:
    """What is left of `faces` after every filter, and everything that they left out."""
    dropped: list[Dropped] = []
    for keep in filters:
        faces, left_out = keep(frame, faces)
        dropped += left_out
    return faces, dropped


def build_filters(config: Mapping[str, Any], max_faces: int | None) -> list[Keep]:
    """The filters of a `FiltersConfig` and `max_faces`, to be applied in turn. Raises UserError."""
    for field in fields(Filters):
        value, (low, high) = config[field.name], RANGES[field.name]
        if value is None and field.name == "max_roll":
            continue
        if value is None or not low <= value <= high:
            raise UserError(f"filters.{field.name}={value}: expected a number from {low} to {high}")
    filters: list[Keep] = [Filters(**config)]
    if max_faces is not None:
        if max_faces < 1:
            raise UserError(f"max_faces={max_faces}: expected 1 or more, or null for all")
        filters.append(Largest(max_faces))
    return filters
