"""Distances of pairs against OpenCV and NumPy; more faces than a block holds."""

import cv2
import numpy as np
import pytest

from odfs_jax.curation import measures, similarity
from odfs_jax.curation.similarity import group_people


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(3)
    made = [rng.integers(0, high, (20, 20, 3)) for high in rng.integers(2, 256, 30)]
    return [picture.astype(np.uint8) for picture in made]


def test_bhattacharyya_is_opencvs(pictures):
    ours = np.stack([measures.histogram(picture) for picture in pictures])
    block = np.asarray(similarity.bhattacharyya_block(ours, ours))
    for i, one in enumerate(pictures):
        row = np.asarray(similarity.bhattacharyya(ours[i], ours))
        for j, other in enumerate(pictures):
            expected = sum(
                cv2.compareHist(
                    *(cv2.calcHist([p], [c], None, [256], [0, 256]) for p in (one, other)),
                    cv2.HISTCMP_BHATTACHARYYA,
                )
                for c in range(3)
            )
            assert row[j] == pytest.approx(expected, abs=1e-5)
            assert block[i, j] == pytest.approx(expected, abs=1e-5)


def test_equal_faces_are_exactly_0_apart(pictures):
    histogram = np.stack([measures.histogram(pictures[0])] * 3)
    assert not np.asarray(similarity.bhattacharyya(histogram[0], histogram)).any()
    assert not np.asarray(similarity.bhattacharyya_block(histogram, histogram)).any()
    window = np.stack([measures.windows(pictures[0])] * 3)
    assert (
        np.abs(similarity.ssim_distance(window[0], similarity.windows_first(window))).max() < 1e-6
    )


@pytest.mark.parametrize(
    "count", [1, 2, similarity.BLOCK, similarity.BLOCK + 1, 2 * similarity.BLOCK]
)
def test_totals_over_blocks(count):
    features = np.random.default_rng(count).random((count, 5)).astype(np.float32)
    expected = np.abs(features[:, None] - features[None]).sum((1, 2))
    found = similarity.total_distances(features, similarity.l1_block)
    assert found.shape == (count,)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_chain_on_a_line():
    features = np.array([[5.0], [0.0], [6.0], [4.5], [9.0]], np.float32)
    order, steps = similarity.greedy_chain(features, similarity.l1)
    assert order.tolist() == [0, 3, 2, 4, 1] and steps.tolist() == [0, 0.5, 1.5, 3, 9]


def test_people_are_counted_and_strangers_come_last():
    rng = np.random.default_rng(0)
    far = np.eye(128)[:4]
    who = np.array([0] * 5 + [1] * 9 + [2, 3])
    groups = group_people((far[who] + rng.normal(0, 0.01, (16, 128))).astype(np.float32))
    assert [sorted(set(who[group])) for group in groups] == [[1], [0], [2], [3]]
    assert sorted(np.concatenate(groups)) == list(range(16))


def test_the_typical_face_of_a_person_is_first():
    embeddings = np.zeros((5, 128), np.float32)
    embeddings[:, 0] = (0.2, 0.0, 0.12, 0.1, 0.05)
    assert group_people(embeddings)[0].tolist() == [3, 2, 4, 1, 0]
