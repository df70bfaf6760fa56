"""Faces from a file: what it may hold and what not; landmarks come through as given."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odfs_jax.data.aligned_png import read_face
from odfs_jax.data.media.frames import Frame
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.extraction import extract as extraction
from odfs_jax.extraction.detectors import build_detector
from odfs_jax.extraction.detectors.from_file import FileDetector, FileSettings, read_faces

DATA = Path(__file__).parents[1] / "data"
TRUTH = json.loads((DATA / "truth.json").read_text())


def written(tmp_path, frames, **more):
    path = tmp_path / "faces.json"
    path.write_text(json.dumps({"version": 1, "frames": frames} | more))
    return path


def test_frames_by_number_and_by_name_in_the_order_of_the_file(tmp_path):
    faces = {"3": [{"box": [1, 2, 5, 9]}, {"box": [0, 0, 90, 90], "score": 0.5}], "b.png": []}
    detector = FileDetector(FileSettings(str(written(tmp_path, faces))), 4)
    image = np.zeros((8, 8, 3), np.uint8)
    frames = [Frame("clip.mp4", 3, None, image), Frame("clip.mp4", 4, None, image)]
    (first, second), none = detector(frames)
    np.testing.assert_array_equal(first.box, (1, 2, 5, 9))
    assert first.score == 1 and second.score == 0.5 and none == []
    with pytest.raises(UserError, match=r"b\.png and frame 3 are one frame"):
        detector([Frame("b.png", 3, None, image)])


def test_landmarks_reach_the_aligned_face_as_they_are(tmp_path, configure, monkeypatch):
    (tmp_path / "src").mkdir()
    name = "ada_070.jpg"
    shutil.copy(DATA / name, tmp_path / "src")
    points = TRUTH[name]["landmarks"]
    path = written(tmp_path, {name: [{"landmarks": points, "score": 0.25}]})
    monkeypatch.setattr(extraction, "build_landmarker", lambda _: None)  # must not be asked
    options = "data=src", "hardware.compilation_cache=null", "detector=file"
    extraction.extract(configure(*options, f"workspace={tmp_path}", f"detector.args.path={path}"))
    (aligned,) = (tmp_path / "src" / "aligned").glob("*.png")
    face = read_face(aligned)
    np.testing.assert_allclose(face.source.landmarks, points, atol=1e-6)
    assert (face.detector, face.landmarker, face.score) == ("file", "file", 0.25)
    low, high = np.min(points, axis=0), np.max(points, axis=0)
    np.testing.assert_allclose(face.source.rect, [*low, *high], atol=1e-2)


ASSETS = Path(__file__).parents[2] / "assets"
POINTS = [[float(i), float(2 * i)] for i in range(68)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", r"the file \[\] is not an object"),
        ('{"version": 1}', "the file has no frames"),
        ('{"version": 2, "frames": {}}', "version 2, expected 1"),
        ('{"version": 1, "frames": [], "x": 0}', "unknown key 'x'; known: frames, version"),
        ('{"version": 1, "frames": {"0": [], "0": []}}', "'0' stands there twice"),
        ('{"version": 1, "frames": {"0": {}}}', r"frames\.'0' {} is not a list"),
        ('{"version": 1, "frames": {"0": [{}]}}', r"frames\.'0'\[0\]: neither box nor landmarks"),
        ('{"version": 1, "frames": {"0": [{"box": [1, 2, 3]}]}}', r"box is a list of 3, not of 4"),
        ('{"version": 1, "frames": {"0": [{"box": [1, 2, 3, "4"]}]}}', "'4' is not a number"),
        ('{"version": 1, "frames": {"0": [{"box": [1, 2, 3, NaN]}]}}', "NaN is no number"),
        (
            '{"version": 1, "frames": {"0": [{"box": [1, 2, 3, 1e999]}]}}',
            "inf is out of range",
        ),
        ('{"version": 1, "frames": {"0": [{"box": [9, 2, 3, 4]}]}}', "expected left < right"),
        ('{"version": 1, "frames": {"0": [{"landmarks": [[1, 2]]}]}}', "is a list of 1, not of 68"),
        (
            '{"version": 1, "frames": {"0": [{"box": [1,2,3,4], "score": 7}]}}',
            "score 7 is out of range",
        ),
        ('{"version": 1, "frames": {"0": [{"box": [1, 2, 3, 1e7]}]}}', "is out of range"),
        ("[" * 100_000, "not JSON"),
        ((ASSETS / "given_hugeint.json").read_text(), "1000000000.* is out of range"),
        ((ASSETS / "given_escape.json").read_text(), r"version '\\x1b\[2J\\x1b\]0;pwn\\x07\\nsec"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, content, message):
    path = tmp_path / "faces.json"
    path.write_text(content)
    with pytest.raises(BadFileError, match=message) as error:
        read_faces(path)
    assert str(error.value).startswith(f"{path}: ") and str(error.value).isprintable()


def test_the_file_must_be_there(tmp_path, configure):
    with pytest.raises(UserError, match=r"detector\.args\.path: no value"):
        build_detector(configure("detector=file").detector)
    with pytest.raises(BadFileError, match="no such file"):
        read_faces(tmp_path / "faces.json")


LEAVES = st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3)
VALUES = st.recursive(
    LEAVES,
    lambda v: st.lists(v, max_size=4) | st.dictionaries(st.sampled_from(("box", "score")), v),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(frames=st.dictionaries(st.text(max_size=3), VALUES, max_size=3))
def test_any_json_is_read_or_refused_by_name(tmp_path_factory, frames):
    path = written(tmp_path_factory.mktemp("given"), frames)
    try:
        faces = read_faces(path)
    except BadFileError as error:
        assert str(error).startswith(f"{path}: ")
    else:
        assert faces.keys() == frames.keys()
