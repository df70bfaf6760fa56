"""The faces of a clip as tracks: the same face from frame to frame.

Along a track colours are averaged, so that they do not flicker, and motion is seen.
"""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from odfs_jax.conversion.colors.base import Measured
from odfs_jax.conversion.face_region import Region
from odfs_jax.conversion.merge import Predicted
from odfs_jax.data.scene_cuts import is_scene_cut, subsampled

NEAR = 0.5  # of a face square's side: how far the same face may move in a frame
ALIKE = 1.5  # and how much larger or smaller it may become
GAP = 5  # frames that it may be missing for


@dataclass(eq=False)
class Face:
    """A face of a frame on its way through the merge."""

    number: int  # of the frame
    region: Region
    track: list["Face"]  # the same face in frames before and after, and this one
    predicted: Predicted | None = None  # on the host, without the first axis

    def steady(self, smoothing: int) -> Predicted:
        """What is predicted, its measurements averaged over `smoothing` frames before and after.

        Along the face's track, with a Hann window.
        """
        near = [face for face in self.track if abs(face.number - self.number) <= smoothing]
        apart = np.array([face.number - self.number for face in near])
        shares = 0.5 + 0.5 * np.cos(np.pi * apart / (smoothing + 1))
        steady = tuple(
            _mean([face.predicted.measured[i] for face in near], shares, measured)
            for i, measured in enumerate(self.predicted.measured)
        )
        return self.predicted._replace(measured=steady)

    def motion(self, region: Region) -> np.ndarray:
        """float32 [2, 3]: how the matrix of `region` changes in the time of a frame."""
        near = [face for face in self.track if abs(face.number - self.number) <= 1]
        first, last = near[0], near[-1]
        change = last._to_face() - first._to_face()
        change /= max(last.number - first.number, 1)
        change[:, 2] += change[:, :2] @ (region.left, region.top)
        return change.astype(np.float32)

    def _to_face(self) -> np.ndarray:
        """float64 [2, 3]: from the frame's pixels to the model's."""
        matrix = self.region.matrix.astype(np.float64)
        matrix[:, 2] -= matrix[:, :2] @ (self.region.left, self.region.top)
        return matrix


class Tracker:
    """Puts each frame's faces on the tracks of the frames before."""

    def __init__(self) -> None:
        self._number = 0
        self._tracks: list[list[Face]] = []
        self._before: np.ndarray | None = None

    def follow(self, image: np.ndarray, regions: list[Region]) -> list[Face]:
        """The faces in `regions` of the next frame, `image` uint8 [H, W, 3]."""
        if self._is_cut(image):
            self._tracks = []
        free = [track for track in self._tracks if self._number - track[-1].number <= GAP]
        self._tracks = list(free)
        faces = []
        for region in regions:
            track = min(free, key=lambda t: _distance(t[-1].region, region), default=None)
            if track is not None and _may_be_same(track[-1].region, region):
                free = [other for other in free if other is not track]
            else:
                track = []
                self._tracks.append(track)
            track.append(Face(self._number, region, track))
            faces.append(track[-1])
        self._number += 1
        return faces

    def forget(self, last: int) -> None:
        """Lets go of faces that are not among the `last` frames."""
        for track in self._tracks:
            while len(track) > 1 and self._number - track[0].number > last:
                del track[0]

    def _is_cut(self, image: np.ndarray) -> bool:
        before, self._before = self._before, subsampled(image)
        return before is not None and is_scene_cut(before, self._before)


def _distance(region: Region, other: Region) -> float:
    """Between the middles of two faces, in sides of the smaller one's face square."""
    middle, other_middle = (np.array([r.left, r.top]) + r.side / 2 for r in (region, other))
    side = min(region.face_side, other.face_side)
    return float(np.linalg.norm(middle - other_middle) / side)


def _may_be_same(region: Region, other: Region) -> bool:
    small, large = sorted((region.face_side, other.face_side))
    return _distance(region, other) <= NEAR and large <= ALIKE * small


def _mean(near: list[Measured], shares: np.ndarray, own: Measured) -> Measured:
    """The mean of `near` by `shares`, of those in which something was counted."""
    weights = shares * np.array([float(m.counted) for m in near])
    if not weights.sum():
        return own
    weights = (weights / weights.sum()).astype(np.float32)

    def mean(*values: Any) -> np.ndarray:
        return np.tensordot(weights, np.stack(values), 1)

    return Measured(jax.tree.map(mean, *(m.statistics for m in near)), np.float32(1))
