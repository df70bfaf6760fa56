"""Faces that lie on their side or upside down: any detector, on turned frames as well."""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace

import numpy as np

from odfs_jax.data.media.frames import Frame
from odfs_jax.extraction import boxes
from odfs_jax.extraction.detection import Detection, Detector, FrameBatch, largest_first
from odfs_jax.faces import affine

SAME = 0.5  # overlap, as a share of the smaller box, above which two detections are one face


class RotatedDetector(Detector):
    """`inner` on the frames as they are and turned by each of `degrees` (90, 180, 270).

    Of detections that overlap, the one with the highest score stays.
    """

    def __init__(self, inner: Detector, degrees: Sequence[int]) -> None:
        self.name = inner.name
        self.radius = inner.radius
        self._inner = inner
        self._degrees = (0, *degrees)

    def frames_per_call(self, height: int, width: int) -> int:
        """How many frames of this size a call takes: as many as `inner` takes."""
        return self._inner.frames_per_call(height, width)

    def batches(self, frames: Iterable[Frame]) -> Generator[FrameBatch]:
        """`frames` in the batches of `inner`."""
        return self._inner.batches(frames)

    def __call__(self, frames: Sequence[Frame]) -> list[list[Detection]]:
        """The faces of each of the `frames`, the largest first."""
        height, width, _ = frames[0].image.shape
        found: list[list[Detection]] = [[] for _ in frames]
        for degrees in self._degrees:
            turned = [turn(frame, degrees) for frame in frames]
            back = affine.invert(turned_from_frame(degrees, height, width))
            for faces, new in zip(found, self._inner(turned), strict=True):
                faces += [_turned_back(face, degrees, back) for face in new]
        return [largest_first(_without_duplicates(faces)) for faces in found]


def turn(frame: Frame, degrees: int) -> Frame:
    """`frame` turned against the clock by a multiple of 90 `degrees`."""
    return replace(frame, image=np.ascontiguousarray(np.rot90(frame.image, degrees // 90)))


def turned_from_frame(degrees: int, height: int, width: int) -> np.ndarray:
    """Matrix [2,3] from points of a frame of `height` x `width` to those of the turned frame."""
    cos, sin = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    linear = np.array([[cos, sin], [-sin, cos]], np.float64)
    edge = np.array([[0, width - 1], [0, height - 1]], np.float64)  # of the pixel centers
    start = (linear @ edge).min(axis=1, keepdims=True)  # what must come to lie at 0
    return np.concatenate([linear, -start], axis=1)


def _turned_back(face: Detection, degrees: int, back: np.ndarray) -> Detection:
    corners = affine.transform(back, face.box.reshape(2, 2).astype(np.float64))
    box = np.concatenate([corners.min(axis=0), corners.max(axis=0)]).astype(np.float32)
    points = None if face.points is None else affine.transform(back, face.points)
    return replace(face, box=box, points=points, turned=degrees)


def _without_duplicates(faces: list[Detection]) -> list[Detection]:
    if not faces:
        return []
    found = np.stack([face.box for face in faces]).astype(np.float32)
    scores = np.array([face.score for face in faces])
    return [faces[i] for i in boxes.suppress(found, scores, SAME, boxes.smaller_overlap)]
