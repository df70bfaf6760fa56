"""Faces followed from frame to frame, and what is averaged and measured along their tracks."""

import numpy as np
import pytest

from odfs_jax.conversion.face_region import face_region
from odfs_jax.conversion.merge import Prediction
from odfs_jax.conversion.tracks import MAX_GAP, Tracker
from odfs_jax.faces.colors import ColorStats
from odfs_jax.faces.types import FaceType

PLAIN = np.full((200, 300, 3), 90, np.uint8)
OTHER_SHOT = np.full((200, 300, 3), 190, np.uint8)


@pytest.fixture
def region(face_points):
    def region(x, y, width=40):
        return face_region(face_points((x, y), width), FaceType.FULL, 32)

    return region


def test_two_faces_keep_their_tracks_whatever_their_order(region):
    tracker, left, right = Tracker(), [], []
    for number in range(6):
        one, other = region(60 + 5 * number, 80), region(220 - 5 * number, 90)
        faces = tracker.add_frame(PLAIN, [one, other] if number % 2 else [other, one])
        left.append(faces[0] if number % 2 else faces[1])
        right.append(faces[1] if number % 2 else faces[0])
    assert all(face.track is left[0].track for face in left) and left[0].track == left
    assert all(face.track is right[0].track for face in right) and right[0].track == right


@pytest.mark.parametrize(("missing", "same"), [(MAX_GAP - 1, True), (MAX_GAP, False)])
def test_a_face_may_be_missing_for_a_while(region, missing, same):
    tracker = Tracker()
    (first,) = tracker.add_frame(PLAIN, [region(80, 80)])
    for _ in range(missing):
        tracker.add_frame(PLAIN, [])
    (again,) = tracker.add_frame(PLAIN, [region(84, 80)])
    assert (again.track is first.track) == same


@pytest.mark.parametrize(
    ("picture", "place"), [(OTHER_SHOT, (80, 80)), (PLAIN, (180, 80)), (PLAIN, (80, 80, 90))]
)
def test_a_cut_a_leap_and_another_size_begin_a_track(region, picture, place):
    tracker = Tracker()
    (first,) = tracker.add_frame(PLAIN, [region(80, 80)])
    (second,) = tracker.add_frame(picture, [region(*place)])
    assert second.track is not first.track


def test_old_faces_are_dropped(region):
    tracker = Tracker()
    for _ in range(9):
        (face,) = tracker.add_frame(PLAIN, [region(80, 80)])
    tracker.drop_old(4)
    assert [old.number for old in face.track] == [5, 6, 7, 8]


def prediction(value, counted=1.0):
    values = {"mean": np.array([value, 2 * value], np.float32)}
    return Prediction(None, None, None, {"color": ColorStats(values, np.float32(counted))})


def followed(region, values, counted=None):
    """The faces of one track, whose measurements are `values`."""
    tracker = Tracker()
    faces = [tracker.add_frame(PLAIN, [region(80, 80)])[0] for _ in values]
    for number, (face, value) in enumerate(zip(faces, values, strict=True)):
        face.prediction = prediction(value, 1.0 if counted is None else counted[number])
    return faces


def mean(face, smoothing):
    return face.smoothed_prediction(smoothing).stats["color"].values["mean"]


def test_measurements_are_averaged_with_a_hann_window(region):
    values = np.random.default_rng(0).random(20)
    face = followed(region, values)[9]
    window = np.hanning(2 * 3 + 3)[1:-1]  # 3 frames before and after, none of them with weight 0
    expected = (values[6:13] * window).sum() / window.sum()
    np.testing.assert_allclose(mean(face, 3), [expected, 2 * expected], rtol=1e-5)
    np.testing.assert_allclose(mean(face, 0), [values[9], 2 * values[9]], rtol=1e-6)


def test_at_a_tracks_end_the_window_is_what_there_is(region):
    values = np.array([1.0, 0.0, 0.0, 0.0, 5.0])
    faces = followed(region, values)
    np.testing.assert_allclose(mean(faces[0], 1)[0], 1 / 1.5, rtol=1e-5)


def test_faces_in_which_nothing_was_counted_do_not_count(region):
    faces = followed(region, [1.0, 100.0, 3.0], counted=[1, 0, 1])
    np.testing.assert_allclose(mean(faces[1], 1)[0], 2.0, rtol=1e-6)
    nowhere = followed(region, [1.0, 2.0], counted=[0, 0])
    assert nowhere[0].smoothed_prediction(1).stats["color"].counted == 0


def test_averaging_takes_flicker_away(region):
    """Noise of a frame's own, on colors that drift: what is left changes as the drift does."""
    rng, time = np.random.default_rng(0), np.arange(60)
    drift = 0.5 + 0.1 * np.sin(time / 12)
    faces = followed(region, drift + rng.normal(0, 0.02, 60))
    alone, steady = (np.array([mean(face, k)[0] for face in faces]) for k in (0, 12))
    assert np.abs(np.diff(steady)).mean() < 1.1 * np.abs(np.diff(drift)).mean()
    assert np.abs(np.diff(alone)).mean() > 2 * np.abs(np.diff(drift)).mean()
    assert np.abs(steady - drift)[12:-12].max() < 0.03


def test_motion_is_the_change_of_a_frames_time(region, face_points):
    tracker = Tracker()
    places = [(80 + 6 * n, 80 - 3 * n) for n in range(3)]
    faces = [tracker.add_frame(PLAIN, [region(*place)])[0] for place in places]
    middle = faces[1]
    point = np.array([100.0, 70.0])  # of the frame
    local = point - (middle.region.left, middle.region.top)
    scale = middle.region.model_from_region[:, :2]
    moved = middle.motion(middle.region) @ [*local, 1]
    np.testing.assert_allclose(moved, scale @ [-6.0, 3.0], atol=1e-3)
    (alone,) = Tracker().add_frame(PLAIN, [region(80, 80)])
    assert (alone.motion(alone.region) == 0).all()
