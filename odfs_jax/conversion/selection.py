"""Which of the faces are swapped, besides those whose PNG was deleted: `frames=`, `identity=`."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from odfs_jax.data.aligned_png import read_image_and_face
from odfs_jax.data.workspace import aligned_files
from odfs_jax.errors import UserError
from odfs_jax.extraction.identity import embedding


@dataclass(frozen=True)
class Selection:
    """The frames, as ranges with both ends, and the person whose faces are swapped; empty: all."""

    ranges: list[tuple[int, int | None]] = field(default_factory=list)
    identity: np.ndarray | None = None  # float32 [128], the person's mean embedding
    distance: float = np.inf  # of an embedding that still is the person's

    def has_frame(self, frame: int) -> bool:
        """True when faces of `frame` are swapped."""
        return not self.ranges or any(
            low <= frame and (high is None or frame <= high) for low, high in self.ranges
        )

    def has_person(self, path: Path) -> bool:
        """True when the aligned PNG at `path` shows the person. Raises BadFileError."""
        if self.identity is None:
            return True
        return bool(np.linalg.norm(_embedding(path) - self.identity) <= self.distance)


def build_selection(frames: Any, identity: str | None, distance: float) -> Selection:
    """What the settings `frames`, `identity` and `identity_distance` select. Raises UserError."""
    ranges = [] if frames is None else [_range(part) for part in _parts(frames)]
    if identity is None:
        return Selection(ranges)
    if not 0 < distance <= 2:
        raise UserError(f"identity_distance={distance:g}: expected above 0, up to 2")
    return Selection(ranges, _person(Path(identity)), distance)


def _parts(frames: Any) -> list[Any]:
    if isinstance(frames, str | int):
        return str(frames).split(",")
    return list(frames)


def _range(part: Any) -> tuple[int, int | None]:
    match = re.fullmatch(r"(\d+)(-(\d*))?", str(part).strip())
    if match is None:
        raise UserError(f"frames={part}: expected numbers of frames such as 7, 100-250 or 300-")
    low = int(match[1])
    if match[2] is None:
        return low, low
    high = int(match[3]) if match[3] else None
    if high is not None and high < low:
        raise UserError(f"frames={part}: ends before it begins")
    return low, high


def _person(path: Path) -> np.ndarray:
    """The mean embedding of one aligned PNG, or of a folder of them."""
    if not path.exists():
        raise UserError(f"identity={path}: no such file or folder; give an aligned PNG or a folder")
    files = aligned_files(path, "dst") if path.is_dir() else [path]
    return np.mean([_embedding(file) for file in files], axis=0)


def _embedding(path: Path) -> np.ndarray:
    image, face = read_image_and_face(path)
    return embedding(image, face.landmarks)
