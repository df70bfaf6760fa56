"""Frames in, swapped frames out: faces of several frames share a batch on the device."""

import dataclasses
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice, zip_longest

import numpy as np

from odfs_jax.conversion.merge import Merge
from odfs_jax.conversion.regions import SIDES, Region, read_region, write_region
from odfs_jax.conversion.targets import Targets
from odfs_jax.data.frames import Frame
from odfs_jax.inference import Swapper

FULL_BATCH_SIDE = 512  # larger regions go in smaller batches, so that memory stays bounded

Job = tuple[np.ndarray, Region]  # a frame's pixels, changed in place, and one face in them


@dataclass
class Counts:
    """What happened to the faces and frames."""

    frames: int = 0
    faces: int = 0  # swapped
    empty: int = 0  # frames without a face
    unclear: int = 0  # faces for which the network gave no solid mask


@dataclass
class FaceMerger:
    """Merges the faces of many frames in batches of fixed shapes."""

    swapper: Swapper
    merge: Merge
    batch_size: int
    counts: Counts = dataclasses.field(default_factory=Counts)

    def frames(self, frames: Generator[Frame], targets: Targets) -> Generator[Frame]:
        """`frames` in their order, with the faces in `targets` swapped; the others as they came."""
        with closing(frames):
            while chunk := list(islice(frames, self.batch_size)):
                yield from self._chunk(chunk, targets)

    def _chunk(self, chunk: list[Frame], targets: Targets) -> list[Frame]:
        made = self.swapper.made
        regions = [targets.take(frame, made.face_type, made.resolution) for frame in chunk]
        changed = [
            dataclasses.replace(frame, image=frame.image.copy()) if faces else frame
            for frame, faces in zip(chunk, regions, strict=True)
        ]
        # A near face is cut out after the far ones of its frame are merged: one a round.
        for faces in zip_longest(*regions):
            pairs = zip(changed, faces, strict=True)
            self._round([(frame.image, region) for frame, region in pairs if region])
        self.counts.frames += len(chunk)
        self.counts.empty += sum(not faces for faces in regions)
        return changed

    def _round(self, jobs: list[Job]) -> None:
        """Merges `jobs`, at most one a frame."""
        running = []
        for side, batch in _batches(jobs, self.batch_size):
            batch = [(image, region.widened(side)) for image, region in batch]
            pixels = [read_region(image, region) for image, region in batch]
            matrices = [region.matrix for _, region in batch]
            missing = _capacity(side, self.batch_size) - len(batch)  # shapes stay the same
            stacked = (np.stack(a + [a[-1]] * missing) for a in (pixels, matrices))
            running.append((batch, self.merge(self.swapper.params, *stacked)))
        for batch, (merged, sides) in running:
            merged, sides = np.asarray(merged), np.asarray(sides)[: len(batch)]
            for index, (image, region) in enumerate(batch):
                write_region(image, region, merged[index])
            self.counts.faces += int((sides > 0).sum())
            self.counts.unclear += int((sides == 0).sum())


def _batches(jobs: list[Job], batch_size: int) -> Generator[tuple[int, list[Job]]]:
    """(region side, jobs) of each device call: a face may share one that is a size too large."""
    waiting = sorted(jobs, key=lambda job: job[1].side)
    while waiting:
        side = waiting[-1][1].side
        smallest = SIDES[max(SIDES.index(side) - 1, 0)]
        room = _capacity(side, batch_size)
        batch = [job for job in waiting if job[1].side >= smallest][-room:]
        waiting = waiting[: len(waiting) - len(batch)]
        yield side, batch


def _capacity(side: int, batch_size: int) -> int:
    """Faces in a device call of regions of `side` pixels."""
    return max(1, min(batch_size, batch_size * FULL_BATCH_SIDE**2 // side**2))
