"""Faces followed from frame to frame, so that their points can be smoothed over time.

Bounded memory: only the frames that a smoother looks ahead wait, and of those behind it the points
alone are kept.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Optional

import numpy as np

from odfs_jax.extraction.boxes import union_overlap
from odfs_jax.extraction.detection import Detection
from odfs_jax.extraction.smoothing import Smoother

GAP = 2  # frames that a face may be missing from, and is still followed
MIN_OVERLAP = 0.3  # of the points' boxes (intersection over union), for one face in two frames


@dataclass
class _Seen:
    """One face in one frame; linked to the same face before and after."""

    place: int  # of the frame in the sequence
    time: int
    points: np.ndarray
    before: Optional["_Seen"] = None
    after: Optional["_Seen"] = None

    @property
    def box(self) -> np.ndarray:
        return np.concatenate([self.points.min(axis=0), self.points.max(axis=0)])


def reach(smoother: Smoother) -> int:
    """How many frames to either side have a say in the points of a frame."""
    return smoother.radius + GAP + 1


def smoothed(
    frames: Iterable[tuple[int, list[Detection]]], smoother: Smoother
) -> Iterator[list[Detection]]:
    """The faces of each frame with smoothed landmarks, `smoother.radius` frames behind.

    `frames` are (time, faces) in order. Whatever was before and after, the result of a frame
    depends on the `reach` frames to either side alone.
    """
    recent: deque[list[_Seen]] = deque(maxlen=GAP + 1)
    waiting: deque[tuple[list[Detection], list[_Seen]]] = deque()
    for place, (time, faces) in enumerate(frames):
        seen = [_Seen(place, time, face.landmarks) for face in faces]
        for earlier in reversed(recent):
            _link(earlier, seen)
        recent.append(seen)
        waiting.append((faces, seen))
        if len(waiting) > smoother.radius:
            yield _smooth(*waiting.popleft(), smoother)
    while waiting:
        yield _smooth(*waiting.popleft(), smoother)


def _link(earlier: list[_Seen], now: list[_Seen]) -> None:
    """Links faces that were not followed yet with those of `now`, the best overlap first."""
    ends = [seen for seen in earlier if seen.after is None]
    starts = [seen for seen in now if seen.before is None]
    if not ends or not starts:
        return
    boxes = np.stack([seen.box for seen in starts])
    overlap = np.stack([union_overlap(seen.box, boxes) for seen in ends])
    while overlap.max() >= MIN_OVERLAP:
        i, j = np.unravel_index(overlap.argmax(), overlap.shape)
        ends[i].after, starts[j].before = starts[j], ends[i]
        overlap[i], overlap[:, j] = -1, -1


def _smooth(faces: list[Detection], seen: list[_Seen], smoother: Smoother) -> list[Detection]:
    return [
        replace(face, landmarks=_smoothed_points(one, smoother))
        for face, one in zip(faces, seen, strict=True)
    ]


def _smoothed_points(seen: _Seen, smoother: Smoother) -> np.ndarray:
    track, index = [seen], 0
    first = seen
    while (first := first.before) is not None and seen.place - first.place <= smoother.radius:
        track.insert(0, first)
        index += 1
    if first is not None:
        first.after.before = None  # lets go of what no later frame looks at
    last = seen
    while (last := last.after) is not None and last.place - seen.place <= smoother.radius:
        track.append(last)
    times = np.array([one.time for one in track])
    return smoother(times, np.stack([one.points for one in track]), index)
