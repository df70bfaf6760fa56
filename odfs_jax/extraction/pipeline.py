"""Frames to aligned PNGs. Decoding, detection and writing overlap, each with a short queue."""

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from odfs_jax.data.aligned import write_face
from odfs_jax.data.frames import Frame, FrameSource
from odfs_jax.data.prefetch import prefetch
from odfs_jax.extraction.face import aligned_face
from odfs_jax.extraction.landmarks import Landmarker
from odfs_jax.extraction.mtcnn import Detection, Mtcnn
from odfs_jax.faces.types import FaceType

log = logging.getLogger(__name__)

AHEAD = 2  # batches decoded, and batches detected, that wait for the next stage
MAX_WAITING = 32  # frames of different sizes that wait for others of their size
WRITERS = 2  # threads that find points, cut and write


@dataclass(frozen=True)
class Outcome:
    """What became of one frame: the aligned PNGs written, and faces left out with the reason."""

    file: str
    index: int
    written: list[Path] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class FaceWriter:
    """Turns the detections of a frame into aligned PNGs `<frame>_<k>.png`, k = 0 the largest."""

    folder: Path
    face_type: FaceType
    size: int
    detector: str
    landmarker: Landmarker

    def __call__(self, frame: Frame, detections: list[Detection]) -> Outcome:
        outcome = Outcome(frame.file, frame.index)
        for detection in detections:
            try:
                image, data = aligned_face(
                    frame, detection, self.landmarker, self.face_type, self.size, self.detector
                )
            except ValueError as error:
                outcome.skipped.append(str(error))
                continue
            path = self.folder / f"{frame.index:05d}_{len(outcome.written)}.png"
            write_face(path, image, data)
            outcome.written.append(path)
        return outcome


def extract_frames(source: FrameSource, detector: Mtcnn, write: FaceWriter) -> Generator[Outcome]:
    """An outcome for every frame of `source`; the order is that of the batches.

    Close it (`contextlib.closing`) before `source` is closed.
    """
    batches = prefetch(_same_size(source, detector.frames_per_call), AHEAD)
    detected = prefetch(_detect(batches, detector), AHEAD)
    with closing(detected), ThreadPoolExecutor(WRITERS, "faces") as pool:
        jobs = (pool.submit(write, frame, faces) for batch in detected for frame, faces in batch)
        yield from _in_order(jobs, 2 * detector.batch_size)


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


def _detect(
    batches: Generator[list[Frame]], detector: Mtcnn
) -> Generator[list[tuple[Frame, list[Detection]]]]:
    with closing(batches):
        for batch in batches:
            faces = detector([frame.image for frame in batch])
            yield list(zip(batch, faces, strict=True))


def _in_order(jobs: Iterable[Future[Outcome]], ahead: int) -> Generator[Outcome]:
    """Results of `jobs`, at most `ahead` of them under way."""
    running: deque[Future[Outcome]] = deque()
    for job in jobs:
        running.append(job)
        if len(running) >= ahead:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()
