"""Which faces of which frames are swapped.

These are the faces that still have an aligned PNG, as far as `frames=` and `identity=` select them.
"""

import hashlib
import logging
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from odfs_jax.conversion.face_region import Region, face_region
from odfs_jax.data.aligned_png import FaceData, Source, read_face, read_image_and_face
from odfs_jax.data.media.frame_io import FrameReader
from odfs_jax.data.media.frames import Frame, FrameSource
from odfs_jax.data.stored_masks import stored_mask
from odfs_jax.data.workspace import aligned_files
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.faces.align import alignment_matrix
from odfs_jax.faces.crop import crop_face, crop_face_fast
from odfs_jax.faces.identity import embedding
from odfs_jax.faces.types import FaceType
from odfs_jax.frame_ranges import FrameRanges, parse_frame_ranges
from odfs_jax.runtime.progress import progress

log = logging.getLogger(__name__)

OTHER_PICTURE = 6.0  # mean difference of two pictures' values from which they are not the same
SAME_FACE = 0.02  # distance of points, in shares of the face, up to which two faces are one


@dataclass(frozen=True)
class FaceSelection:
    """The frames and the person whose faces are swapped; by default all frames and all people."""

    frames: FrameRanges = field(default_factory=FrameRanges)
    identity: np.ndarray | None = None  # float32 [128], the person's mean embedding
    distance: float = np.inf  # between embeddings of one person, at most

    def has_frame(self, frame: int) -> bool:
        """True when faces of `frame` are swapped."""
        return frame in self.frames

    def has_person(self, path: Path) -> bool:
        """True when the aligned PNG at `path` shows the person. Raises BadFileError."""
        if self.identity is None:
            return True
        return bool(np.linalg.norm(_embedding(path) - self.identity) <= self.distance)


def build_selection(frames: Any, identity: str | None, distance: float) -> FaceSelection:
    """The selection of the settings `frames`, `identity` and `identity_distance`.

    Raises UserError for ranges that cannot be read, a person that cannot be found, and a distance
    out of range.
    """
    chosen = parse_frame_ranges(frames)
    if identity is None:
        return FaceSelection(chosen)
    if not 0 < distance <= 2:
        raise UserError(f"identity_distance={distance:g}: expected above 0, up to 2")
    return FaceSelection(chosen, _person(Path(identity)), distance)


def _person(path: Path) -> np.ndarray:
    """The mean embedding float32 [128] of one aligned PNG, or of a folder of them."""
    if not path.exists():
        raise UserError(f"identity={path}: no such file or folder; give an aligned PNG or a folder")
    files = aligned_files(path, "dst") if path.is_dir() else [path]
    return np.mean([_embedding(file) for file in files], axis=0)


def _embedding(path: Path) -> np.ndarray:
    image, face = read_image_and_face(path)
    return embedding(image, face.landmarks)


@dataclass
class TargetFaces:
    """The faces to swap, by frame."""

    by_frame: dict[str | int, list[tuple[Path, Source]]]
    frames: FrameRanges = field(default_factory=FrameRanges)  # that are chosen
    unselected: int = 0  # faces that the settings leave out
    skipped: list[BadFileError] = field(default_factory=list)  # files that could not be used
    masked: dict[Path, FaceData] = field(default_factory=dict)  # those with a mask of their own
    landmarkers: set[str] = field(default_factory=set)  # what found the points of the faces

    @property
    def sources(self) -> list[Source]:
        """Where all faces that are left come from."""
        return [source for faces in self.by_frame.values() for _, source in faces]

    def pop_regions(
        self, frame: Frame, face_type: FaceType, resolution: int, scale: float = 1.0
    ) -> list[Region]:
        """Removes the faces of `frame` and returns their regions, far (small) ones first.

        The model has faces as `face_type` at `resolution` pixels; a region holds a square that is
        `scale` times as large as the face square. A PNG that does not fit the frame is logged and
        appended to `skipped`.
        """
        regions = []
        for path, source in self.by_frame.pop(_key(frame.file, frame.index, frame.pts), []):
            try:
                region = _region(path, source, frame, face_type, resolution, scale)
                if path in self.masked:
                    seen = _seen(path, self.masked.pop(path), face_type, resolution)
                    region = replace(region, seen=seen)
                regions.append(region)
            except BadFileError as error:
                self.skip(error)
        return sorted(regions, key=lambda region: region.face_side)

    def remove(self, frame: Frame) -> None:
        """Removes the faces of `frame`, which an earlier run has swapped."""
        self.by_frame.pop(_key(frame.file, frame.index, frame.pts), None)

    def digest(self) -> str:
        """A checksum of all faces: their frames, files, landmarks and masks."""
        total = hashlib.sha256()
        for key, faces in sorted(self.by_frame.items(), key=lambda item: str(item[0])):
            for path, source in faces:
                total.update(f"{key} {path.name} {source.pts} ".encode())
                total.update(source.landmarks.astype("<f8").tobytes())
                if path in self.masked:
                    face = self.masked[path]
                    total.update(face.mask or b"")
                    for area in face.polygons:
                        total.update(f"{area.include} {area.points.tolist()}".encode())
        return total.hexdigest()

    def skip_rest(self, clip: Path, own: FrameRanges) -> None:
        """Logs the faces whose frame, of those in `own`, was not in `clip`; adds to `skipped`."""
        for faces in self.by_frame.values():
            for path, source in faces:
                if source.frame not in own:
                    continue
                where = source.file if source.pts is None else f"frame {source.frame}"
                self.skip(BadFileError(path, f"{where} was not found in {clip}"))
        self.by_frame.clear()

    def skip(self, error: BadFileError) -> None:
        """Logs that a file is left out, and appends the error to `skipped`."""
        log.warning("skipped: %s", error)
        self.skipped.append(error)


def find_target_faces(
    aligned: Path,
    source: FrameSource | FrameReader,
    selection: FaceSelection | None = None,
    files: list[Path] | None = None,
) -> TargetFaces:
    """The faces of the folder `aligned` that belong to `source` and are in `selection`.

    `files` are the aligned PNGs to read; None: all of the folder. A clip may have another name than
    at extraction: it is known by the faces in its frames. A PNG that cannot be read or is of
    another clip is logged and appended to `skipped`. Raises UserError when the folder is missing or
    empty, or when none of its faces is left.
    """
    selection = selection or FaceSelection()
    by_frame: dict[str | int, list[tuple[Path, Source]]] = defaultdict(list)
    targets = TargetFaces(by_frame, selection.frames)
    renamed: dict[str, list[tuple[Path, Source]]] = defaultdict(list)  # of clips of other names

    def take(path: Path, face: Source) -> None:
        """Adds a face of `source`. Raises BadFileError."""
        if not (selection.has_frame(face.frame) and selection.has_person(path)):
            targets.unselected += 1
            return
        others = by_frame[_key(face.file, face.frame, face.pts)]
        if twin := next((other for other, known in others if _is_same(face, known)), None):
            raise BadFileError(path, f"the same face as {twin.name}, which is swapped")
        others.append((path, face))

    files = aligned_files(aligned, "dst") if files is None else files
    for path in progress(files, len(files), "faces", "face"):
        try:
            data = read_face(path)
            face = data.source
            targets.landmarkers.add(data.landmarker)
            if data.mask is not None or data.polygons:
                targets.masked[path] = data
            if source.is_folder != (face.pts is None):
                raise BadFileError(path, f"a face of {face.file}, not of {source.path}")
            if source.is_folder or face.file == source.path.name:
                take(path, face)
            else:
                renamed[face.file].append((path, face))
        except BadFileError as error:
            targets.skip(error)
    for name, found in renamed.items():
        same = _shows(source.path, found)
        if same:
            log.info("%s: shows the faces of %s, and is taken for it", source.path, name)
        for path, face in found:
            try:
                if not same:
                    raise BadFileError(path, f"a face of {name}, not of {source.path}")
                take(path, face)
            except BadFileError as error:
                targets.skip(error)
    if not by_frame and targets.unselected:
        raise UserError(
            f"{aligned}: frames= and identity= leave none of its {targets.unselected} faces"
        )
    if not by_frame and len(renamed) == 1:
        (name,) = renamed
        raise UserError(
            f"{aligned}: its faces are of {name}, not of {source.path.name}; if that is the same "
            f"clip, rename it back to {name}, or link it and set data.dst.input="
        )
    if not by_frame:
        raise UserError(
            f"{aligned}: none of its {len(targets.skipped)} files is a face of {source.path}; "
            "run: python extract.py data=dst"
        )
    return targets


def _shows(clip: Path, faces: list[tuple[Path, Source]]) -> bool:
    """True when the first, the middle and the last of `faces` are what their frames show."""
    reader = None
    for path, face in (faces[0], faces[len(faces) // 2], faces[-1]):
        try:
            reader = reader or FrameReader(clip)
            frame = reader.read(face.frame)
            picture, data = read_image_and_face(path)
            matrix = alignment_matrix(face.landmarks, data.face_type, data.size)
        except (UserError, ValueError):
            return False
        shown = frame.image
        if (frame.pts, *shown.shape[1::-1]) != (face.pts, face.width, face.height):
            return False
        if data.face_type is not FaceType.MARK_ONLY:  # which is the whole frame
            shown = crop_face(shown, matrix, data.size)
        if np.abs(shown.astype(np.int16) - picture).mean() > OTHER_PICTURE:
            return False
    return True


def _is_same(face: Source, other: Source) -> bool:
    """True when both are the same face of a frame: a copy of its PNG, or found twice."""
    size = np.ptp(other.landmarks, axis=0).max()
    apart = np.linalg.norm(face.landmarks - other.landmarks, axis=1).mean()
    return bool(apart <= SAME_FACE * size)


def _key(file: str, index: int, pts: int | None) -> str | int:
    """Identifies a frame: a picture by its name, a frame of a clip by its number."""
    return file if pts is None else index


def _seen(path: Path, face: FaceData, face_type: FaceType, resolution: int) -> np.ndarray:
    """uint8 [R, R]: the mask that the aligned PNG at `path` holds, in the model's pixels."""
    try:
        model_from_image = alignment_matrix(face.landmarks, face_type, resolution)
        return crop_face_fast(stored_mask(face), model_from_image, resolution)
    except ValueError as error:
        raise BadFileError(path, f"its mask cannot be used: {error}") from error


def _region(
    path: Path, source: Source, frame: Frame, face_type: FaceType, resolution: int, scale: float
) -> Region:
    height, width = frame.image.shape[:2]
    if source.pts != frame.pts or (source.width, source.height) != (width, height):
        raise BadFileError(
            path,
            f"made from frame {source.frame} at {source.pts} of {source.width}x{source.height}, "
            f"but {frame.file} has it at {frame.pts} and {width}x{height}; extract again",
        )
    try:
        region = face_region(source.landmarks, face_type, resolution, scale)
    except ValueError as error:
        raise BadFileError(path, f"its source.landmarks cannot be used: {error}") from error
    if not region.touches(height, width):
        raise BadFileError(path, "its source.landmarks lie outside the frame")
    return region
