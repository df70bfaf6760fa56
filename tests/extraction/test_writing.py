"""How faces enter the aligned folder, and that accepted ones stay whatever happens."""

import cv2
import numpy as np
import pytest

from odfs_jax.data.aligned_png import read_face, read_image_and_face
from odfs_jax.data.media.frames import Frame
from odfs_jax.extraction import writing
from odfs_jax.extraction.journal import RUN, Done, Dropped, ExtractionJournal
from odfs_jax.extraction.writing import accept_faces
from odfs_jax.faces import align
from odfs_jax.faces.crop import crop_face
from odfs_jax.faces.types import FaceType


@pytest.fixture
def frame(frames):
    return Frame("clip.mp4", 12, 6144, frames["ben_010.jpg"])


@pytest.fixture
def points(actor_faces):
    return actor_faces["ben_010"][1].source.landmarks


def test_an_accepted_face_is_cut_like_any_other(tmp_path, frame, points):
    (path,) = accept_faces(tmp_path, frame, [points], FaceType.FULL, 128, "dlib68")
    image, face = read_image_and_face(path)
    assert path.name == "00012_0.png" and face.extra == {RUN: "manual"}
    assert (face.detector, face.landmarker, face.score) == ("manual", "dlib68", 1.0)
    assert (face.source.file, face.source.frame, face.source.pts) == ("clip.mp4", 12, 6144)
    matrix = align.alignment_matrix(points, FaceType.FULL, 128)
    np.testing.assert_array_equal(image, crop_face(frame.image, matrix, 128))
    np.testing.assert_allclose(face.source.landmarks, points, atol=1e-4)
    assert face.source.rect[:2] == pytest.approx(points.min(0), abs=1e-3)


def test_no_face_is_replaced_and_the_frame_is_no_longer_doubtful(tmp_path, frame, points):
    journal = ExtractionJournal(tmp_path)
    journal.start({"size": 64})
    left = Dropped("score 0.40 below 0.5", (1.0, 2.0, 3.0, 4.0), 0.4)
    journal.add(Done("clip.mp4", 12, 6144, 0, (left,)))
    journal.add(Done("clip.mp4", 13, 6656, 0))
    assert [done.frame for done in ExtractionJournal.read(tmp_path).doubtful()] == [12, 13]
    for k in range(2):
        (path,) = accept_faces(tmp_path, frame, [points + 3 * k], FaceType.HALF, 64)
        assert path.name == f"00012_{k}.png"
    journal = ExtractionJournal.read(tmp_path)
    assert [done.frame for done in journal.doubtful()] == [13]
    assert journal.frames[12].faces == 2 and journal.frames[12].dropped == (left,)
    accept_faces(tmp_path, Frame("clip.mp4", 13, 6656, frame.image), [], FaceType.HALF, 64)
    assert ExtractionJournal.read(tmp_path).doubtful() == []
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_several_faces_of_a_frame_at_once(tmp_path, frame, points):
    paths = accept_faces(tmp_path, frame, [points, points * 0.5], FaceType.MARK_ONLY, 64)
    assert [path.name for path in paths] == ["00012_0.png", "00012_1.png"]
    image, face = read_image_and_face(paths[1])
    np.testing.assert_array_equal(image, frame.image)
    np.testing.assert_allclose(face.landmarks, points * 0.5, atol=1e-4)


@pytest.mark.parametrize("wrong", [np.full((68, 2), np.nan), np.zeros((68, 2))])
def test_points_of_no_face_write_nothing(tmp_path, frame, points, wrong):
    with pytest.raises(ValueError, match=r"points"):
        accept_faces(tmp_path, frame, [points, wrong], FaceType.FULL, 64)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_of_a_folder_is_known_by_its_name(tmp_path, points):
    picture = cv2.resize(np.zeros((9, 9, 3), np.uint8), (384, 384))
    accept_faces(tmp_path, Frame("b.png", 1, None, picture), [points], FaceType.FULL, 64)
    assert ExtractionJournal.read(tmp_path).frames.keys() == {"b.png"}
    assert read_face(tmp_path / "00001_0.png").source.file == "b.png"


def test_killed_between_the_face_and_the_note(tmp_path, frame, points, monkeypatch):
    def killed(self, done):
        raise KeyboardInterrupt

    monkeypatch.setattr(writing.ExtractionJournal, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        accept_faces(tmp_path, frame, [points], FaceType.FULL, 64)
    assert read_face(tmp_path / "00012_0.png").extra == {RUN: "manual"}
