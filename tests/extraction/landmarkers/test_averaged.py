"""Averaging over crops and the second pass, around a landmarker whose errors are known."""

import numpy as np
import pytest

from odfs_jax.errors import UserError
from odfs_jax.extraction.detection import Detection
from odfs_jax.extraction.landmarkers import build_landmarker
from odfs_jax.extraction.landmarkers.averaged import (
    SCALE,
    SHIFT,
    AveragedLandmarker,
    TwoPassLandmarker,
    moved,
)

FACE = Detection(np.array([10.0, 20.0, 110.0, 120.0]), np.zeros((5, 2)), 0.9)


class Noisy:
    """Points where the box's middle is, with an error that depends on how the box lies."""

    name = "noisy"

    def __init__(self):
        self.seen = []

    def __call__(self, images, faces):
        self.seen += faces
        return [np.tile(self.one(face), (68, 1)) for face in faces]

    def one(self, face):
        if not np.isfinite(face.box).all():
            return np.full(2, np.nan)
        rng = np.random.default_rng(abs(int(face.box.sum() * 1e6)))
        return np.array([60.0, 70.0]) + rng.normal(0, 1, 2)


def test_the_mean_over_crops_is_nearer_to_the_truth():
    images, faces = [None] * 20, [moved(FACE, i, 21) for i in range(20)]
    once = np.array(Noisy()(images, faces)) - (60, 70)
    mean = np.array(AveragedLandmarker(Noisy(), 16)(images, faces)) - (60, 70)
    assert mean.shape == once.shape == (20, 68, 2)
    assert np.abs(mean).mean() < 0.5 * np.abs(once).mean()


def test_crops_stay_near_and_the_first_is_the_face_itself():
    assert moved(FACE, 0, 8) is FACE
    for number in range(1, 8):
        face = moved(FACE, number, 8)
        middle = (face.box[:2] + face.box[2:]) / 2
        assert np.linalg.norm(middle - (60, 70)) <= SHIFT * 100 + 1e-9
        assert face.box[2] - face.box[0] == pytest.approx(100, rel=SCALE)
        assert face.landmarks is None and face.points.shape == (5, 2)


def test_the_second_pass_starts_from_the_first_and_skips_what_failed():
    first, second = Noisy(), Noisy()
    bad = Detection(np.full(4, np.nan), None, 1.0)
    found = TwoPassLandmarker(first, second)([None] * 3, [FACE, bad, FACE])
    assert np.isnan(found[1]).all() and np.isfinite(found[0]).all()
    assert [face.landmarks is None for face in first.seen] == [True] * 3
    assert len(second.seen) == 2 and second.seen[0].landmarks.shape == (68, 2)
    assert AveragedLandmarker(TwoPassLandmarker(first, second), 3)([], []) == []


def test_settings_reach_the_landmarker(configure):
    steady = build_landmarker(
        configure("landmarks.average=3", "landmarks.second_pass=true").landmarks
    )
    assert isinstance(steady, TwoPassLandmarker) and isinstance(steady._second, AveragedLandmarker)
    assert steady.name == "face_mesh"
    with pytest.raises(UserError, match=r"landmarks\.average=0: expected 1 to 64"):
        build_landmarker(configure("landmarks.average=0").landmarks)
    with pytest.raises(UserError, match=r"landmarks\.args\.size: no such setting; known: flip"):
        build_landmarker(configure("+landmarks.args.size=3").landmarks)
