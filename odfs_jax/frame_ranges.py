"""Which frames of a clip, by their numbers from 0: the settings `frames=`, and `shard=`, `shards=`.

7  100-200  100-  -200  null      one frame, both ends included, to the end, from the start, all
[0-50,100-]  "0-50,100-"          several of them
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from odfs_jax.errors import UserError

RANGE = re.compile(r"\s*(?P<first>\d*)\s*((?P<dash>-)\s*(?P<last>\d*)\s*)?", re.ASCII)


@dataclass(frozen=True)
class FrameRanges:
    """Of each of the `ranges` the first frame and every `every`-th after it.

    A range is (first, last), both included; last None, only in the last range, is the clip's end.
    The ranges rise, with frames left out between them.
    """

    ranges: tuple[tuple[int, int | None], ...] = ((0, None),)
    every: int = 1

    def __str__(self) -> str:
        """The ranges as the setting `frames` has them."""
        return ",".join(f"{first}-{'' if last is None else last}" for first, last in self.ranges)

    def __contains__(self, frame: int) -> bool:
        """True when the frame of this number is chosen."""
        return any(
            first <= frame and (last is None or frame <= last) and (frame - first) % self.every == 0
            for first, last in self.ranges
        )

    @property
    def is_all(self) -> bool:
        """True when every frame of any clip is chosen."""
        return self == FrameRanges()

    @property
    def stop(self) -> int | None:
        """The number after which no frame is chosen, None where there is no such end."""
        last = self.ranges[-1][1]
        return None if last is None else last + 1

    def part(self, number: int, parts: int, frames: int) -> "FrameRanges":
        """Part `number` of `parts` of those chosen of a clip of `frames` frames, in their order.

        Parts differ by at most one frame. The last one goes on where the clip turns out longer.
        Raises UserError when a part would be empty.
        """
        total, before, ranges = self.count(frames), 0, []
        if total < parts:
            raise UserError(f"shards={parts}: more than the {total} frames that there are to do")
        begin, end = total * number // parts, total * (number + 1) // parts
        for first, last in self.ranges:
            stop = frames if last is None else min(frames, last + 1)
            numbers = range(first, stop, self.every)
            own = numbers[max(0, begin - before) : max(0, end - before)]
            before += len(numbers)
            if own:
                is_last = number == parts - 1 and own[-1] == numbers[-1]
                ranges.append((own[0], last if is_last else own[-1]))
        return FrameRanges(tuple(ranges), self.every)

    def count(self, frames: int) -> int:
        """How many are chosen of a clip of `frames` frames."""
        ends = [frames if last is None else min(frames, last + 1) for _, last in self.ranges]
        pairs = zip(self.ranges, ends, strict=True)
        return sum(len(range(first, end, self.every)) for (first, _), end in pairs)

    def near(self, frame: int, margin: int) -> Iterator[int]:
        """`frame`, which must be chosen, and the `margin` chosen ones before and after it."""
        yield frame
        yield from islice(self._after(frame), margin)
        yield from islice(self._before(frame), margin)

    def _after(self, frame: int) -> Iterator[int]:
        for first, last in self.ranges:
            number = first if first > frame else frame + self.every
            while last is None or number <= last:
                yield number
                number += self.every

    def _before(self, frame: int) -> Iterator[int]:
        for first, last in reversed(self.ranges):
            if first >= frame:
                continue
            inside = last is None or frame <= last
            end = frame - self.every if inside else last - (last - first) % self.every
            yield from range(end, first - 1, -self.every)


@dataclass(frozen=True)
class Shard:
    """Part `number`, from 0, of the `count` that a clip's frames are cut into, a worker each."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}-of-{self.count}"


def parse_shard(shard: int | None, shards: int) -> Shard | None:
    """The part that the settings `shard` and `shards` name; None: the whole. Raises UserError."""
    if shards < 1:
        raise UserError(f"shards={shards}: expected 1 or more")
    if shard is None and shards > 1:
        raise UserError(f"shards={shards}: which one does this worker do? shard=0 to {shards - 1}")
    if shard is not None and not 0 <= shard < shards:
        raise UserError(f"shard={shard}: expected 0 to {shards - 1}, for shards={shards}")
    return None if shards == 1 else Shard(shard, shards)


def parse_frame_ranges(frames: Any, every: int = 1) -> FrameRanges:
    """The frames that the settings `frames` and `every` choose; ranges that meet become one.

    `frames` is a text or a number, a list of them, or None for all. Raises UserError.
    """
    if every < 1:
        raise UserError(f"every={every}: expected 1 or more")
    if frames is None:
        return FrameRanges(every=every)
    parts = str(frames).split(",") if isinstance(frames, str | int) else list(frames)
    if not parts:
        raise UserError("frames=[]: no frames; null chooses all")
    return FrameRanges(_united(_parse_range(part) for part in parts), every)


def _parse_range(part: Any) -> tuple[int, int | None]:
    found = RANGE.fullmatch(str(part))
    if found is None or not (found["first"] or found["last"]):
        raise UserError(
            f"frames={part}: expected FIRST-LAST, FIRST-, -LAST or one number, or a list of them"
        )
    first = int(found["first"] or 0)
    last = int(found["last"]) if found["last"] else None if found["dash"] else first
    if last is not None and last < first:
        raise UserError(f"frames={part}: the last frame comes before the first")
    return first, last


def _united(ranges: Iterable[tuple[int, int | None]]) -> tuple[tuple[int, int | None], ...]:
    """`ranges` in rising order, those that overlap or follow on each other made one."""
    united: list[tuple[int, int | None]] = []
    for first, last in sorted(ranges, key=lambda pair: pair[0]):
        if united and (united[-1][1] is None or first <= united[-1][1] + 1):
            start, end = united.pop()
            first, last = start, None if None in (end, last) else max(end, last)
        united.append((first, last))
    return tuple(united)
