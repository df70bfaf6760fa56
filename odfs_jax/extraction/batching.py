"""Frames in batches of one size, as a detector takes them."""

from collections.abc import Generator, Iterable
from contextlib import closing

from odfs_jax.data.media.frames import Frame
from odfs_jax.extraction.detection import Detection, Detector

MAX_WAITING = 32  # frames of different sizes that wait for others of their size

Batch = list[tuple[Frame, list[Detection]]]


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
