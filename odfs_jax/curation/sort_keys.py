"""The keys of `by=`: what is measured of each face, and how the values become an order.

Equal faces stay in the order of their names. A key is the 2018 program's, docs/reference_2018.md
section 5, unless its function says otherwise.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from odfs_jax.curation import measures, similarity
from odfs_jax.data.aligned_png import FaceData, read_face, read_image_and_face
from odfs_jax.faces.identity import embedding

JUMP = 2.0  # times the mean step of the chain: where hist_blur begins a new group
TWINS = 0.03  # 1 - SSIM: noise or another encoding is .001 apart, a shift by a pixel .007 to .035
BIN = 10.0  # degrees of yaw and of pitch in a bin of `best`
STEP, TOTAL = "distance to the face before", "sum of the distances to all others"


@dataclass(frozen=True)
class FaceOrder:
    """`indices` [N] of measured faces; `values` and `groups` are those of the faces in this order.

    `values` [N] are the numbers that the order goes by, None where there are none; `groups` [N]
    count the groups of neighbors from 0, None where an order makes none.
    """

    indices: np.ndarray
    values: np.ndarray | None = None
    groups: np.ndarray | None = None


@dataclass(frozen=True)
class SortKey:
    """`read` measures one file (raises BadFileError); `order` takes the measures of N faces.

    `help` says what the order is, `value` what the numbers of `FaceOrder.values` are, in `unit`,
    and `group` what a group of `FaceOrder.groups` is.
    """

    read: Callable[[Path], Any]
    order: Callable[[list], FaceOrder]
    help: str
    value: str = ""
    unit: str = ""
    group: str = ""


def largest_first(values: list[float] | np.ndarray) -> FaceOrder:
    """Indices by descending value."""
    values = np.asarray(values, np.float64)
    indices = np.argsort(-values, kind="stable")
    return FaceOrder(indices, values[indices])


def smallest_first(values: list[tuple]) -> FaceOrder:
    """Indices by ascending tuple."""
    return FaceOrder(np.array(sorted(range(len(values)), key=values.__getitem__)))


def by_similarity(
    distance: similarity.Distance, layout: similarity.Layout = similarity.unchanged
) -> Callable[[list[np.ndarray]], FaceOrder]:
    """Orders features by a greedy chain: from the first face always on to the nearest one left."""

    def order(features: list[np.ndarray]) -> FaceOrder:
        indices, steps = similarity.greedy_chain(np.stack(features), distance, layout)
        return FaceOrder(indices, steps, _groups(steps))

    return order


def by_dissimilarity(distance: similarity.Distance) -> Callable[[list[np.ndarray]], FaceOrder]:
    """Orders features by the sum of the distances to all others, the most different first."""
    return lambda features: largest_first(similarity.total_distances(np.stack(features), distance))


def by_similarity_then_sharpness(values: list[tuple[np.ndarray, float]]) -> FaceOrder:
    """Orders faces in groups of similar histograms, in each group the sharpest first.

    `values` are (histogram [3, 256], sharpness). A group ends where the greedy chain of the
    histograms makes a step of more than JUMP times the mean; the groups keep the chain's order.
    """
    histograms, sharpness = zip(*values, strict=True)
    chain, steps = similarity.greedy_chain(np.stack(histograms), similarity.bhattacharyya)
    sharpness, groups = np.array(sharpness), _groups(steps)
    indices = chain[np.lexsort((-sharpness[chain], groups))]
    return FaceOrder(indices, sharpness[indices], groups)  # which ascend, along the chain too


def by_twins(values: list[tuple[np.ndarray, float]]) -> FaceOrder:
    """Orders faces in groups of near-duplicates, largest group first, sharpest of each first.

    `values` are (`measures.windows`, sharpness). The sharpest face takes all that are as good as
    the same picture, TWINS, for its group, the sharpest of the rest likewise; faces alone come
    last. Not in the 2018 program.
    """
    windows, sharpness = zip(*values, strict=True)
    sharpness = np.array(sharpness)
    sharpest = np.argsort(-sharpness, kind="stable")
    alike = np.stack(windows)[sharpest]
    distance = similarity.ssim_distance, similarity.windows_first
    leaders = similarity.near_leaders(alike, TWINS, *distance)
    _, leaders, counts = np.unique(leaders, return_inverse=True, return_counts=True)
    order = np.lexsort((np.arange(len(leaders)), leaders, -counts[leaders]))
    groups = np.cumsum(np.diff(leaders[order], prepend=leaders[order[0]]) != 0)
    indices = sharpest[order]
    return FaceOrder(indices, sharpness[indices], groups)


def _groups(steps: np.ndarray) -> np.ndarray:
    """The group [N] of each face of a chain, from 0: a step above JUMP times the mean begins one.

    `steps` [N] are the distances to the face before; the first is 0.
    """
    mean = steps.sum() / max(1, len(steps) - 1)
    return np.cumsum(steps > JUMP * mean)


def by_person(embeddings: list[np.ndarray]) -> FaceOrder:
    """Orders `embeddings` [128] by person, the most frequent first, the most typical face first.

    Strangers and faces that cannot be recognized come last. Not in the 2018 program.
    """
    people = similarity.group_people(np.stack(embeddings))
    groups = np.repeat(np.arange(len(people)), [len(faces) for faces in people])
    return FaceOrder(np.concatenate(people), groups=groups)


def cover_poses(values: list[tuple[float, float, float]]) -> FaceOrder:
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
    rounds = rank - starts
    indices = np.lexsort((-sharpness, rounds))
    return FaceOrder(indices, sharpness[indices], rounds[indices])


def _of_image(measure: Callable[[np.ndarray], Any]) -> Callable[[Path], Any]:
    """A reader that measures the decoded picture of a file."""
    return lambda path: measure(read_image_and_face(path)[0])


def _of_data(measure: Callable[[FaceData], Any]) -> Callable[[Path], Any]:
    """A reader that measures the face data of a file, without decoding its picture."""
    return lambda path: measure(read_face(path))


def _origin(face: FaceData) -> tuple[str, int, float]:
    """Source file, frame, and the larger face first: the order of extraction."""
    return face.source.file, face.source.frame, -_source_size(face)


def _source_size(face: FaceData) -> float:
    """Side of a square as large as the detected box, pixels of the frame."""
    left, top, right, bottom = face.source.rect
    return math.sqrt(max(0.0, right - left) * max(0.0, bottom - top))


def _normalized_landmarks(face: FaceData) -> np.ndarray:
    """The landmarks [136] as fractions of the picture, so that sizes may differ."""
    return (face.landmarks / face.size).astype(np.float32).reshape(-1)


def _histogram_and_sharpness(image: np.ndarray) -> tuple[np.ndarray, float]:
    return measures.histogram(image), measures.sharpness(image)


def _windows_and_sharpness(image: np.ndarray) -> tuple[np.ndarray, float]:
    return measures.windows(image), measures.sharpness(image)


def _embedding(path: Path) -> np.ndarray:
    image, face = read_image_and_face(path)
    return embedding(image, face.landmarks)


def _sharpness_and_pose(path: Path) -> tuple[float, float, float]:
    image, face = read_image_and_face(path)
    return measures.sharpness(image), face.pose.yaw, face.pose.pitch


SORT_KEYS = {
    "blur": SortKey(
        _of_image(measures.sharpness), largest_first, "sharpest first", value="sharpness"
    ),
    "motion_blur": SortKey(
        _of_image(measures.min_directional_gradient),
        largest_first,
        "least smeared first",
        value="sharpness in the most smeared direction",
    ),
    "hist": SortKey(
        _of_image(measures.histogram),
        by_similarity(similarity.bhattacharyya),
        "alike colors one after the other",
        value=STEP,
        group="group",
    ),
    "hist_dissim": SortKey(
        _of_image(measures.histogram),
        by_dissimilarity(similarity.bhattacharyya_block),
        "the most different colors first",
        value=TOTAL,
    ),
    "hist_blur": SortKey(
        _of_image(_histogram_and_sharpness),
        by_similarity_then_sharpness,
        "as hist, in groups, sharpest first in each",
        value="sharpness",
        group="group",
    ),
    "face": SortKey(
        _of_data(_normalized_landmarks),
        by_similarity(similarity.l1),
        "alike shapes (points) one after the other",
        value=STEP,
        group="group",
    ),
    "face_dissim": SortKey(
        _of_data(_normalized_landmarks),
        by_dissimilarity(similarity.l1_block),
        "the most different shapes first",
        value=TOTAL,
    ),
    "face_yaw": SortKey(
        _of_data(lambda face: face.pose.yaw),
        largest_first,
        "from turned right to turned left",
        value="yaw",
        unit="°",
    ),
    "face_pitch": SortKey(
        _of_data(lambda face: face.pose.pitch),
        largest_first,
        "from looking up to looking down",
        value="pitch",
        unit="°",
    ),
    "brightness": SortKey(
        _of_image(measures.brightness),
        largest_first,
        "brightest first",
        value="brightness, 0 to 255",
    ),
    "hue": SortKey(
        _of_image(measures.hue), largest_first, "largest mean hue first", value="hue, 0 to 179"
    ),
    "ssim": SortKey(
        _of_image(measures.windows),
        by_similarity(similarity.ssim_distance, similarity.windows_first),
        "alike pictures one after the other",
        value=STEP,
        group="group",
    ),
    "twins": SortKey(
        _of_image(_windows_and_sharpness),
        by_twins,
        "near-duplicates in groups, the sharpest of each first",
        value="sharpness",
        group="twins",
    ),
    "origname": SortKey(_of_data(_origin), smallest_first, "the order of the frames"),
    "source_size": SortKey(
        _of_data(_source_size),
        largest_first,
        "largest in its frame first",
        value="size in the frame",
        unit=" px",
    ),
    "identity": SortKey(
        _embedding, by_person, "person by person, the most frequent first", group="person"
    ),
    "best": SortKey(
        _sharpness_and_pose,
        cover_poses,
        "sharp faces of all poses first; with keep=N a small, varied faceset",
        value="sharpness",
        group="round",
    ),
}
