"""The frames of a clip through the mergers of its shots, in the order they came."""

from bisect import bisect_right
from collections import deque
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby

from odfs_jax.conversion.pipeline import FaceMerger
from odfs_jax.conversion.target_faces import Targets
from odfs_jax.data.media.frames import Frame, FrameWriter


@dataclass(frozen=True)
class Shots:
    """Which merger has which frames: `mergers[i]` those from `starts[i]` on; `starts[0]` is 0."""

    starts: list[int]
    mergers: list[FaceMerger]

    def frames(self, frames: Generator[Frame], targets: Targets) -> Generator[Frame]:
        """`frames` with the faces in `targets` swapped as their shots say."""
        with closing(frames):
            for number, part in groupby(frames, key=self.number):
                yield from self.mergers[number].frames((frame for frame in part), targets)

    def number(self, frame: Frame) -> int:
        """Which shot `frame` is in, from 0."""
        return bisect_right(self.starts, frame.index) - 1


@dataclass
class Resumption:
    """Leaves out what `writer` has of an earlier run that was stopped.

    The rest comes out as if nothing had been left out: faces that shared a batch do so again, and a
    merger sees the `lead` frames before the first that it is asked for.
    """

    writer: FrameWriter
    targets: Targets
    shots: Shots
    batch_size: int
    lead: int = 0
    kept: int = 0  # frames that were there

    def frames(self, frames: Generator[Frame]) -> Generator[Frame]:
        """`frames` from shortly before the first missing one on.

        The faces of those left out are taken out of `targets`.
        """
        earlier: deque[Frame] = deque()  # of the same shot, from the start of a batch on
        shot = 0
        with closing(frames):
            for frame in frames:
                if self.shots.number(frame) != shot:
                    shot = self.shots.number(frame)
                    self._drop(earlier, len(earlier))
                if not self.writer.has(frame):
                    batches = (len(earlier) - self.lead) // self.batch_size
                    self._drop(earlier, max(0, batches * self.batch_size))
                    yield from earlier
                    yield frame
                    break
                self.kept += 1
                earlier.append(frame)
                if len(earlier) == self.lead + 2 * self.batch_size:
                    self._drop(earlier, self.batch_size)
            else:
                self._drop(earlier, len(earlier))
            yield from frames

    def _drop(self, frames: deque[Frame], count: int) -> None:
        for _ in range(count):
            self.targets.drop(frames.popleft())

    def write(self, frame: Frame) -> None:
        """Writes `frame` unless it is there."""
        if not self.writer.has(frame):
            self.writer.write(frame)
