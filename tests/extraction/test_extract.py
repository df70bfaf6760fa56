"""The extract command, small: what it writes, and what it says of bad input."""

import errno
import logging
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from odfs_jax import cli
from odfs_jax.data import aligned_png
from odfs_jax.errors import UserError
from odfs_jax.extraction import extract as extraction
from odfs_jax.extraction import writing
from odfs_jax.extraction.journal import JOURNAL
from odfs_jax.faces import affine, align

DATA = Path(__file__).parent / "data"
FACES = ("ada_000.jpg", "ben_010.jpg", "two_faces.jpg")  # one size, so that one compile serves all
FAST = ("detector.batch_size=4", "size=128")


@pytest.fixture
def workspace(tmp_path):
    """A workspace with three pictures of faces and one of none."""
    folder = tmp_path / "src"
    folder.mkdir()
    for name in FACES:
        shutil.copy(DATA / name, folder)
    cv2.imwrite(str(folder / "empty.png"), np.full((384, 384, 3), 80, np.uint8))
    return tmp_path


@pytest.fixture
def extract(configure, detector, landmarker, monkeypatch):
    """Runs `extract` on a workspace; the session's detector is used, for it is compiled already."""
    monkeypatch.setattr(extraction, "build_detector", lambda _: detector)
    monkeypatch.setattr(extraction, "build_landmarker", lambda _: landmarker)

    def go(workspace, *overrides):
        data = "hardware.compilation_cache=null", "data=src", f"workspace={workspace}"
        extraction.extract(configure(*FAST, *data, *overrides))

    return go


def names(folder):
    """The files in `folder` but the journal of the extraction."""
    return sorted({path.name for path in folder.iterdir()} - {JOURNAL})


def test_pictures_to_aligned_faces(workspace, extract, caplog):
    with caplog.at_level(logging.INFO):
        extract(workspace)
    folder = workspace / "src" / "aligned"
    assert names(folder) == ["00000_0.png", "00001_0.png", "00003_0.png", "00003_1.png"]
    assert (workspace / "src" / "no_face.txt").read_text() == "empty.png\n"
    assert "4 frames, 4 faces, 1 frames without a face" in caplog.text
    large, small = (aligned_png.read_face(folder / f"00003_{k}.png") for k in (0, 1))
    assert np.ptp(large.source.landmarks[:, 1]) > np.ptp(small.source.landmarks[:, 1])


def test_what_an_aligned_face_carries(workspace, extract):
    extract(workspace, "face_type=half")
    image, face = aligned_png.read_image_and_face(workspace / "src" / "aligned" / "00000_0.png")
    assert image.shape == (128, 128, 3) and face.size == 128 and face.face_type == "half"
    assert (face.detector, face.landmarker) == ("mtcnn", "face_mesh") and 0.7 < face.score <= 1
    source = face.source
    assert (source.file, source.frame, source.pts) == ("ada_000.jpg", 0, None)
    assert (source.width, source.height) == (384, 384)
    matrix = align.alignment_matrix(source.landmarks, face.face_type, 128)
    np.testing.assert_allclose(
        affine.transform(matrix, source.landmarks), face.landmarks, atol=1e-3
    )
    frame = cv2.imread(str(DATA / "ada_000.jpg"))[..., ::-1]
    expected = cv2.warpAffine(frame, matrix, (128, 128), borderMode=cv2.BORDER_REPLICATE)
    assert np.abs(image.astype(int) - expected).mean() < 4  # plain bilinear, ours is averaged
    left, top, right, bottom = source.rect
    inside = (source.landmarks > (left - 30, top)) & (source.landmarks < (right + 30, bottom + 30))
    assert inside.all()
    assert 10 < face.pose.yaw < 30 and -20 < face.pose.pitch < 0


def test_a_clip_gives_times_and_frame_numbers(tmp_path, frames, extract, write_clip):
    order = ("ada_000.jpg", "ada_070.jpg", None, "ben_010.jpg", "ben_100.jpg")
    blank = np.full((384, 384, 3), 80, np.uint8)
    write_clip(tmp_path / "src.mp4", [frames[name] if name else blank for name in order])
    extract(tmp_path)
    folder = tmp_path / "src" / "aligned"
    found = [aligned_png.read_face(path).source for path in sorted(folder.glob("*.png"))]
    assert [source.frame for source in found] == [0, 1, 3, 4]
    assert {source.file for source in found} == {"src.mp4"}
    assert np.diff([source.pts for source in found]).tolist() == [512, 1024, 512]
    assert (tmp_path / "src" / "no_face.txt").read_text() == "2\n"


def test_pictures_of_other_sizes_come_along(workspace, frames, extract):
    small = cv2.resize(frames["ada_070.jpg"], (128, 128), interpolation=cv2.INTER_AREA)
    wide = cv2.copyMakeBorder(small, 0, 0, 0, 32, cv2.BORDER_REPLICATE)
    cv2.imwrite(str(workspace / "src" / "wide.png"), wide[..., ::-1])
    tiny = np.zeros((9, 9, 3), np.uint8)
    cv2.imwrite(str(workspace / "src" / "tiny.png"), tiny)
    extract(workspace, "overwrite=true")
    assert (workspace / "src" / "no_face.txt").read_text() == "empty.png\ntiny.png\n"
    face = aligned_png.read_face(workspace / "src" / "aligned" / "00005_0.png")
    assert (face.source.file, face.source.width) == ("wide.png", 160)


def test_a_mask_network_goes_over_the_faces(workspace, extract, write_mask_model):
    """And where there is none, nothing is extracted."""
    with pytest.raises(UserError, match="no trained mask network here"):
        extract(workspace, "masks=true", "mask_model=seeing")
    assert not (workspace / "src" / "aligned").exists()
    write_mask_model(workspace / "elsewhere" / "seeing")
    extract(workspace, "masks=true", f"mask_model={workspace / 'elsewhere' / 'seeing'}")
    faces = [aligned_png.read_face(path) for path in (workspace / "src" / "aligned").glob("*.png")]
    assert len(faces) > 2 and {face.mask_maker for face in faces} == {"seeing 1"}
    assert all(face.mask for face in faces)


def test_unreadable_pictures_are_named_and_counted(workspace, extract, caplog):
    (workspace / "src" / "letter.png").write_text("no picture")
    whole = (workspace / "src" / "empty.png").read_bytes()
    (workspace / "src" / "cut.png").write_bytes(whole[: len(whole) // 2])
    with caplog.at_level(logging.INFO):
        extract(workspace)
    assert "letter.png: not a picture" in caplog.text and "cut.png: truncated PNG" in caplog.text
    assert "4 faces" in caplog.text and "2 problems reading" in caplog.text


def test_faces_are_not_replaced_unless_told(workspace, extract):
    extract(workspace)
    folder = workspace / "src" / "aligned"
    (folder / "00001_0.png").rename(folder / "curated.png")
    (folder / ".00002_0-x.partial.png").write_bytes(b"left by a killed run")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UserError, match=r"extracted with size=128, now 64; overwrite=true"):
        extract(workspace, "size=64")
    extract(workspace)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    extract(workspace, "overwrite=true", "size=64")
    assert names(folder)[1:] == ["00000_0.png", "00001_0.png", "00003_0.png", "00003_1.png"]
    assert aligned_png.read_face(folder / "00000_0.png").size == 64


def test_foreign_pictures_in_the_aligned_folder_stop_the_run(workspace, extract):
    folder = workspace / "src" / "aligned"
    folder.mkdir()
    shutil.copy(workspace / "src" / "empty.png", folder / "holiday.png")
    with pytest.raises(UserError, match=r"holiday.png: no face data .* move it out"):
        extract(workspace, "overwrite=true")
    assert names(folder) == ["holiday.png"]


def test_a_clip_without_a_face(tmp_path, extract, write_clip):
    write_clip(tmp_path / "src.mp4", [np.full((384, 384, 3), 80, np.uint8)] * 3)
    with pytest.raises(UserError, match=r"src.mp4: no face in any of its 3 frames"):
        extract(tmp_path)
    assert names(tmp_path / "src" / "aligned") == []
    assert (tmp_path / "src" / "no_face.txt").read_text() == "0\n1\n2\n"


class Squeezed:
    """The real points, drawn together by `share` in pictures whose first pixel is bright."""

    name = "dlib68"

    def __init__(self, real, share):
        self.real, self.share = real, share

    def __call__(self, images, faces):
        points = self.real(images, faces)
        shares = (self.share if image[0, 0, 0] > 180 else 1 for image in images)
        return [p * share for p, share in zip(points, shares, strict=True)]


@pytest.mark.parametrize(
    ("share", "reason"), [(0.0, "points of no face"), (0.03, "4 pixels from brows to lips")]
)
def test_a_face_that_cannot_be_aligned_is_left_out_and_counted(
    workspace, extract, landmarker, monkeypatch, caplog, share, reason
):
    bright = cv2.imread(str(DATA / "ben_010.jpg"))
    bright[0, 0] = 255
    cv2.imwrite(str(workspace / "src" / "bright.png"), bright)
    monkeypatch.setattr(extraction, "build_landmarker", lambda _: Squeezed(landmarker, share))
    with caplog.at_level(logging.INFO):
        extract(workspace)
    assert f"bright.png, frame 2: a face left out ({reason}" in caplog.text
    assert "5 frames, 4 faces, 2 frames without a face" in caplog.text
    assert "1 faces left out" in caplog.text


def test_a_full_disk_ends_the_run_and_its_threads(workspace, extract, monkeypatch):
    def full(path, image, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(writing, "write_face", full)
    before = threading.active_count()
    with pytest.raises(OSError, match=r"No space left on device: .*00000_0\.png"):
        extract(workspace)
    assert threading.active_count() == before
    assert not (workspace / "src" / "no_face.txt").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["workspace={tmp}/none"], "none: no such folder"),
        (["workspace={tmp}"], "src.mp4: no such clip"),
        (["workspace={tmp}", "data.src.input={tmp}/gone"], "gone: no such file or folder"),
        (["workspace={tmp}", "data.src.input={tmp}/empty"], "empty: no pictures in this folder"),
        (["workspace={tmp}", "data.src.input={tmp}/texts"], "none of 1 pictures can be read"),
        (["workspace={tmp}", "data.src.input={tmp}/empty", "face_type=hlaf"], "face_type=hlaf"),
        (["workspace={tmp}", "data.src.input={tmp}/empty", "size=3"], "size=3: expected 16"),
        (["workspace={tmp}", "data.src.input={tmp}/empty", "sise=3"], "sise"),
        (["workspace={tmp}", "data.src.input={tmp}/empty", "size=big"], "size"),
    ],
)
def test_mistakes_give_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, overrides, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.png").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    arguments = [o.format(tmp=tmp_path) for o in overrides]
    no_cache = "hardware.compilation_cache=null"
    monkeypatch.setattr(sys, "argv", ["extract", "data=src", no_cache, *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.extract()
    error = capsys.readouterr().err.strip()
    assert exit_.value.code == 2
    assert message in error and "Traceback" not in error and len(error.splitlines()) == 1


def test_the_real_command_on_a_clip_without_a_face(tmp_path, write_clip):
    write_clip(tmp_path / "src.mp4", [np.zeros((48, 64, 3), np.uint8)] * 2)
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    root = Path(__file__).parents[2]
    command = [sys.executable, str(root / "extract.py"), "data=src", f"workspace={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("odfs-extract: ")
    assert "no face in any of its 2 frames" in done.stderr


def test_a_folder_that_cannot_be_written_is_noticed_first(workspace, monkeypatch, configure):
    monkeypatch.setattr(extraction, "build_finders", lambda _: pytest.fail("it is too late"))
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for anybody but root
    config = configure("data=src", f"workspace={workspace}")
    with pytest.raises(UserError, match=f"^{workspace}/src: nothing can be written there"):
        extraction.extract(config)
    assert not (workspace / "src" / "aligned").exists()
