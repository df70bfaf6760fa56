"""`python extract.py data=src`: the faces of a clip, one aligned PNG each."""

import json
import logging
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import jax
from omegaconf import DictConfig, OmegaConf

from odfs_jax.data.aligned_png import FaceData, read_face
from odfs_jax.data.atomic import check_writable
from odfs_jax.data.lock import InUseError, locked
from odfs_jax.data.media.frame_io import open_frames
from odfs_jax.data.media.frames import FrameSource
from odfs_jax.data.parallel import cores
from odfs_jax.data.workspace import aligned_files, find_input, png_files
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.extraction.detectors import build_detector
from odfs_jax.extraction.filters import build_filters, build_person_filter
from odfs_jax.extraction.journal import (
    Done,
    ExtractionJournal,
    begin_part,
    check_same,
    prepare,
)
from odfs_jax.extraction.landmarkers import build_landmarker
from odfs_jax.extraction.pipeline import FaceWriter, Finder, batch_starts, extract_frames
from odfs_jax.extraction.smoothing import build_smoother, reach
from odfs_jax.extraction.writing import MANUAL, debug_folder, write_lists
from odfs_jax.faces.types import FaceType
from odfs_jax.frame_ranges import Shard, parse_frame_ranges, parse_shard
from odfs_jax.runtime import devices
from odfs_jax.runtime.progress import progress

log = logging.getLogger(__name__)

SIZES = (16, 4096)  # pixels of an aligned face
CALLS_ON_CPU = 4  # at once, where there are as many cores


def extract(config: DictConfig) -> None:
    """Extracts the faces of every side that `config`, an extract configuration, names.

    With `masks` a mask network writes what it sees of each face into its PNG afterwards.
    `detector=manual` opens the studio on all frames of the last side instead; `manual_fix=true`
    opens it afterwards on the frames that need somebody, if there are any. The studio serves until
    Ctrl-C. With `shard` this is one of the workers that do a part of each clip; the last of them
    to end sums up. Raises UserError for settings, inputs and aligned folders that do not go
    together, and where a side has no face in any frame.
    """
    shard = parse_shard(config.shard, config.shards)
    if shard is not None:
        _refuse_with_shards(config)
    mask_model = _find_mask_model(config) if config.masks else None

    # ---- By hand only

    if config.detector.name == MANUAL:
        for side in config.data.sides:
            find_input(config.workspace, side, config.data[side])  # raises when it is missing
        _serve_studio(config, config.data.sides[-1], show="all")
        return

    # ---- Settings: a mistake is named before anything slow begins

    devices.prepare(config.hardware)
    face_type = checked_face_type(config.face_type, config.size)
    chosen = parse_frame_ranges(config.frames, config.every)
    smoother = build_smoother(config.smoothing)
    filters = build_filters(config.filters, config.max_faces)

    with ExitStack() as stack:
        # ---- Inputs, and what earlier runs left: all sides are checked before the first is run

        checked = []
        for side in config.data.sides:
            folder = Path(config.data[side].aligned)
            clip = find_input(config.workspace, side, config.data[side])
            source = stack.enter_context(open_frames(clip))
            check_writable(folder.parent)  # lists are written beside the faces
            folder.mkdir(parents=True, exist_ok=True)
            part = stack.enter_context(ExitStack())  # left when this side is done
            part.enter_context(locked(folder, "extracting faces", shard and str(shard)))
            faces = _read_aligned(folder)
            settings, own, frames = _settings(config, source), chosen, source.count
            if shard is not None:
                frames = source.exact_count()
                own = chosen.part(shard.number, shard.count, frames)
                cut = {
                    "shards": shard.count,
                    "frames": str(chosen),
                    "every": chosen.every,
                    "length": frames,  # of the clip; a folder may get more pictures
                    "detector.batch_size": config.detector.batch_size,  # moves the last digits
                }
                journal = begin_part(folder, shard, faces, settings, cut, side)
            else:
                journal = ExtractionJournal.read(folder)
                if not config.overwrite:
                    check_same(journal, faces, settings, side)
            checked.append((side, source, settings, journal, faces, own, frames, part))

        # ---- Detectors and landmarkers, one of each for every call at once

        finders = build_finders(config)
        detector, landmarker = finders[0].detector, finders[0].landmarker
        if config.identity is not None:
            examples = Path(config.identity)
            person = build_person_filter(examples, config.identity_limit, detector, landmarker)
            filters.append(person)

        for side, source, settings, journal, faces, own, frames, part in checked:
            # ---- What is left to do

            steady = None if source.is_folder else smoother  # pictures need not follow each other
            margin = detector.radius + (0 if steady is None else reach(steady))
            plan = prepare(journal, faces, settings, chosen, own, source, margin, config.overwrite)
            first, stop = None, chosen.stop
            if shard is not None:
                starts = batch_starts(detector, source, chosen, frames)
                first, stop = plan.read_whole_batches(starts, frames)
            source.select(plan.reads, stop, first)
            done_before = sum(done.frame in own for done in journal.frames.values())
            total = None if frames is None else own.count(frames) - done_before

            # ---- Frames to aligned PNGs; the journal notes a frame after its faces

            debug = debug_folder(journal.folder) if config.debug else None
            write = FaceWriter(journal.folder, face_type, config.size, detector.name, plan, debug)
            frame_count = face_count = 0
            start = time.monotonic()
            with closing(extract_frames(source, finders, filters, steady, write)) as outcomes:
                for outcome in progress(outcomes, total, f"extract {side}"):
                    frame, written, dropped = outcome.frame, outcome.written, outcome.dropped
                    plan.finish(frame, written)
                    journal.add(
                        Done(frame.file, frame.index, frame.pts, len(written), tuple(dropped))
                    )
                    frame_count += 1
                    face_count += len(written)
                    for face in dropped:
                        where = frame.file, frame.index
                        log.warning("%s, frame %d: a face left out (%s)", *where, face.reason)
            plan.end()
            rate = frame_count / (time.monotonic() - start)
            log.info("extract %s: %d frames, %.1f frames/s", side, frame_count, rate)

            for error in source.bad:
                log.warning("skipped: %s", error)

            # ---- Lists of what was not written, and the counts: of the whole clip

            if shard is None:
                _sum_up(journal, source, done_before)
                continue
            journal.end_part()
            log.info("extract %s: shard %s has ended, %d faces", side, shard, face_count)
            part.close()
            _join_parts(journal, source)

    # ---- What of the faces is seen

    if mask_model is not None:
        from odfs_jax.curation.masks import apply_network

        for side in config.data.sides:
            folder = Path(config.data[side].aligned)
            apply_network(folder, aligned_files(folder, side), mask_model)

    # ---- By hand, where the detector needs help

    if config.manual_fix:
        doubtful = {}
        for side in config.data.sides:
            journal = ExtractionJournal.read(Path(config.data[side].aligned))
            doubtful[side] = len(journal.doubtful())
            log.info("%s: %d frames to place faces in by hand", side, doubtful[side])
        worst = max(doubtful, key=doubtful.get)
        if doubtful[worst]:
            _serve_studio(config, worst, show="doubtful")


def _find_mask_model(config: DictConfig) -> Path:
    """The folder of the mask network that faces are to be seen by. Raises UserError."""
    from odfs_jax.saved_model import find_model  # whose import takes a second

    if config.detector.name == MANUAL:
        raise UserError("masks=true: placing faces by hand comes first; then masks.py action=apply")
    return find_model(Path(config.workspace) / "models", config.mask_model, masks=True)


def _refuse_with_shards(config: DictConfig) -> None:
    """Raises UserError for what several workers cannot do at once."""
    if config.masks:
        raise UserError(f"shards={config.shards}: masks come after it; then masks.py action=apply")
    if config.detector.name == MANUAL or config.manual_fix:
        raise UserError(f"shards={config.shards}: placing faces by hand comes after it, by itself")
    if config.overwrite:
        raise UserError(
            f"shards={config.shards}: overwrite=true is for one worker; extract into a new folder "
            "(data.SIDE.aligned=), or move the old faces away"
        )


def _join_parts(journal: ExtractionJournal, source: FrameSource) -> None:
    """Once all parts have ended: their journals become one, and lists and counts are written.

    The last worker does it; `journal` is that of its own part, which has ended. Raises UserError
    where the clip has no face in any frame.
    """
    folder, count = journal.folder, journal.shard.count
    names = {str(Shard(number, count)) for number in range(count)}
    left = names.difference(ExtractionJournal.read(folder).ended)
    if left and journal.path.exists():
        log.info("%s: %d of %d shards have not ended", folder, len(left), count)
        return
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder, "joining shards"))
        except InUseError as error:
            log.info("%s; that one joins the shards", error)
            return
        if journal.path.exists():  # else another one has joined them just now
            whole = ExtractionJournal.read(folder)
            whole.absorb_parts()
            _sum_up(whole, source, 0)


def _sum_up(journal: ExtractionJournal, source: FrameSource, done_before: int) -> None:
    """Writes the lists of what was not written, and logs the counts in one line.

    Raises UserError where there is no face in any frame.
    """
    lists = write_lists(journal, source.is_folder)
    frames = journal.frames.values()
    face_count, dropped_count = sum(d.faces for d in frames), sum(len(d.dropped) for d in frames)
    if not face_count:
        why = "where heads lie or hang, detector.rotations=[90,180,270] overwrite=true finds them"
        if dropped_count:
            why = f"{dropped_count} faces were found and left out"
        raise UserError(f"{source.path}: no face in any of its {len(frames)} frames; {why}")
    log.info(
        "%d frames, %d faces, %d frames without a face (%s), %d faces left out (%s), "
        "%d problems reading%s: %s",
        len(frames), face_count, lists.count, lists.path, dropped_count, lists.dropped,
        len(source.bad), f", {done_before} frames done before" if done_before else "",
        journal.folder,
    )  # fmt: skip


def _serve_studio(config: DictConfig, side: str, show: str) -> None:
    """Serves the page for placing faces by hand, until Ctrl-C; `show` is "all" or "doubtful"."""
    # An extra, which automatic extraction does not need.
    from odfs_jax.studio.server import serve
    from odfs_jax.studio.workspace import StudioWorkspace

    page = f"/extract?side={side}&show={show}"
    serve(
        StudioWorkspace(Path(config.workspace)), OmegaConf.to_container(config, resolve=True), page
    )


def _read_aligned(folder: Path) -> dict[Path, FaceData]:
    """The aligned faces in `folder`. Raises UserError when a PNG is not one."""
    faces = {}
    for path in sorted(png_files(folder)):
        try:
            faces[path] = read_face(path)
        except BadFileError as error:
            if not path.exists():
                continue  # another shard's, which it writes again
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
    """A finder for each call at once on each device that `config.hardware` chooses.

    On a CPU there are several, for XLA:CPU spreads the work of small networks badly over the cores
    and several calls fill them. Raises UserError.
    """
    finders = []
    for device in devices.choose(config.hardware):
        with jax.default_device(device):
            pair = build_detector(config.detector), build_landmarker(config.landmarks)
        calls = min(cores(), CALLS_ON_CPU) if device.platform == "cpu" else 1
        finders += [Finder(device, *pair)] * calls
    return finders


def checked_face_type(name: str, size: int) -> FaceType:
    """The face type called `name`, if a picture may have `size` pixels. Raises UserError."""
    names = [face_type.value for face_type in FaceType]
    if name not in names:
        raise UserError(f"face_type={name}: expected one of {', '.join(names)}")
    if not SIZES[0] <= size <= SIZES[1]:
        raise UserError(f"size={size}: expected {SIZES[0]} to {SIZES[1]} pixels")
    return FaceType(name)
