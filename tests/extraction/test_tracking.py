"""Faces followed over frames: who is who, what waits, and what a frame's result depends on."""

from dataclasses import replace

import numpy as np
import pytest

from odfs_jax.extraction.detection import Detection
from odfs_jax.extraction.smoothing import GAP, Polynomial, reach, smoothed
from odfs_jax.faces.landmarks68 import MEAN_HEAD


class Recorder:
    """A smoother that gives the points back and remembers what it was shown."""

    radius = 3

    def __init__(self):
        self.shown = []

    def __call__(self, times, points, index):
        self.shown.append((times.tolist(), points[:, 0, 0].tolist(), index))
        return points[index]


def face(x, mark=0.0):
    """A face at `x`, known by the first coordinate of its first point."""
    points = MEAN_HEAD[:, :2] * (30, -30) + (x, 60)
    points[0, 0] += mark
    box = np.concatenate([points.min(0), points.max(0)])
    return Detection(box, None, 0.9, points, "exact")


def run(frames, smoother, times=None):
    times = range(len(frames)) if times is None else times
    return list(smoothed(zip(times, frames, strict=True), smoother))


def test_a_face_sees_itself_as_far_as_the_smoother_looks():
    recorder = Recorder()
    frames = [[face(100 + t)] for t in range(9)]
    assert [len(faces) for faces in run(frames, recorder)] == [1] * 9
    assert recorder.shown[4][0] == [1, 2, 3, 4, 5, 6, 7] and recorder.shown[4][2] == 3
    assert recorder.shown[0][0] == [0, 1, 2, 3] and recorder.shown[8][0] == [5, 6, 7, 8]


def test_two_faces_stay_apart_whatever_their_order():
    recorder = Recorder()
    frames = [[face(100 + t), face(300 - t)][:: (-1) ** t] for t in range(8)]
    run(frames, recorder)
    for _, x, _ in recorder.shown:
        assert np.ptp(x) < 20  # never 100 and 300 in one track


@pytest.mark.parametrize(("missing", "followed"), [(1, True), (GAP, True), (GAP + 1, False)])
def test_a_short_absence_is_bridged(missing, followed):
    recorder = Recorder()
    frames = [[face(100)], *([[]] * missing), [face(101)]]
    run(frames, recorder)
    assert (recorder.shown[0][0] == [0, missing + 1]) == followed


def test_a_jump_is_another_face():
    recorder = Recorder()
    run([[face(100)], [face(100)], [face(180)], [face(180)]], recorder)
    assert [times for times, _, _ in recorder.shown] == [[0, 1], [0, 1], [2, 3], [2, 3]]


def test_times_are_those_of_the_frames():
    recorder = Recorder()
    run([[face(100)]] * 3, recorder, times=[10, 15, 20])
    assert recorder.shown[1][0] == [10, 15, 20]


def test_no_more_frames_wait_than_the_smoother_looks_ahead():
    pulled = []

    def frames():
        for t in range(30):
            pulled.append(t)
            yield t, [face(100)]

    for done, _ in enumerate(smoothed(frames(), Recorder())):
        assert len(pulled) - done <= Recorder.radius + 1


def test_a_frames_result_depends_on_its_reach_alone():
    smoother = Polynomial(2)
    rng = np.random.default_rng(0)
    frames = []
    for t in range(40):
        faces = [face(100 + t), face(160 + t), face(400 - 6 * t)]
        shaken = [replace(f, landmarks=f.landmarks + rng.normal(0, 1, (68, 2))) for f in faces]
        frames.append([f for f in shaken if rng.random() > 0.2])
    whole = run(frames, smoother)
    for t in range(40):
        low, high = max(0, t - reach(smoother)), t + reach(smoother) + 1
        part = run(frames[low:high], smoother, range(low, min(high, 40)))
        for found, expected in zip(part[t - low], whole[t], strict=True):
            np.testing.assert_array_equal(found.landmarks, expected.landmarks)
