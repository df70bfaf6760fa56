"""`python extract.py data=src`: the faces of a clip, one aligned PNG each."""

import json
import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from omegaconf import DictConfig, OmegaConf

from odfs_jax.data.aligned_png import FaceData, read_face
from odfs_jax.data.media.frame_io import open_frames
from odfs_jax.data.media.frames import FrameSource
from odfs_jax.data.parallel import cores
from odfs_jax.data.workspace import find_input
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.extraction.filters import Filter, build_filters, build_person_filter
from odfs_jax.extraction.journal import Done, ExtractionJournal
from odfs_jax.extraction.pipeline import FaceWriter, Finder, Outcome, extract_frames
from odfs_jax.extraction.registry import build_detector, build_landmarker
from odfs_jax.extraction.reports import debug_folder, write_lists
from odfs_jax.extraction.resume import ResumePlan, check_same, prepare
from odfs_jax.extraction.smoothing import Smoother, build_smoother
from odfs_jax.extraction.tracking import reach
from odfs_jax.faces.types import FaceType
from odfs_jax.frame_ranges import FrameRanges, parse_frame_ranges
from odfs_jax.runtime import devices
from odfs_jax.runtime.progress import progress

log = logging.getLogger(__name__)

SIZES = (16, 4096)  # pixels of an aligned face
CALLS_ON_CPU = 4  # at once, where there are as many cores


@dataclass(frozen=True)
class Job:
    """One side, checked and ready."""

    side: str
    source: FrameSource
    journal: ExtractionJournal
    faces: dict[Path, FaceData]
    settings: dict[str, Any]


@dataclass
class Report:
    """What happened in one run."""

    frames: int = 0
    faces: int = 0
    left_out: int = 0

    def add(self, outcome: Outcome) -> None:
        self.frames += 1
        self.faces += len(outcome.written)
        self.left_out += len(outcome.dropped)
        for face in outcome.dropped:
            where = outcome.frame.file, outcome.frame.index
            log.warning("%s, frame %d: a face left out (%s)", *where, face.reason)


def extract(config: DictConfig) -> None:
    """Extracts every side that an `ExtractConfig` names. Raises UserError."""
    devices.prepare(config.hardware)
    face_type = checked_face_type(config.face_type, config.size)
    chosen = parse_frame_ranges(config.frames, config.every)
    smoother = build_smoother(config.smoothing)
    filters = build_filters(config.filters, config.max_faces)
    with ExitStack() as stack:
        # a mistake in the second side must show before the first has run
        jobs = [_job(side, config, stack) for side in config.data.sides]
        finders = build_finders(config)
        if config.identity is not None:
            first = finders[0]
            examples, limit = Path(config.identity), config.identity_limit
            filters.append(build_person_filter(examples, limit, first.detector, first.landmarker))
        for job in jobs:
            _run(job, config, chosen, face_type, finders, filters, smoother)


def _job(side: str, config: DictConfig, stack: ExitStack) -> Job:
    """Raises UserError when the aligned folder holds something that does not go with the run."""
    folder = Path(config.data[side].aligned)
    faces = _faces_in(folder)
    source = stack.enter_context(open_frames(find_input(config.workspace, side, config.data[side])))
    settings = _settings(config, source)
    journal = ExtractionJournal.read(folder)
    if not config.overwrite:
        check_same(journal, faces, settings, side)
    return Job(side, source, journal, faces, settings)


def _faces_in(folder: Path) -> dict[Path, FaceData]:
    """The aligned faces in `folder`. Raises UserError when a PNG is not one."""
    faces = {}
    for path in sorted(path for path in folder.glob("*.png") if not path.name.startswith(".")):
        try:
            faces[path] = read_face(path)
        except BadFileError as error:
            raise UserError(f"{error}; move it out of {folder}, faces are written there") from error
    return faces


def _settings(config: DictConfig, source: FrameSource) -> dict[str, Any]:
    """What the faces depend on, as JSON gives it back: two runs that differ in it do not mix."""
    names = (
        "face_type", "size", "max_faces", "filters", "detector", "landmarks", "smoothing",
        "identity", "identity_limit",
    )  # fmt: skip
    settings = OmegaConf.to_container(OmegaConf.masked_copy(config, list(names)), resolve=True)
    settings["detector"].pop("batch_size")
    clip = None if source.is_folder else source.path
    settings["source"] = {
        "file": clip and clip.name,
        "bytes": clip and clip.stat().st_size,
    }
    return json.loads(json.dumps(settings))


def build_finders(config: DictConfig) -> list[Finder]:
    """One for each device that an `ExtractConfig` chooses, for each call at once. Raises UserError.

    XLA:CPU spreads the work of small networks badly over the cores; several calls fill them.
    """
    found = []
    for device in devices.choose(config.hardware):
        with jax.default_device(device):
            pair = build_detector(config.detector), build_landmarker(config.landmarks)
        calls = min(cores(), CALLS_ON_CPU) if device.platform == "cpu" else 1
        found += [Finder(device, *pair)] * calls
    return found


def _run(
    job: Job,
    config: DictConfig,
    chosen: FrameRanges,
    face_type: FaceType,
    finders: Sequence[Finder],
    filters: Sequence[Filter],
    smoother: Smoother | None,
) -> None:
    source, journal, folder = job.source, job.journal, job.journal.folder
    if source.is_folder:
        smoother = None  # pictures need not follow each other
    margin = 0 if smoother is None else reach(smoother)
    margin += finders[0].detector.stride - 1  # up to the frames that were searched all over
    plan = prepare(journal, job.faces, job.settings, chosen, source, margin, config.overwrite)
    source.select(plan.reads, chosen.stop)
    before = len(journal.frames)
    debug = debug_folder(folder) if config.debug else None
    write = FaceWriter(folder, face_type, config.size, finders[0].detector.name, plan, debug)
    report, start = Report(), time.monotonic()
    with closing(extract_frames(source, finders, filters, smoother, write)) as outcomes:
        total = None if source.count is None else chosen.count(source.count) - before
        for outcome in progress(outcomes, total, f"extract {job.side}"):
            _note(plan, outcome)
            report.add(outcome)
    _finish(plan)
    rate = report.frames / (time.monotonic() - start)
    log.info("extract %s: %d frames, %.1f frames/s", job.side, report.frames, rate)
    _summary(report, job, before)


def _note(plan: ResumePlan, outcome: Outcome) -> None:
    frame = outcome.frame
    plan.finish(frame, outcome.written)
    faces, dropped = len(outcome.written), tuple(outcome.dropped)
    plan.journal.add(Done(frame.file, frame.index, frame.pts, faces, dropped))
    plan.stale.difference_update(outcome.written)


def _finish(plan: ResumePlan) -> None:
    """Lets go of the faces that were replaced."""
    for path in plan.stale:
        path.unlink(missing_ok=True)
    if plan.journal.replacing:
        plan.journal.end_replacing()
    plan.journal.sync()


def _summary(report: Report, job: Job, before: int) -> None:
    """Names what could not be read, lists what was not written and says the counts in one line."""
    source, journal = job.source, job.journal
    for error in source.bad:
        log.warning("skipped: %s", error)
    empty = write_lists(journal, source.is_folder)
    if not any(done.faces for done in journal.frames.values()):
        left_out = f"; {report.left_out} faces were found and left out" if report.left_out else ""
        frames = len(journal.frames)
        raise UserError(f"{source.path}: no face in any of its {frames} frames{left_out}")
    log.info(
        "%d frames, %d faces, %d frames without a face (%s), %d faces left out (%s), "
        "%d problems reading%s: %s",
        *(report.frames, report.faces, empty.count, empty.path, report.left_out, empty.dropped),
        *(len(source.bad), f", {before} frames done before" if before else "", journal.folder),
    )


def checked_face_type(name: str, size: int) -> FaceType:
    """The face type called `name`, if a picture may have `size` pixels. Raises UserError."""
    names = [face_type.value for face_type in FaceType]
    if name not in names:
        raise UserError(f"face_type={name}: expected one of {', '.join(names)}")
    if not SIZES[0] <= size <= SIZES[1]:
        raise UserError(f"size={size}: expected {SIZES[0]} to {SIZES[1]} pixels")
    return FaceType(name)
