"""Several workers, a part of one clip each: together what one worker extracts.

The faces are where a made-up detector says; a killed worker is a process of its own.
"""

import json
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_resume import EMPTY, FRAMES, SIDE, Known, contents, folder_of, images  # noqa: F401

from odfs_jax import cli
from odfs_jax.data import lock
from odfs_jax.data.lock import locked
from odfs_jax.data.media.frames import Frame
from odfs_jax.errors import UserError
from odfs_jax.extraction import extract as extraction
from odfs_jax.extraction.detection import batches_of_one_size
from odfs_jax.extraction.journal import PARTS, ExtractionJournal
from odfs_jax.faces.landmarks68 import MEAN_HEAD

ROOT = Path(cli.__file__).parents[1]


@pytest.fixture
def extract(configure, monkeypatch, request):
    detector = getattr(request, "param", Known)()
    monkeypatch.setattr(extraction, "build_detector", lambda _: detector)
    monkeypatch.setattr(extraction, "build_landmarker", lambda _: detector)
    monkeypatch.setattr(lock, "POLL", 0.01)

    def go(workspace, *overrides):
        data = "hardware.compilation_cache=null", "data=src", f"workspace={workspace}", "size=32"
        detector.seen.clear()
        extraction.extract(configure(*data, "smoothing.args.frames=2", *overrides))
        return list(detector.seen)

    return go


@pytest.fixture
def clips(tmp_path, images, write_clip):  # noqa: F811
    """Two workspaces with one clip, which has a key frame every eight frames."""
    one, many = tmp_path / "one", tmp_path / "many"
    one.mkdir()
    write_clip(one / "src.mp4", images, g="8")
    shutil.copytree(one, many)
    return one, many


@contextmanager
def in_another_thread():
    """Calls functions as another worker would: a thread may lock twice, two may not."""
    with ThreadPoolExecutor(1) as pool:
        yield lambda *call: pool.submit(*call).result()


def lists(workspace):
    names = ("no_face.txt", "left_out.txt")
    return [(folder_of(workspace).parent / name).read_text() for name in names]


def frames_of(workspace):
    return ExtractionJournal.read(folder_of(workspace)).frames


class Stopped(Exception):
    """Stands for Ctrl-C."""


def fail():
    raise Stopped


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_shards_together_are_one_run(clips, extract, order):
    one, many = clips
    extract(one)
    for number in order:
        assert not list(folder_of(many).parent.glob("*.txt"))
        extract(many, f"shard={number}", "shards=3")
    assert contents(many) == contents(one) and frames_of(many) == frames_of(one)
    assert lists(many) == lists(one) and lists(one)[0] == f"{EMPTY}\n"
    assert not list(folder_of(many).glob(PARTS)) and not list(folder_of(many).glob(".odfs_lock*"))


class Placed(Known):
    """Its points depend on their place in a call, as a network's last digit does.

    Two batches share a frame, as those of a `KeyframeDetector` do; the points of that frame are
    found with the earlier one.
    """

    def batches(self, frames):
        return batches_of_one_size(frames, lambda *_: 9, lambda batch, most: len(batch) == most)

    def __call__(self, *call):
        if len(call) == 1:
            found = super().__call__(*call)
            return [[replace(face, landmarks=None) for face in faces] for faces in found]
        middles = [(face.box[:2] + face.box[2:]) / 2 for face in call[1]]
        return [
            MEAN_HEAD[:, :2] * (18, -18) + middle + place for place, middle in enumerate(middles)
        ]


@pytest.mark.parametrize("extract", [Placed], indirect=True)
def test_shards_call_networks_as_one_run_does(clips, extract):
    one, many = clips
    extract(one)
    for number in range(3):
        extract(many, f"shard={number}", "shards=3")
    assert contents(many) == contents(one)


def test_chosen_frames_of_pictures(tmp_path, images, extract):  # noqa: F811
    for name in ("one", "many"):
        (tmp_path / name / "src").mkdir(parents=True)
        for number, image in enumerate(images):
            cv2.imwrite(str(tmp_path / name / "src" / f"p{number:02d}.png"), image)
    chosen = ("frames=[2-9,14-]", "every=3")
    extract(tmp_path / "one", *chosen)
    for number, done in enumerate([{2, 5, 8}, {2, 5, 8, 14, 17, 20, 23}]):
        extract(tmp_path / "many", *chosen, f"shard={number}", "shards=2")
        assert {one.frame for one in frames_of(tmp_path / "many").values()} == done
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


def test_a_run_that_was_stopped_is_gone_on_with(clips, extract, monkeypatch):
    """By shards, then by one worker, whatever had been done by then."""
    one, many = clips
    extract(one)
    with monkeypatch.context() as patch:
        patch.setattr(ExtractionJournal, "sync", lambda _: fail())
        with pytest.raises(Stopped):
            extract(many, "shard=1", "shards=2")
        patch.undo()
        add = ExtractionJournal.add
        patch.setattr(
            ExtractionJournal,
            "add",
            lambda own, done: fail() if done.frame == 5 else add(own, done),
        )
        with pytest.raises(Stopped):
            extract(many, "shard=0", "shards=2")
    assert set(frames_of(many)) == {*range(5), *range(12, FRAMES)}
    assert extract(many, "shard=1", "shards=2") == []
    extract(many)
    assert contents(many) == contents(one) and frames_of(many) == frames_of(one)
    assert not list(folder_of(many).glob(PARTS))


def test_what_does_not_go_together_is_refused(clips, extract):
    _, many = clips
    refused = {
        ("shard=2", "shards=2"): "shard=2: expected 0 to 1, for shards=2",
        ("shards=2",): "shards=2: which one does this worker do",
        ("shard=0", "shards=50"): "shards=50: more than the 24 frames",
        ("shard=0", "shards=2", "overwrite=true"): "overwrite=true is for one worker",
        ("shard=0", "shards=2", "manual_fix=true"): "placing faces by hand comes after it",
    }
    for overrides, message in refused.items():
        with pytest.raises(UserError, match=message):
            extract(many, *overrides)
    extract(many, "shard=0", "shards=2")
    with pytest.raises(UserError, match="extracted with face_type=full, now head"):
        extract(many, "shard=1", "shards=2", "face_type=head")
    for other, message in (
        (["shard=1", "shards=3"], "shards=2, now 3"),
        (["shard=1", "shards=2", "frames=[2-7,9-]"], "frames=0-, now 2-7,9-"),
        (["shard=1", "shards=2", "every=2"], "every=1, now 2"),
        (["shard=1", "shards=2", "detector.batch_size=3"], "detector.batch_size=16, now 3"),
    ):
        with pytest.raises(UserError, match=f"its shards were begun with {message}; give the same"):
            extract(many, *other)
    assert extract(many, "frames=2-", "detector.batch_size=3") != []  # one worker may go on so
    with locked(folder_of(many), "extracting faces", "0-of-2"):
        with in_another_thread() as refused_in, pytest.raises(UserError, match="shard 0-of-2"):
            refused_in(extract, many, "shard=0", "shards=2")
        with in_another_thread() as refused_in, pytest.raises(UserError, match="in use"):
            refused_in(extract, many)


def test_who_reads_while_parts_are_joined_misses_no_frame(clips, extract, monkeypatch):
    _, many = clips
    monkeypatch.setattr(extraction, "_join_parts", lambda *_: None)
    for number in range(2):
        extract(many, f"shard={number}", "shards=2")
    frames, replay = frames_of(many), ExtractionJournal._replay_file

    def join_before_the_second(journal, path):
        if "1-of-2" in path.name:
            monkeypatch.setattr(ExtractionJournal, "_replay_file", replay)
            ExtractionJournal.read(folder_of(many)).absorb_parts()
        replay(journal, path)

    monkeypatch.setattr(ExtractionJournal, "_replay_file", join_before_the_second)
    assert frames_of(many) == frames and len(frames) == FRAMES
    assert not list(folder_of(many).glob(PARTS))


def test_a_killed_worker_is_started_again(clips, configure):
    """SIGKILL in the middle of a shard, while another one works; what it left is taken over."""
    one, many = clips
    blank = np.zeros((SIDE, SIDE, 3), np.uint8)
    found = [Known().faces(Frame("src.mp4", i, i, blank)) for i in range(FRAMES)]
    faces = {
        str(i): [{"landmarks": face.landmarks.tolist()} for face in faces]
        for i, faces in enumerate(found)
    }
    file = one.parent / "faces.json"
    file.write_text(json.dumps({"version": 1, "frames": faces}))

    def settings(workspace, *overrides):
        given = (
            "data=src",
            f"workspace={workspace}",
            "detector=file",
            f"detector.args.path={file}",
        )
        return [*given, "hardware.compilation_cache=null", *overrides]

    extraction.extract(configure(*settings(one)))
    command = [sys.executable, str(ROOT / "extract.py"), *settings(many, "shard=1", "shards=2")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as worker:
        deadline = time.monotonic() + 60
        while not list(folder_of(many).glob("0001[2-9]_*.png")) and time.monotonic() < deadline:
            time.sleep(0.001)
        worker.kill()
    assert worker.returncode == -signal.SIGKILL
    for shard in ("shard=0", "shard=1"):
        assert not list(folder_of(many).parent.glob("*.txt"))
        extraction.extract(configure(*settings(many, shard, "shards=2")))
    assert contents(many) == contents(one) and frames_of(many) == frames_of(one)
    assert lists(many) == lists(one)
