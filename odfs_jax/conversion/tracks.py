"""The faces of a clip as tracks: the same face from frame to frame.

Along a track, statistics of colors are averaged, so that colors do not flicker, and the motion of
the face is measured.
"""

from dataclasses import dataclass

import jax
import numpy as np

from odfs_jax.conversion.face_region import Region
from odfs_jax.conversion.merge import Prediction
from odfs_jax.data.media.frames import is_scene_cut, subsampled
from odfs_jax.faces.colors import ColorStats

MAX_MOVE = 0.5  # of a face square's side: how far the same face may move in a frame
MAX_SCALE = 1.5  # and how much larger or smaller it may become
MAX_GAP = 5  # frames that it may be missing for


@dataclass(eq=False)
class Face:
    """A face of a frame on its way through the merge."""

    number: int  # of the frame
    region: Region
    track: list["Face"]  # the same face in frames before and after, and this one
    prediction: Prediction | None = None  # on the host, without the first axis

    def smoothed_prediction(self, smoothing: int) -> Prediction:
        """The prediction with statistics averaged over `smoothing` frames before and after.

        The frames are those of the face's track, weighted with a Hann window.
        """
        near = [face for face in self.track if abs(face.number - self.number) <= smoothing]
        apart = np.array([face.number - self.number for face in near])
        shares = 0.5 + 0.5 * np.cos(np.pi * apart / (smoothing + 1))
        stats = {
            name: _mean([face.prediction.stats[name] for face in near], shares, own)
            for name, own in self.prediction.stats.items()
        }
        return self.prediction._replace(stats=stats)

    def motion(self, region: Region) -> np.ndarray:
        """float32 [2, 3]: how `region.model_from_region` changes in the time of a frame."""
        near = [face for face in self.track if abs(face.number - self.number) <= 1]
        first, last = near[0], near[-1]
        change = last._model_from_frame() - first._model_from_frame()
        change /= max(last.number - first.number, 1)
        change[:, 2] += change[:, :2] @ (region.left, region.top)
        return change.astype(np.float32)

    def _model_from_frame(self) -> np.ndarray:
        matrix = self.region.model_from_region.astype(np.float64)
        matrix[:, 2] -= matrix[:, :2] @ (self.region.left, self.region.top)
        return matrix


class Tracker:
    """Continues the tracks of the frames before with each frame's faces."""

    def __init__(self) -> None:
        self._number = 0
        self._tracks: list[list[Face]] = []
        self._previous: np.ndarray | None = None

    def add_frame(self, image: np.ndarray, regions: list[Region]) -> list[Face]:
        """The faces in `regions` of the next frame, `image` uint8 [H, W, 3], on their tracks."""
        if self._is_scene_cut(image):
            self._tracks = []
        free = [track for track in self._tracks if self._number - track[-1].number <= MAX_GAP]
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

    def drop_old(self, count: int) -> None:
        """Drops the faces of all but the last `count` frames, to free their memory."""
        for track in self._tracks:
            while len(track) > 1 and self._number - track[0].number > count:
                del track[0]

    def _is_scene_cut(self, image: np.ndarray) -> bool:
        previous, self._previous = self._previous, subsampled(image)
        return previous is not None and is_scene_cut(previous, self._previous)


def _distance(region: Region, other: Region) -> float:
    """Between the middles of two faces, in sides of the smaller one's face square."""
    middle, other_middle = (np.array([r.left, r.top]) + r.side / 2 for r in (region, other))
    side = min(region.face_side, other.face_side)
    return float(np.linalg.norm(middle - other_middle) / side)


def _may_be_same(region: Region, other: Region) -> bool:
    small, large = sorted((region.face_side, other.face_side))
    return _distance(region, other) <= MAX_MOVE and large <= MAX_SCALE * small


def _mean(near: list[ColorStats], shares: np.ndarray, own: ColorStats) -> ColorStats:
    """The mean of `near` by `shares`, of those that counted a pixel; `own` when none did."""
    weights = shares * np.array([float(stats.counted) for stats in near])
    if not weights.sum():
        return own
    weights = (weights / weights.sum()).astype(np.float32)

    def mean(*values: np.ndarray) -> np.ndarray:
        return np.tensordot(weights, np.stack(values), 1)

    return ColorStats(jax.tree.map(mean, *(stats.values for stats in near)), np.float32(1))
