"""What the pages know of a faceset: read in portions, kept, and read again when files change."""

import json
import os
from concurrent.futures import Future

import pytest

from odfs_jax.studio import face_index
from odfs_jax.studio.face_index import PoseIndex
from odfs_jax.studio.worker import read_poses
from odfs_jax.studio.workspace import StudioWorkspace


class InlineWorker:
    """A worker that works at once, in this process, and remembers on what."""

    def __init__(self):
        self.read = []

    def submit(self, work, files):
        assert work is read_poses
        self.read.append([path.name for path in files])
        done = Future()
        done.set_result(work(files))
        return done


@pytest.fixture
def folder(tmp_path, write_faceset, monkeypatch):
    monkeypatch.setattr(face_index.PoseIndex, "portion", 2)
    write_faceset(tmp_path / "src" / "aligned", 3, size=16)
    (tmp_path / "src" / "aligned" / "bad.png").write_bytes(b"no face")
    (tmp_path / "src" / "aligned" / ".hidden.png").write_bytes(b"half written")
    return tmp_path / "src" / "aligned"


def read_rows(index):
    """What is known in the end, and the numbers of files that were still missing."""
    missing = []
    for _ in range(9):
        found, left = index.look()
        missing.append(left)
        if not left:
            return found, missing
    raise AssertionError(missing)


def test_it_reads_in_portions_and_keeps_what_it_read(folder, tmp_path):
    worker, studio_workspace = InlineWorker(), StudioWorkspace(tmp_path)
    found, missing = read_rows(PoseIndex(studio_workspace, "src", worker))
    assert sorted(found) == [f"0000{i}_0.png" for i in range(3)]  # the bad one is no face
    assert set(map(tuple, found.values())) == {(0.0, 0.0, 1.0, 0)}
    assert missing == [4, 2, 0] and list(map(len, worker.read)) == [2, 2]
    again = InlineWorker()
    assert PoseIndex(studio_workspace, "src", again).look() == (found, 0) and not again.read


def test_changed_and_new_files_are_read_again(folder, tmp_path, write_faceset):
    worker = InlineWorker()
    index = PoseIndex(StudioWorkspace(tmp_path), "src", worker)
    read_rows(index)
    assert sorted(index.names(0)) == [f"0000{i}_0.png" for i in range(3)] and not index.names(1)
    os.utime(folder / "00001_0.png", ns=(5, 5))
    (folder / "00002_0.png").unlink()
    worker.read.clear()
    assert list(index.look()[0]) == ["00000_0.png"]  # what the other one was is no longer told
    found, _ = read_rows(index)
    assert worker.read == [["00001_0.png"]]
    assert sorted(found) == ["00000_0.png", "00001_0.png"]


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", '{"a": 5}', '{"a": ["1", ["x"]]}', "[" * 9999, '{"a": ["1", [1, 2, 3]]}'),
        *('{"a": ["1", [1, 2, 3, NaN]]}', '{"a": ["1", [1, 2, 3, 4.5]]}', '{"a": ["1", [1e400]]}'),
        *('{"a": ["1", [1, 2, true, 4]]}', f'{{"a": ["1", [1, 2, 3, {"9" * 400}]]}}'),
    ],
)
def test_what_was_kept_may_be_broken(folder, tmp_path, content):
    path = tmp_path / "studio" / "poses_src.json"
    path.parent.mkdir()
    path.write_text(content)
    found, _ = read_rows(PoseIndex(StudioWorkspace(tmp_path), "src", InlineWorker()))
    assert len(found) == 3
    assert len(json.loads(path.read_text())) == 4


def test_a_side_without_faces(tmp_path):
    assert PoseIndex(StudioWorkspace(tmp_path), "dst", InlineWorker()).look() == ({}, 0)
