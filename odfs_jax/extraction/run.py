"""`python extract.py data=src`: the faces of a clip, one aligned PNG each."""

import logging
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig

from odfs_jax import devices
from odfs_jax.data import atomic
from odfs_jax.data.aligned import read_face
from odfs_jax.data.frames import FrameSource
from odfs_jax.data.video import open_frames
from odfs_jax.data.workspace import find_input
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.extraction.build import build_detector, build_landmarker
from odfs_jax.extraction.detection import Detector, Landmarker
from odfs_jax.extraction.filters import build_filters
from odfs_jax.extraction.pipeline import FaceWriter, Outcome, extract_frames
from odfs_jax.faces.types import FaceType
from odfs_jax.progress import progress

log = logging.getLogger(__name__)

NO_FACE = "no_face.txt"  # beside the aligned folder
SIZES = (16, 4096)  # pixels of an aligned face


@dataclass
class Report:
    """What happened to one clip."""

    frames: int = 0
    faces: int = 0
    empty: list[Outcome] = field(default_factory=list)
    skipped: int = 0
    written: set[Path] = field(default_factory=set)

    def add(self, outcome: Outcome) -> None:
        self.frames += 1
        self.faces += len(outcome.written)
        self.written.update(outcome.written)
        self.skipped += len(outcome.dropped)
        for face in outcome.dropped:
            where = outcome.file, outcome.index
            log.warning("%s, frame %d: a face left out (%s)", *where, face.reason)
        if not outcome.written:
            self.empty.append(outcome)


def extract(config: DictConfig) -> None:
    """Extracts every side that an `ExtractConfig` names. Raises UserError."""
    devices.prepare(config.hardware)
    face_type, size = _face_type(config.face_type), _size(config.size)
    with ExitStack() as stack:
        jobs = []  # a mistake in the second side must show before the first has run
        for side in config.data.sides:
            folder = Path(config.data[side].aligned)
            earlier = earlier_faces(folder, config.overwrite)
            clip = find_input(config.workspace, side, config.data[side])
            source = stack.enter_context(open_frames(clip))
            jobs.append((side, source, folder, earlier))
        filters = build_filters(config.filters, config.max_faces)
        detector, landmarker = build_detector(config.detector), build_landmarker(config.landmarks)
        for side, source, folder, earlier in jobs:
            write = FaceWriter(folder, face_type, size, detector.name, filters)
            report = _extract_clip(source, detector, landmarker, write, f"extract {side}")
            for path in earlier - report.written:
                path.unlink()
            _summary(report, source, folder)


def earlier_faces(folder: Path, overwrite: bool) -> set[Path]:
    """The faces of an earlier run in `folder`.

    Raises UserError when there are some and `overwrite` is off, or when a PNG is not ours.
    """
    found = {path for path in folder.glob("*.png") if not path.name.startswith(".")}
    for path in sorted(found):
        try:
            read_face(path)
        except BadFileError as error:
            raise UserError(f"{error}; move it out of {folder}, faces are written there") from error
    if found and not overwrite:
        raise UserError(
            f"{folder}: {len(found)} aligned faces already; overwrite=true replaces them all"
        )
    return found


def _extract_clip(
    source: FrameSource, detector: Detector, landmarker: Landmarker, write: FaceWriter, what: str
) -> Report:
    report, start = Report(), time.monotonic()
    with closing(extract_frames(source, detector, landmarker, write)) as outcomes:
        for outcome in progress(outcomes, source.count, what):
            report.add(outcome)
    for error in source.bad:
        log.warning("skipped: %s", error)
    if not report.faces:
        left_out = f"; {report.skipped} faces were found and left out" if report.skipped else ""
        raise UserError(f"{source.path}: no face in any of its {report.frames} frames{left_out}")
    log.info("%s: %.1f frames/s", what, report.frames / (time.monotonic() - start))
    return report


def _summary(report: Report, source: FrameSource, folder: Path) -> None:
    """Lists the frames without a face in a file and says the counts in one line."""
    empty = sorted(report.empty, key=lambda outcome: outcome.index)
    names = [o.file if source.is_folder else str(o.index) for o in empty]
    path = folder.parent / NO_FACE
    atomic.write_text(path, "".join(f"{name}\n" for name in names))
    log.info(
        "%d frames, %d faces, %d frames without a face (%s), %d faces left out, "
        "%d problems reading: %s",
        *(report.frames, report.faces, len(empty), path, report.skipped, len(source.bad), folder),
    )


def _face_type(name: str) -> FaceType:
    names = [face_type.value for face_type in FaceType]
    if name not in names:
        raise UserError(f"face_type={name}: expected one of {', '.join(names)}")
    return FaceType(name)


def _size(size: int) -> int:
    if not SIZES[0] <= size <= SIZES[1]:
        raise UserError(f"size={size}: expected {SIZES[0]} to {SIZES[1]} pixels")
    return size
