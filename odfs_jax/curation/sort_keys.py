"""The keys of `by=`: what is measured of each face, and how the values become an order.

Equal faces stay in the order of their names. A key is the 2018 program's, docs/reference_2018.md
section 5, unless its function says otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from odfs_jax.curation import measures, similarity
from odfs_jax.data.aligned_png import FaceData, read_face, read_image_and_face
from odfs_jax.faces.identity import embedding

JUMP = 2.0  # times the mean step of the chain: where hist_blur begins a new group
BIN = 10.0  # degrees of yaw and of pitch in a bin of `best`


@dataclass(frozen=True)
class SortKey:
    """`read` measures one file (raises BadFileError); `order` returns the indices of N values."""

    read: Callable[[Path], Any]
    order: Callable[[list], np.ndarray]


def largest_first(values: list[float]) -> np.ndarray:
    """Indices by descending value."""
    return np.argsort(-np.asarray(values, np.float64), kind="stable")


def smallest_first(values: list[tuple]) -> np.ndarray:
    """Indices by ascending tuple."""
    return np.array(sorted(range(len(values)), key=values.__getitem__))


def by_similarity(
    distance: similarity.Distance, layout: similarity.Layout = similarity.unchanged
) -> Callable[[list[np.ndarray]], np.ndarray]:
    """Orders features by a greedy chain: from the first face always on to the nearest one left."""
    return lambda features: similarity.greedy_chain(np.stack(features), distance, layout)[0]


def by_dissimilarity(distance: similarity.Distance) -> Callable[[list[np.ndarray]], np.ndarray]:
    """Orders features by the sum of the distances to all others, the most different first."""
    return lambda features: largest_first(similarity.total_distances(np.stack(features), distance))


def by_similarity_then_sharpness(values: list[tuple[np.ndarray, float]]) -> np.ndarray:
    """Orders faces in groups of similar histograms, in each group the sharpest first.

    `values` are (histogram [3, 256], sharpness). A group ends where the greedy chain of the
    histograms makes a step of more than JUMP times the mean; the groups keep the chain's order.
    """
    histograms, sharpness = zip(*values, strict=True)
    order, steps = similarity.greedy_chain(np.stack(histograms), similarity.bhattacharyya)
    mean = steps.sum() / max(1, len(steps) - 1)
    group = np.cumsum(steps > JUMP * mean)
    return order[np.lexsort((-np.array(sharpness)[order], group))]


def by_person(embeddings: list[np.ndarray]) -> np.ndarray:
    """Orders `embeddings` [128] by person, the most frequent first, the most typical face first.

    Strangers and faces that cannot be recognized come last. Not in the 2018 program.
    """
    return np.concatenate(similarity.group_people(np.stack(embeddings)))


def cover_poses(values: list[tuple[float, float, float]]) -> np.ndarray:
    """Orders faces so that the first n, for any n, cover the head poses as evenly as possible.

    The sharpest face of every bin of yaw and pitch comes first, then the second sharpest of every
    bin, and so on; within such a round the sharpest is first. `values` are (sharpness, yaw, pitch);
    a bin is BIN x BIN degrees. Not in the 2018 program.
    """
    sharpness, *angles = np.array(values, np.float64).T
    bins = np.unique(np.floor(np.stack(angles, -1) / BIN), axis=0, return_inverse=True)[1]
    bins = bins.reshape(-1)
    by_bin = np.lexsort((-sharpness, bins))
    starts = np.searchsorted(bins[by_bin], bins)
    rank = np.empty(len(bins), int)  # in the sorted list; less `starts`: in the bin
    rank[by_bin] = np.arange(len(bins))
    return np.lexsort((-sharpness, rank - starts))


def _of_image(measure: Callable[[np.ndarray], Any]) -> Callable[[Path], Any]:
    """A reader that measures the decoded picture of a file."""
    return lambda path: measure(read_image_and_face(path)[0])


def _of_data(measure: Callable[[FaceData], Any]) -> Callable[[Path], Any]:
    """A reader that measures the face data of a file, without decoding its picture."""
    return lambda path: measure(read_face(path))


def _origin(face: FaceData) -> tuple[str, int, float]:
    """Source file, frame, and the larger face first: the order of extraction."""
    return face.source.file, face.source.frame, -_source_area(face)


def _source_area(face: FaceData) -> float:
    """Area of the detected box in pixels of the frame."""
    left, top, right, bottom = face.source.rect
    return (right - left) * (bottom - top)


def _normalized_landmarks(face: FaceData) -> np.ndarray:
    """The landmarks [136] as fractions of the picture, so that sizes may differ."""
    return (face.landmarks / face.size).astype(np.float32).reshape(-1)


def _histogram_and_sharpness(image: np.ndarray) -> tuple[np.ndarray, float]:
    return measures.histogram(image), measures.sharpness(image)


def _embedding(path: Path) -> np.ndarray:
    image, face = read_image_and_face(path)
    return embedding(image, face.landmarks)


def _sharpness_and_pose(path: Path) -> tuple[float, float, float]:
    image, face = read_image_and_face(path)
    return measures.sharpness(image), face.pose.yaw, face.pose.pitch


SORT_KEYS = {
    "blur": SortKey(_of_image(measures.sharpness), largest_first),
    "motion_blur": SortKey(_of_image(measures.min_directional_gradient), largest_first),
    "hist": SortKey(_of_image(measures.histogram), by_similarity(similarity.bhattacharyya)),
    "hist_dissim": SortKey(
        _of_image(measures.histogram), by_dissimilarity(similarity.bhattacharyya_block)
    ),
    "hist_blur": SortKey(_of_image(_histogram_and_sharpness), by_similarity_then_sharpness),
    "face": SortKey(_of_data(_normalized_landmarks), by_similarity(similarity.l1)),
    "face_dissim": SortKey(_of_data(_normalized_landmarks), by_dissimilarity(similarity.l1_block)),
    "face_yaw": SortKey(_of_data(lambda face: face.pose.yaw), largest_first),
    "face_pitch": SortKey(_of_data(lambda face: face.pose.pitch), largest_first),
    "brightness": SortKey(_of_image(measures.brightness), largest_first),
    "hue": SortKey(_of_image(measures.hue), largest_first),
    "ssim": SortKey(
        _of_image(measures.windows),
        by_similarity(similarity.ssim_distance, similarity.windows_first),
    ),
    "origname": SortKey(_of_data(_origin), smallest_first),
    "source_size": SortKey(_of_data(_source_area), largest_first),
    "identity": SortKey(_embedding, by_person),
    "best": SortKey(_sharpness_and_pose, cover_poses),
}
