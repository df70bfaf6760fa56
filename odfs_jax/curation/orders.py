"""The ways to sort: what is read of each face, and the order that is made of it.

Equal faces stay in the order of their names. Where nothing else is said,
the key is the 2018 program's: docs/reference_2018.md section 5.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from odfs_jax.curation import measures, pairwise
from odfs_jax.curation.people import people
from odfs_jax.data.aligned_png import FaceData, read_face, read_image_and_face
from odfs_jax.faces.identity import embedding

JUMP = 2.0  # times the mean step of the chain: where hist_blur begins a new group
BIN = 10.0  # degrees of yaw and of pitch in a bin of `best`


@dataclass(frozen=True)
class Key:
    """`read` gives the value of one file (raises BadFileError), `order` the indices of N values."""

    read: Callable[[Path], Any]
    order: Callable[[list], np.ndarray]


def largest_first(values: list[float]) -> np.ndarray:
    """Indices by descending value."""
    return np.argsort(-np.asarray(values, np.float64), kind="stable")


def smallest_first(values: list[tuple]) -> np.ndarray:
    """Indices by ascending tuple."""
    return np.array(sorted(range(len(values)), key=values.__getitem__))


def similar(
    distance: pairwise.Distance, arrange: pairwise.Arrange = pairwise.as_they_lie
) -> Callable[[list[np.ndarray]], np.ndarray]:
    """A greedy chain: from the first face always on to the nearest one left."""
    return lambda features: pairwise.chain(np.stack(features), distance, arrange)[0]


def dissimilar(distance: pairwise.Distance) -> Callable[[list[np.ndarray]], np.ndarray]:
    """By the sum of the distances to all others, the most different first."""
    return lambda features: largest_first(pairwise.totals(np.stack(features), distance))


def similar_then_sharp(values: list[tuple[np.ndarray, float]]) -> np.ndarray:
    """The chain of the histograms, cut before each step over JUMP times the mean; sharp ones first.

    `values` are (histogram, sharpness). The groups keep the order of the chain.
    """
    histograms, sharpness = zip(*values, strict=True)
    order, steps = pairwise.chain(np.stack(histograms), pairwise.bhattacharyya)
    mean = steps.sum() / max(1, len(steps) - 1)
    group = np.cumsum(steps > JUMP * mean)
    return order[np.lexsort((-np.array(sharpness)[order], group))]


def by_person(embeddings: list[np.ndarray]) -> np.ndarray:
    """Person by person, the most frequent first; of each the most typical face first.

    Strangers and faces that cannot be recognised come last. Not in the 2018 program.
    """
    return np.concatenate(people(np.stack(embeddings)))


def spread(values: list[tuple[float, float, float]]) -> np.ndarray:
    """The sharpest face of every bin of yaw and pitch, then the second sharpest of every bin, ...

    `values` are (sharpness, yaw, pitch); a bin is BIN x BIN degrees; within a round the sharpest is
    first. So the first n faces, for any n, cover the poses that there are as evenly as they can.
    Not in the 2018 program.
    """
    sharpness, *angles = np.array(values, np.float64).T
    bins = np.unique(np.floor(np.stack(angles, -1) / BIN), axis=0, return_inverse=True)[1]
    bins = bins.reshape(-1)
    by_bin = np.lexsort((-sharpness, bins))
    starts = np.searchsorted(bins[by_bin], bins)
    place = np.empty(len(bins), int)
    place[by_bin] = np.arange(len(bins))
    return np.lexsort((-sharpness, place - starts))


def _picture(measure: Callable[[np.ndarray], Any]) -> Callable[[Path], Any]:
    """Reads the picture of a file and measures it."""
    return lambda path: measure(read_image_and_face(path)[0])


def _data(measure: Callable[[FaceData], Any]) -> Callable[[Path], Any]:
    """Measures what a file carries, without decoding its picture."""
    return lambda path: measure(read_face(path))


def _origin(face: FaceData) -> tuple[str, int, float]:
    """Clip or picture, frame, and the larger face first: the order of extraction."""
    return face.source.file, face.source.frame, -_source_area(face)


def _source_area(face: FaceData) -> float:
    """Area of the detected box in pixels of the frame."""
    left, top, right, bottom = face.source.rect
    return (right - left) * (bottom - top)


def _shape(face: FaceData) -> np.ndarray:
    """The points [136] as shares of the picture, so that sizes may differ."""
    return (face.landmarks / face.size).astype(np.float32).reshape(-1)


def _histogram_and_sharpness(image: np.ndarray) -> tuple[np.ndarray, float]:
    return measures.histogram(image), measures.sharpness(image)


def _person(path: Path) -> np.ndarray:
    image, face = read_image_and_face(path)
    return embedding(image, face.landmarks)


def _sharpness_and_pose(path: Path) -> tuple[float, float, float]:
    image, face = read_image_and_face(path)
    return measures.sharpness(image), face.pose.yaw, face.pose.pitch


KEYS = {
    "blur": Key(_picture(measures.sharpness), largest_first),
    "motion_blur": Key(_picture(measures.least_gradient), largest_first),
    "hist": Key(_picture(measures.histogram), similar(pairwise.bhattacharyya)),
    "hist_dissim": Key(_picture(measures.histogram), dissimilar(pairwise.bhattacharyya_block)),
    "hist_blur": Key(_picture(_histogram_and_sharpness), similar_then_sharp),
    "face": Key(_data(_shape), similar(pairwise.l1)),
    "face_dissim": Key(_data(_shape), dissimilar(pairwise.l1_block)),
    "face_yaw": Key(_data(lambda face: face.pose.yaw), largest_first),
    "face_pitch": Key(_data(lambda face: face.pose.pitch), largest_first),
    "brightness": Key(_picture(measures.brightness), largest_first),
    "hue": Key(_picture(measures.hue), largest_first),
    "ssim": Key(
        _picture(measures.windows), similar(pairwise.dissimilarity, pairwise.windows_first)
    ),
    "origname": Key(_data(_origin), smallest_first),
    "source_size": Key(_data(_source_area), largest_first),
    "identity": Key(_person, by_person),
    "best": Key(_sharpness_and_pose, spread),
}
