"""Frames of a clip that need not be searched all over, for their neighbours were.

A face is near where it was a moment ago, and where it is a moment later. So of frames that follow
each other every `stride`-th is searched, and the detector looks at the others only there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from odfs_jax.data.media.frames import Frame
from odfs_jax.data.scene_cuts import is_scene_cut, subsampled
from odfs_jax.extraction.boxes import union_overlap
from odfs_jax.extraction.detection import Detection


@dataclass(frozen=True)
class Gap:
    """A frame between two that are searched, by their places in a call's frames."""

    place: int
    before: int
    after: int

    def likely(self, faces: Sequence[Sequence[Detection]]) -> np.ndarray:
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


def searched(frames: Sequence[Frame], stride: int) -> np.ndarray:
    """Places int [n] of the `frames` to be searched all over, ascending.

    Pictures of a folder; of a clip the first and the last frame, those whose number is a multiple
    of `stride`, both sides of a gap in the numbers, and what is unlike both searched neighbours.
    """
    if stride == 1 or any(frame.pts is None for frame in frames):
        return np.arange(len(frames))
    numbers = np.array([frame.index for frame in frames])
    chosen = numbers % stride == 0
    chosen[[0, -1]] = True
    jumps = np.diff(numbers) != 1
    chosen[:-1] |= jumps
    chosen[1:] |= jumps
    few = [subsampled(frame.image) for frame in frames]
    for gap in gaps(np.flatnonzero(chosen)):
        chosen[gap.place] = all(
            is_scene_cut(few[gap.place], few[e]) for e in (gap.before, gap.after)
        )
    return np.flatnonzero(chosen)


def gaps(places: np.ndarray) -> list[Gap]:
    """The frames between the searched ones at `places`."""
    pairs = zip(places[:-1].tolist(), places[1:].tolist(), strict=True)
    return [Gap(place, *pair) for pair in pairs for place in range(pair[0] + 1, pair[1])]
