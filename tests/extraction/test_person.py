"""Only the person of the examples is kept, and the distance is written down."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from odfs_jax.data.aligned_png import read_face, write_face
from odfs_jax.data.media.frames import Frame
from odfs_jax.errors import UserError
from odfs_jax.extraction import extract as extraction
from odfs_jax.extraction.filters import (
    IDENTITY,
    TYPICAL_SPREAD,
    PersonFilter,
    build_person_filter,
    person_from_embeddings,
)

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def found(frames, detector, landmarker):
    """(frame, faces with landmarks) of a test picture."""

    def find(name):
        frame = Frame(name, 0, None, frames[name])
        (faces,) = detector([frame])
        points = landmarker([frame.image] * len(faces), faces)
        return frame, [replace(f, landmarks=p) for f, p in zip(faces, points, strict=True)]

    return find


@pytest.mark.parametrize("kind", ["aligned", "picture"])
def test_one_person_of_two_is_kept(tmp_path, found, actor_faces, detector, landmarker, kind):
    if kind == "aligned":
        for name in ("ben_010", "ben_100"):
            write_face(tmp_path / f"{name}.png", *actor_faces[name])
        path = tmp_path
    else:
        path = shutil.copy(DATA / "ben_100.jpg", tmp_path / "ben.jpg")
    person = build_person_filter(Path(path), 1.5, detector, landmarker)
    frame, faces = found("two_faces.jpg")
    kept, dropped = person(frame, faces)
    assert len(kept) == len(dropped) == 1 and "another" in dropped[0].reason
    assert kept[0].box[0] > 200  # ben is the small one, below right
    note = kept[0].extra[IDENTITY]
    assert note["relative"] < 1.5 and note["distance"] == pytest.approx(
        note["relative"] * person.spread, abs=1e-3
    )
    frame, faces = found("ada_000.jpg")
    kept, dropped = person(frame, faces)
    assert kept == [] and "another person" in dropped[0].reason
    assert person(frame, []) == ([], [])


def test_a_person_is_once_in_a_frame(found):
    frame, faces = found("ben_010.jpg")
    person = PersonFilter(np.zeros(128), 1.0, 100.0)
    kept, dropped = person(frame, [faces[0], faces[0]])
    assert len(kept) == 1 and "nearer to the examples" in dropped[0].reason


def test_the_measure_is_the_examples_own_spread():
    vectors = np.random.default_rng(0).normal(0, 1, (9, 128))
    person = person_from_embeddings(vectors, 2.0)
    expected = [np.linalg.norm(v - np.delete(vectors, i, 0).mean(0)) for i, v in enumerate(vectors)]
    assert person.spread == pytest.approx(np.mean(expected))
    assert (
        person_from_embeddings(vectors[:1], 2.0).spread
        == person_from_embeddings(vectors * 1e-3, 2.0).spread
        == TYPICAL_SPREAD
    )


def test_examples_that_cannot_be_used_are_named(tmp_path, detector, landmarker):
    def build(path, limit=1.5):
        return build_person_filter(path, limit, detector, landmarker)

    with pytest.raises(UserError, match=r"identity=.*gone: no such file"):
        build(tmp_path / "gone")
    with pytest.raises(UserError, match=r"identity=.*: no pictures in this folder"):
        build(tmp_path)
    with pytest.raises(UserError, match=r"identity_limit=0: expected"):
        build(tmp_path, 0)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match=r"text.png: not a picture"):
        build(tmp_path)


def test_the_command_keeps_one_person_and_notes_the_distance(
    tmp_path, configure, actor_faces, detector, landmarker, monkeypatch, caplog
):
    (tmp_path / "src").mkdir()
    for name in ("ada_000.jpg", "two_faces.jpg"):
        shutil.copy(DATA / name, tmp_path / "src")
    write_face(tmp_path / "ben" / "one.png", *actor_faces["ben_010"])
    write_face(tmp_path / "ben" / "two.png", *actor_faces["ben_100"])
    monkeypatch.setattr(extraction, "build_detector", lambda _: detector)
    monkeypatch.setattr(extraction, "build_landmarker", lambda _: landmarker)
    options = "data=src", "hardware.compilation_cache=null", f"workspace={tmp_path}"
    extraction.extract(configure(*options, f"identity={tmp_path / 'ben'}"))
    (path,) = (tmp_path / "src" / "aligned").glob("*.png")
    face = read_face(path)
    assert face.source.file == "two_faces.jpg" and face.source.rect[0] > 200
    assert face.extra[IDENTITY]["relative"] < 1.5
    left_out = (tmp_path / "src" / "left_out.txt").read_text()
    assert left_out.count("another person") == 2 == caplog.text.count("another person")
