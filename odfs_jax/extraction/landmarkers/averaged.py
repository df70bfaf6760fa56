"""Steadier landmarks from any landmarker: the mean over shifted crops, and a second look."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from odfs_jax.extraction.detection import Detection, Landmarker

SHIFT = 0.03  # of the box's mean side: how far the crops are shifted at most
SCALE = 0.06  # how much larger or smaller they get at most
GOLDEN = math.pi * (3 - math.sqrt(5))  # the angle that spreads any number of points evenly


class AveragedLandmarker:
    """The mean of what `inner` finds in `count` slightly different crops of a face.

    A landmarker's error depends on how its crop lies; the mean keeps what they agree on.
    """

    def __init__(self, inner: Landmarker, count: int) -> None:
        self.name = inner.name
        self._inner = inner
        self._count = count

    def __call__(
        self, images: Sequence[np.ndarray], faces: Sequence[Detection]
    ) -> list[np.ndarray]:
        shifted = [moved(face, i, self._count) for face in faces for i in range(self._count)]
        pictures = [image for image in images for _ in range(self._count)]
        found = self._inner(pictures, shifted)
        return [
            np.mean(found[i : i + self._count], axis=0) for i in range(0, len(found), self._count)
        ]


class TwoPassLandmarker:
    """What `second` finds in a crop that is aligned by what `first` found."""

    def __init__(self, first: Landmarker, second: Landmarker) -> None:
        self.name = first.name
        self._first, self._second = first, second

    def __call__(
        self, images: Sequence[np.ndarray], faces: Sequence[Detection]
    ) -> list[np.ndarray]:
        first = self._first(images, faces)
        good = [i for i, points in enumerate(first) if np.isfinite(points).all()]
        known = [replace(faces[i], landmarks=first[i]) for i in good]
        for i, points in zip(good, self._second([images[i] for i in good], known), strict=True):
            first[i] = points
        return first


def moved(face: Detection, number: int, count: int) -> Detection:
    """`face` as crop `number` of `count` starts from it: shifted, and scaled about its middle.

    The first one is not moved; the others lie evenly in a disc.
    """
    if number == 0:
        return face
    middle = (face.box[:2] + face.box[2:]).astype(np.float64) / 2
    reach = SHIFT * float((face.box[2:] - face.box[:2]).mean()) * math.sqrt(number / (count - 1))
    shift = reach * np.array([math.cos(number * GOLDEN), math.sin(number * GOLDEN)])
    scale = 1 + SCALE * (2 * number / count - 1)

    def move(points: np.ndarray | None) -> np.ndarray | None:
        return None if points is None else (points - middle) * scale + middle + shift

    box = move(face.box.reshape(2, 2)).reshape(4)
    return replace(face, box=box, points=move(face.points), landmarks=move(face.landmarks))
