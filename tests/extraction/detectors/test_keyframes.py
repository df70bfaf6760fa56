"""Frames between searched ones: which are searched, where faces are likely, what is found."""

from itertools import pairwise

import cv2
import numpy as np
import pytest

from odfs_jax.data.media.frames import Frame
from odfs_jax.extraction import detection
from odfs_jax.extraction.boxes import union_overlap
from odfs_jax.extraction.detection import Detection
from odfs_jax.extraction.detectors import build_detector
from odfs_jax.extraction.detectors.keyframes import Gap, KeyframeDetector, gaps, searched

GRAY = np.full((40, 60, 3), 128, np.uint8)
STRIDE = 5


def clip(numbers, images=None):
    images = images or [GRAY] * len(numbers)
    return [Frame("c.mp4", n, n, image) for n, image in zip(numbers, images, strict=True)]


@pytest.mark.parametrize(
    ("numbers", "places"),
    [
        (range(16), [0, 5, 10, 15]),
        (range(3, 14), [0, 2, 7, 10]),  # multiples of five, and both ends
        ([1, 2, 3, 4, 8, 9, 11, 12, 13, 14], [0, 3, 4, 5, 6, 9]),  # both sides of a gap
        (range(0, 20, 2), list(range(10))),  # no frame has a neighbor
        ([7], [0]),
    ],
)
def test_what_is_searched_depends_on_the_numbers(numbers, places):
    assert searched(clip(numbers), STRIDE).tolist() == places


def test_pictures_and_what_is_unlike_both_neighbors_are_searched():
    pictures = [Frame(f"{i}.png", i, None, GRAY) for i in range(9)]
    assert searched(pictures, STRIDE).tolist() == list(range(9))
    assert searched(clip(range(9)), 1).tolist() == list(range(9))
    white = np.full_like(GRAY, 255)
    flash = clip(range(11), [white if i == 3 else GRAY for i in range(11)])
    assert searched(flash, STRIDE).tolist() == [0, 3, 5, 10]
    cut = clip(range(11), [white if i < 3 else GRAY for i in range(11)])  # each side is like an end
    assert searched(cut, STRIDE).tolist() == [0, 5, 10]


def test_gaps_know_their_ends():
    assert gaps(np.array([0, 1, 4])) == [Gap(2, 1, 4), Gap(3, 1, 4)]
    assert gaps(np.array([0])) == []


def test_likely_boxes_are_those_beside_and_between():
    def faces(*boxes):
        return [Detection(np.array(box, np.float32), None, 1.0) for box in boxes]

    found = [faces((0, 0, 10, 10), (80, 0, 90, 10)), [], [], [], faces((4, 8, 14, 18)), []]
    likely = Gap(1, 0, 4).candidates(found)
    expected = [(0, 0, 10, 10), (80, 0, 90, 10), (4, 8, 14, 18), (1, 2, 11, 12)]
    np.testing.assert_allclose(likely, expected)
    np.testing.assert_allclose(Gap(2, 1, 4).candidates(found), [(4, 8, 14, 18)])
    assert Gap(2, 1, 3).candidates(found).shape == (0, 4)


class Inner(detection.Detector):
    """A detector that takes so many frames a call, and finds nothing."""

    name = "inner"

    def __init__(self, batch_size):
        self.batch_size = batch_size

    def __call__(self, frames):
        return [[] for _ in frames]


@pytest.mark.parametrize("start", [0, 3, 7, 15, 31, 39])
@pytest.mark.parametrize(("most", "stride"), [(16, 5), (6, 5), (8, 3), (36, 5), (5, 5), (4, 1)])
def test_batches_of_a_clip_end_with_searched_frames(start, most, stride):
    frames = clip(range(start, 41))
    inner = Inner(most)
    detector = KeyframeDetector(inner, stride) if stride > 1 else inner
    batches = list(detector.batches(frames))
    assert all(len(batch.frames) <= most for batch in batches)
    if most > stride > 1:
        for before, after in pairwise(batches):
            assert after.context == 1 and after.frames[0] is before.frames[-1]
            assert after.frames[0].index % stride == 0
    once = [frame for batch in batches for frame in batch.frames[batch.context :]]
    assert [frame.index for frame in once] == [frame.index for frame in frames]


def test_batches_hold_one_size_and_little_memory():
    shapes = [(4, 4), (4, 4), (5, 5), (4, 4), *[(n, n) for n in range(10, 80)]]
    frames = [Frame("x", i, None, np.zeros((*s, 3), np.uint8)) for i, s in enumerate(shapes)]
    read, batches = [], []
    pulled = (read.append(frame) or frame for frame in frames)
    for batch in (batch.frames for batch in Inner(3).batches(pulled)):
        assert len({frame.image.shape for frame in batch}) == 1 and len(batch) <= 3
        assert len(read) - sum(map(len, batches)) <= detection.MAX_WAITING + 1
        batches.append([frame.index for frame in batch])
    assert batches[0] == [0, 1, 3]
    assert sorted(i for batch in batches for i in batch) == list(range(len(shapes)))


@pytest.fixture(scope="module")
def moving(frames):
    """23 frames of a face that goes to the right, and comes in only after the sixth."""
    face = cv2.resize(frames["ada_000.jpg"], (192, 192), interpolation=cv2.INTER_AREA)
    empty = np.full_like(face, face[:10].mean())
    images = [empty] * 6 + [np.roll(face, 2 * i, axis=1) for i in range(17)]
    return clip(range(len(images)), images)


@pytest.fixture(scope="module")
def strides(configure):
    """Detectors that search every frame and every fifth."""
    return [
        build_detector(configure(f"detector.args.search_every={n}").detector) for n in (1, STRIDE)
    ]


def found(detector, frames):
    batches = detector.batches(frames)
    return [faces for batch in batches for faces in detector(batch.frames)[batch.context :]]


def test_the_faces_are_those_of_a_whole_search(strides, moving):
    """The one that comes in between two searched frames too, from its first frame on."""
    every, few = (found(detector, moving) for detector in strides)
    assert [len(faces) for faces in every] == [0] * 6 + [1] * 17
    assert [len(faces) for faces in few] == [len(faces) for faces in every]
    for number, (ours, theirs) in enumerate(zip(few, every, strict=True)):
        for face, exact in zip(ours, theirs, strict=True):
            if number % STRIDE == 0 or number == len(moving) - 1:
                np.testing.assert_array_equal(face.box, exact.box)
                continue
            assert (face.box != exact.box).any()
            assert union_overlap(face.box, exact.box) > 0.8
            assert np.abs(face.points - exact.points).max() < 0.1 * np.ptp(exact.box[1::2])


def test_what_is_found_does_not_depend_on_where_a_run_begins(strides, moving):
    whole = found(strides[1], moving)
    for start in (2, 8, 11):
        part = found(strides[1], moving[start:])
        for ours, theirs in zip(part[STRIDE - 1 :], whole[start + STRIDE - 1 :], strict=True):
            for face, expected in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(face.box, expected.box)


def test_a_face_lost_between_is_searched_for(strides, moving, monkeypatch):
    """Where the likely places are wrong, the frames are searched all over."""
    monkeypatch.setattr(Gap, "candidates", lambda self, faces: np.zeros((1, 4), np.float32))
    few = found(strides[1], moving)
    every = found(strides[0], moving)
    after = 10  # from there on, a searched neighbor has the face
    assert [len(faces) for faces in few[after:]] == [1] * (len(moving) - after)
    for ours, theirs in zip(few[after:], every[after:], strict=True):
        np.testing.assert_array_equal(ours[0].box, theirs[0].box)
