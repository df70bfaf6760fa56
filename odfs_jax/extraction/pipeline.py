"""Frames to aligned PNGs. Decoding, detection, landmarks and writing overlap."""

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from odfs_jax.data.frames import Frame, FrameSource
from odfs_jax.data.prefetch import prefetch
from odfs_jax.extraction.detection import Detection, Detector, Landmarker
from odfs_jax.extraction.filters import Keep
from odfs_jax.extraction.journal import Dropped
from odfs_jax.extraction.writing import write_faces
from odfs_jax.faces.types import FaceType

Batch = list[tuple[Frame, list[Detection]]]

log = logging.getLogger(__name__)

AHEAD = 2  # batches that wait for each stage
MAX_WAITING = 32  # frames of different sizes that wait for others of their size
WRITERS = 2  # threads that cut and write
UNDER_WAY = 16  # frames that are being cut and written, or wait for it


@dataclass(frozen=True)
class Outcome:
    """What became of one frame: the aligned PNGs written, and faces left out with the reason."""

    file: str
    index: int
    written: list[Path] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)


@dataclass(frozen=True)
class FaceWriter:
    """Turns the detections of a frame into aligned PNGs `<frame>_<k>.png`, k = 0 the largest."""

    folder: Path
    face_type: FaceType
    size: int
    detector: str
    filters: Sequence[Keep]

    def __call__(self, frame: Frame, faces: list[Detection]) -> Outcome:
        dropped: list[Dropped] = []
        for keep in self.filters:
            faces, left_out = keep(faces)
            dropped += left_out
        paths = write_faces(self.folder, frame, faces, self.face_type, self.size, self.detector, {})
        return Outcome(frame.file, frame.index, paths, dropped)


def extract_frames(
    source: FrameSource, detector: Detector, landmarker: Landmarker, write: FaceWriter
) -> Generator[Outcome]:
    """An outcome for every frame of `source`; the order is that of the batches.

    Close it (`contextlib.closing`) before `source` is closed.
    """
    batches = prefetch(_same_size(source, detector.frames_per_call), AHEAD)
    detected = prefetch(_detect(batches, detector), AHEAD)
    found = prefetch(_find_landmarks(detected, landmarker), AHEAD)
    with closing(found), ThreadPoolExecutor(WRITERS, "faces") as pool:
        jobs = (pool.submit(write, frame, faces) for batch in found for frame, faces in batch)
        yield from _in_order(jobs, UNDER_WAY)


def _same_size(
    frames: Iterable[Frame], frames_per_call: Callable[[int, int], int]
) -> Generator[list[Frame]]:
    """Batches of frames of one size: pictures in a folder may differ."""
    waiting: dict[tuple[int, ...], list[Frame]] = {}
    for frame in frames:
        group = waiting.setdefault(frame.image.shape, [])
        group.append(frame)
        if len(group) == frames_per_call(*frame.image.shape[:2]):
            yield waiting.pop(frame.image.shape)
        elif sum(map(len, waiting.values())) > MAX_WAITING:  # many sizes must not fill memory
            yield waiting.pop(max(waiting, key=lambda shape: len(waiting[shape])))
    yield from waiting.values()


def _detect(batches: Generator[list[Frame]], detector: Detector) -> Generator[Batch]:
    with closing(batches):
        for batch in batches:
            yield list(zip(batch, detector(batch), strict=True))


def _find_landmarks(batches: Generator[Batch], landmarker: Landmarker) -> Generator[Batch]:
    with closing(batches):
        for batch in batches:
            yield with_landmarks(batch, landmarker)


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


def _in_order(jobs: Iterable[Future[Outcome]], ahead: int) -> Generator[Outcome]:
    """Results of `jobs`, at most `ahead` of them under way."""
    running: deque[Future[Outcome]] = deque()
    for job in jobs:
        running.append(job)
        if len(running) >= ahead:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()
