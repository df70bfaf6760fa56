"""Key frames: any detector that can refine boxes, searching only every few frames of a clip.

A face is near where it was a moment ago, and where it is a moment later. So of frames that follow
each other every `stride`-th is searched all over, and in those between the detector looks only
where their neighbors have faces.
"""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from odfs_jax.data.media.frames import Frame, is_scene_cut, subsampled
from odfs_jax.extraction.boxes import union_overlap
from odfs_jax.extraction.detection import Detection, Detector, FrameBatch, batches_of_one_size


class RefiningDetector(Protocol):
    """A detector that also looks near given boxes only, which costs less than a search."""

    name: str

    def frames_per_call(self, height: int, width: int) -> int:
        """How many frames of this size a call takes at most."""
        ...

    def load(self, frames: Sequence[Frame], count: int) -> Any:
        """What `search` and `refine` read of the `frames`, at most `count` of one size."""
        ...

    def search(self, loaded: Any, places: np.ndarray, at_once: int) -> list[list[Detection]]:
        """For each loaded frame its faces, the largest first; none for frames not in `places`.

        `places` int [n] are positions in the loaded frames; `at_once` of them go through the
        network together. A constant `at_once` compiles once.
        """
        ...

    def refine(self, loaded: Any, places: np.ndarray, boxes: np.ndarray) -> list[list[Detection]]:
        """For each loaded frame the faces near its boxes, the largest first.

        `boxes` float32 [m,4] (left, top, right, bottom; pixels) lie in the frames at `places`
        int [m].
        """
        ...


class KeyframeDetector(Detector):
    """`inner` on every `stride`-th frame of a clip, and between them near the faces found there.

    Searched all over are also pictures of a folder, the ends of a clip and of a gap in it, frames
    unlike both searched neighbors, and those in which a face of a neighbor is lost. What is found
    in a frame depends on the frames around it, not on where a run began.
    """

    def __init__(self, inner: RefiningDetector, stride: int) -> None:
        self.name = inner.name
        self.radius = stride - 1
        self._inner, self._stride = inner, stride

    def frames_per_call(self, height: int, width: int) -> int:
        """How many frames of this size a call takes: as many as begin and end with a key frame."""
        most = self._inner.frames_per_call(height, width)
        return most - (most - 1) % self._stride if most > self._stride else most

    def batches(self, frames: Iterable[Frame]) -> Generator[FrameBatch]:
        """`frames` in batches that begin and end with a key frame, which two batches share."""
        return batches_of_one_size(frames, self.frames_per_call, self._ends_batch)

    def _ends_batch(self, frames: Sequence[Frame], most: int) -> bool:
        """True when the last of `frames` is the last key frame that fits into `most` frames."""
        last = frames[-1]
        is_key = last.pts is not None and last.index % self._stride == 0
        return is_key and most > self._stride and len(frames) + self._stride > most

    def __call__(self, frames: Sequence[Frame]) -> list[list[Detection]]:
        """The faces of each of at most `frames_per_call` frames of one size, the largest first."""
        count = self.frames_per_call(*frames[0].image.shape[:2])
        places = searched(frames, self._stride if self._stride < count else 1)
        between = gaps(places)
        at_once = -(-(count - 1) // self._stride) + 1 if between else count
        loaded = self._inner.load(frames, count)
        faces = self._inner.search(loaded, places, at_once)
        between = [gap for gap in between if gap.faces_beside(faces)]
        if between:
            near = self._inner.refine(loaded, *candidates_from_neighbors(between, faces))
            lost = [gap.place for gap in between if len(near[gap.place]) < gap.faces_beside(faces)]
            if lost:
                again = self._inner.search(loaded, np.array(lost), at_once)
                for place in lost:
                    near[place] = again[place]
            for gap in between:
                faces[gap.place] = near[gap.place]
        return faces[: len(frames)]


@dataclass(frozen=True)
class Gap:
    """A frame between two that are searched; all three by their places in a call's frames."""

    place: int
    before: int
    after: int

    def faces_beside(self, faces: Sequence[Sequence[Detection]]) -> int:
        """How many faces the one of both searched frames has that has more; `faces` by place."""
        return max(len(faces[self.before]), len(faces[self.after]))

    def candidates(self, faces: Sequence[Sequence[Detection]]) -> np.ndarray:
        """float32 [n,4]: where its faces may be, when those `before` and `after` are known.

        Each box of either, and what lies between the two of a face that moved.
        """
        share = (self.place - self.before) / (self.after - self.before)
        before, after = (
            np.array([face.box for face in faces[end]], np.float32).reshape(-1, 4)
            for end in (self.before, self.after)
        )
        moved = []
        for box in before if len(after) else ():
            overlap = union_overlap(box, after)
            if overlap.max() > 0:
                moved.append(box + np.float32(share) * (after[overlap.argmax()] - box))
        return np.concatenate([before, after, np.reshape(moved, (-1, 4)).astype(np.float32)])


def candidates_from_neighbors(
    between: Sequence[Gap], faces: Sequence[Sequence[Detection]]
) -> tuple[np.ndarray, np.ndarray]:
    """(Place int [m], box float32 [m,4]) of all candidates of the frames `between` key frames."""
    boxes = [gap.candidates(faces) for gap in between]
    places = np.repeat([gap.place for gap in between], [len(own) for own in boxes])
    return places, np.concatenate(boxes)


def searched(frames: Sequence[Frame], stride: int) -> np.ndarray:
    """Places int [n] of the `frames` to be searched all over, ascending.

    All pictures of a folder; of a clip the first and the last frame, those whose number is a
    multiple of `stride`, both sides of a gap in the numbers, and what is unlike both searched
    neighbors.
    """
    if stride == 1 or any(frame.pts is None for frame in frames):
        return np.arange(len(frames))
    numbers = np.array([frame.index for frame in frames])
    chosen = numbers % stride == 0
    chosen[[0, -1]] = True
    jumps = np.diff(numbers) != 1
    chosen[:-1] |= jumps
    chosen[1:] |= jumps
    small = [subsampled(frame.image) for frame in frames]
    for gap in gaps(np.flatnonzero(chosen)):
        ends = small[gap.before], small[gap.after]
        chosen[gap.place] = all(is_scene_cut(small[gap.place], end) for end in ends)
    return np.flatnonzero(chosen)


def gaps(places: np.ndarray) -> list[Gap]:
    """The frames between the searched ones at `places`."""
    pairs = zip(places[:-1].tolist(), places[1:].tolist(), strict=True)
    return [Gap(place, *pair) for pair in pairs for place in range(pair[0] + 1, pair[1])]
