"""Frames to aligned PNGs. Decoding, detection, landmarks and writing overlap.

    source -> batches of one size -> detect -> landmarks -> filters, smoothing -> crop and write

Each arrow is a short queue and each stage has threads of its own: detection and landmarks one for
each device, writing one for each core. So memory holds a fixed number of frames.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np

from odfs_jax.data.media.frames import Frame, FrameSource
from odfs_jax.data.parallel import cores, ordered_results, parallel_map, prefetch
from odfs_jax.extraction.detection import Detection, Detector, FrameBatch, Landmarker
from odfs_jax.extraction.filters import Filter, keep_all_of
from odfs_jax.extraction.journal import RUN, Dropped, ResumePlan
from odfs_jax.extraction.smoothing import Smoother, smoothed
from odfs_jax.extraction.writing import write_debug_picture, write_faces
from odfs_jax.faces.types import FaceType
from odfs_jax.frame_ranges import FrameRanges

T = TypeVar("T")
R = TypeVar("R")
FramesAndFaces = list[tuple[Frame, list[Detection]]]

AHEAD = 2  # batches that wait for each stage


@dataclass(frozen=True)
class Finder:
    """A detector and a landmarker that work on `device`."""

    device: jax.Device
    detector: Detector
    landmarker: Landmarker

    def detect(self, batch: FrameBatch) -> FramesAndFaces:
        """The frames of `batch`, but for its context, with their faces."""
        with jax.default_device(self.device):
            faces = self.detector(batch.frames)
        return list(zip(batch.frames, faces, strict=True))[batch.context :]

    def find_landmarks(self, found: FramesAndFaces) -> FramesAndFaces:
        """`found` with the landmarks of all faces; those that a detector gave stay as they are."""
        missing = [(frame.image, f) for frame, faces in found for f in faces if f.landmarks is None]
        if not missing:
            return found
        with jax.default_device(self.device):
            points = iter(self.landmarker(*zip(*missing, strict=True)))
        name = self.landmarker.name
        return [
            (frame, [face if face.landmarks is not None else
                     replace(face, landmarks=next(points), landmarker=name)
                     for face in faces])
            for frame, faces in found
        ]  # fmt: skip


@dataclass(frozen=True)
class KeptFaces:
    """The faces of a frame that are to be written, and those left out."""

    frame: Frame
    faces: list[Detection]
    dropped: list[Dropped]


@dataclass(frozen=True)
class Outcome:
    """What became of one frame: the aligned PNGs written, and faces left out with the reason.

    The `image` of `frame` is empty: outcomes may wait, and must not hold pictures.
    """

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

    def __call__(self, kept: KeptFaces) -> Outcome:
        frame = kept.frame
        paths = write_faces(
            self.folder, frame, kept.faces, self.face_type, self.size, self.detector,
            {RUN: self.plan.journal.run}, self.plan.avoid(frame),
        )  # fmt: skip
        if self.debug is not None:
            write_debug_picture(self.debug, frame, kept.faces, kept.dropped, self.face_type)
        empty = replace(frame, image=frame.image[:0].copy(), plate=None)
        return Outcome(empty, paths, kept.dropped)


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


def find_faces(source: FrameSource, finders: Sequence[Finder]) -> Generator[FramesAndFaces]:
    """The frames of `source` in batches of one size, with all faces and their landmarks."""
    batches = prefetch(finders[0].detector.batches(source), AHEAD)
    detected = prefetch(deal(batches, [finder.detect for finder in finders]), AHEAD)
    return prefetch(deal(detected, [finder.find_landmarks for finder in finders]), AHEAD)


def batch_starts(
    detector: Detector, source: FrameSource, chosen: FrameRanges, count: int
) -> list[int]:
    """The first frames of the batches in which one run would give `detector` those `chosen`.

    `source` has `count` frames; where pictures differ in size, batches are others than these.
    """
    blank = np.broadcast_to(np.uint8(0), (source.height, source.width, 3))
    name, is_folder = source.path.name, source.is_folder
    numbers = (number for number in range(count) if number in chosen)
    frames = (Frame(name, number, None if is_folder else number, blank) for number in numbers)
    return [batch.frames[0].index for batch in detector.batches(frames)]


def deal(items: Generator[T], functions: Sequence[Callable[[T], R]]) -> Generator[R]:
    """The results of `functions`, to which `items` are dealt round and round, in order of `items`.

    Each function has a thread of its own. Closing this generator closes `items`.
    """
    pools = [ThreadPoolExecutor(1, "finder") for _ in functions]
    players = cycle(zip(pools, functions, strict=True))
    futures = (
        pool.submit(function, item) for item, (pool, function) in zip(items, players, strict=False)
    )
    try:
        with closing(items):
            yield from ordered_results(futures, len(functions))
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)


def _keep(
    batches: Generator[FramesAndFaces],
    filters: Sequence[Filter],
    smoother: Smoother | None,
    plan: ResumePlan,
) -> Generator[KeptFaces]:
    """The frames to be written, filtered and, with a `smoother`, smoothed."""
    with closing(batches):
        frames = (
            KeptFaces(frame, *keep_all_of(filters, frame, faces))
            for batch in batches
            for frame, faces in batch
        )
        for kept in frames if smoother is None else _smooth(frames, smoother):
            if plan.writes(kept.frame):
                yield kept


def _smooth(frames: Iterator[KeptFaces], smoother: Smoother) -> Iterator[KeptFaces]:
    waiting: deque[KeptFaces] = deque()

    def timed() -> Iterator[tuple[int, list[Detection]]]:
        for kept in frames:
            waiting.append(kept)
            yield kept.frame.index, kept.faces

    for faces in smoothed(timed(), smoother):
        yield replace(waiting.popleft(), faces=faces)
