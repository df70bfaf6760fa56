"""Frames to aligned PNGs. Decoding, detection, landmarks and writing overlap.

    source -> batches of one size -> detect -> landmarks -> filters, smoothing -> cut and write

Each arrow is a short queue and each stage has threads of its own: detection and landmarks one for
each device, writing one for each core. So memory holds a fixed number of frames.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import TypeVar

import jax

from odfs_jax.data.media.frames import Frame, FrameSource
from odfs_jax.data.parallel import cores, ordered_results, parallel_map, prefetch
from odfs_jax.extraction.detection import Detection, Detector, Landmarker
from odfs_jax.extraction.filters import Filter, keep_all_of
from odfs_jax.extraction.journal import RUN, Dropped
from odfs_jax.extraction.reports import write_debug_picture
from odfs_jax.extraction.resume import ResumePlan
from odfs_jax.extraction.smoothing import Smoother
from odfs_jax.extraction.tracking import smoothed
from odfs_jax.extraction.writing import write_faces
from odfs_jax.faces.types import FaceType

T = TypeVar("T")
R = TypeVar("R")

Batch = list[tuple[Frame, list[Detection]]]

AHEAD = 2  # batches that wait for each stage
MAX_WAITING = 32  # frames of different sizes that wait for others of their size


@dataclass(frozen=True)
class Finder:
    """A detector and a landmarker that work on `device`."""

    device: jax.Device
    detector: Detector
    landmarker: Landmarker

    def detect(self, batch: list[Frame]) -> Batch:
        with jax.default_device(self.device):
            return list(zip(batch, self.detector(batch), strict=True))

    def find_landmarks(self, batch: Batch) -> Batch:
        with jax.default_device(self.device):
            return with_landmarks(batch, self.landmarker)


@dataclass(frozen=True)
class Found:
    """The faces of a frame that are to be written, and those left out."""

    frame: Frame
    faces: list[Detection]
    dropped: list[Dropped]


@dataclass(frozen=True)
class Outcome:
    """What became of one frame: the aligned PNGs written, and faces left out with the reason."""

    frame: Frame
    written: list[Path] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)


@dataclass(frozen=True)
class FaceWriter:
    """Turns the faces of a frame into aligned PNGs, and a picture of it in `debug` if given."""

    folder: Path
    face_type: FaceType
    size: int
    detector: str
    plan: ResumePlan
    debug: Path | None

    def __call__(self, found: Found) -> Outcome:
        frame = found.frame
        paths = write_faces(
            self.folder, frame, found.faces, self.face_type, self.size, self.detector,
            {RUN: self.plan.journal.run}, self.plan.avoid(frame),
        )  # fmt: skip
        if self.debug is not None:
            write_debug_picture(self.debug, frame, found.faces, found.dropped, self.face_type)
        # outcomes must not hold pictures
        light = replace(frame, image=frame.image[:0].copy(), plate=None)
        return Outcome(light, paths, found.dropped)


def extract_frames(
    source: FrameSource,
    finders: Sequence[Finder],
    filters: Sequence[Filter],
    smoother: Smoother | None,
    write: FaceWriter,
) -> Generator[Outcome]:
    """An outcome for every frame of `source` that `write.plan` wants written.

    With a `smoother` all frames must be of one size; the order then is that of the frames, and
    else that of the batches. Close it (`contextlib.closing`) before `source` is closed.
    """
    found = find_faces(source, finders)
    kept = prefetch(_keep(found, filters, smoother, write.plan), AHEAD)
    return parallel_map(write, kept, cores())


def find_faces(source: FrameSource, finders: Sequence[Finder]) -> Generator[Batch]:
    """The frames of `source` in batches of one size, with all faces and their landmarks."""
    batches = prefetch(same_size(source, finders[0].detector), AHEAD)
    detected = prefetch(each_once(spread(batches, [f.detect for f in finders])), AHEAD)
    return prefetch(spread(detected, [f.find_landmarks for f in finders]), AHEAD)


def spread(items: Generator[T], works: Sequence[Callable[[T], R]]) -> Generator[R]:
    """What `works` make of `items`, dealt to them in turn, each in a thread of its own; in order.

    Closing it closes `items`.
    """
    pools = [ThreadPoolExecutor(1, "finder") for _ in works]
    turns = cycle(zip(pools, works, strict=True))
    jobs = (pool.submit(work, item) for item, (pool, work) in zip(items, turns, strict=False))
    try:
        with closing(items):
            yield from ordered_results(jobs, len(works))
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)


def with_landmarks(batch: Batch, landmarker: Landmarker) -> Batch:
    """`batch` with the landmarks of all faces; those that a detector gave stay as they are."""
    missing = [(frame.image, f) for frame, faces in batch for f in faces if f.landmarks is None]
    points = iter(landmarker(*zip(*missing, strict=True)) if missing else ())
    return [
        (frame, [face if face.landmarks is not None else
                 replace(face, landmarks=next(points), landmarker=landmarker.name)
                 for face in faces])
        for frame, faces in batch
    ]  # fmt: skip


def _keep(
    batches: Generator[Batch],
    filters: Sequence[Filter],
    smoother: Smoother | None,
    plan: ResumePlan,
) -> Generator[Found]:
    """The frames to be written, filtered and, if asked, smoothed."""
    with closing(batches):
        frames = (
            Found(frame, *keep_all_of(filters, frame, faces))
            for batch in batches
            for frame, faces in batch
        )
        for found in frames if smoother is None else _smooth(frames, smoother):
            if plan.writes(found.frame):
                yield found


def _smooth(frames: Iterator[Found], smoother: Smoother) -> Iterator[Found]:
    waiting: deque[Found] = deque()

    def noted() -> Iterator[tuple[int, list[Detection]]]:
        for found in frames:
            waiting.append(found)
            yield found.frame.index, found.faces

    for faces in smoothed(noted(), smoother):
        yield replace(waiting.popleft(), faces=faces)


def same_size(frames: Iterable[Frame], detector: Detector) -> Generator[list[Frame]]:
    """Batches of frames of one size: pictures in a folder may differ.

    Where a detector has a stride above 1, a batch of a clip ends with a frame whose number is a
    multiple of it, and the next begins with the same frame: so what is found depends on a frame's
    number, not on where a run began. `each_once` takes the doubled ones out again.
    """
    waiting: dict[tuple[int, ...], list[Frame]] = {}
    doubled: Frame | None = None
    for frame in frames:
        shape = frame.image.shape
        most, stride = detector.frames_per_call(*shape[:2]), detector.stride
        group = waiting.setdefault(shape, [])
        group.append(frame)
        ends = (
            frame.pts is not None
            and most > stride > 1
            and frame.index % stride == 0
            and len(group) + stride > most
        )
        if ends or len(group) == most:
            yield waiting.pop(shape)
            if ends:
                doubled = frame
                waiting[shape] = [frame]
        elif len(waiting) > 1 and sum(map(len, waiting.values())) > MAX_WAITING:
            # many sizes must not fill memory
            yield waiting.pop(max(waiting, key=lambda shape: len(waiting[shape])))
    yield from (group for group in waiting.values() if len(group) > 1 or group[0] is not doubled)


def each_once(batches: Generator[Batch]) -> Generator[Batch]:
    """`batches` without a first frame that was the last one of the batch before."""
    last: Frame | None = None
    with closing(batches):
        for batch in batches:
            yield batch[1:] if batch[0][0] is last else batch
            last = batch[-1][0]
