"""Writes that fail leave the old file, and nothing else."""

import errno
import os
import stat
import subprocess
import sys

import pytest

from odfs_jax.data import atomic
from odfs_jax.errors import UserError


def test_write_and_replace(tmp_path):
    path = tmp_path / "new" / "file.txt"
    atomic.write_text(path, "häé")
    assert path.read_bytes() == "häé".encode()
    atomic.write_bytes(path, b"second")
    assert path.read_bytes() == b"second" and len(list(path.parent.iterdir())) == 1


def test_the_mode_is_that_of_any_new_file(tmp_path):
    atomic.write_bytes(tmp_path / "ours", b"")
    (tmp_path / "usual").touch()
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "usual")}
    assert len(modes) == 1


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.png"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="stop"), atomic.replacing(path) as temporary:
        assert temporary.suffix == ".png" and temporary.parent == tmp_path
        temporary.write_bytes(b"half")
        raise RuntimeError("stop")
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        atomic.write_bytes(path, b"new")
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


KILLED = """
import sys, time
from odfs_jax.data.atomic import Path, replacing, replacing_folder
folder = Path(sys.argv[1])
with replacing(folder / "clip.mp4") as file, replacing_folder(folder / "faces") as faces:
    file.write_bytes(b"half")
    (faces / "face.png").write_bytes(b"one")
    print("there", flush=True)
    time.sleep(600)
"""


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path, monkeypatch):
    """What is still being written, and what only looks alike, stays."""
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "there\n"
    (tmp_path / ".notes.partial.txt").touch()
    written = {path.name for path in tmp_path.iterdir()}
    assert len(written) == 3
    atomic.write_bytes(tmp_path / "new", b"")
    assert {path.name for path in tmp_path.iterdir()} == written | {"new"}
    process.kill()
    process.communicate()
    monkeypatch.setattr(atomic, "_cleaned", set())  # as in another process
    atomic.write_bytes(tmp_path / "new", b"")
    assert {path.name for path in tmp_path.iterdir()} == {"new", ".notes.partial.txt"}


def test_a_new_folder_takes_no_full_ones_place(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(OSError), atomic.replacing_folder(tmp_path / "full") as new:
        (new / "ours").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]


def test_a_place_where_nothing_can_be_written_is_noticed_first(tmp_path, monkeypatch):
    atomic.check_writable(tmp_path / "new" / "file")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is no folder"):
        atomic.check_writable(tmp_path / "file" / "models")
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for anybody but root
    with pytest.raises(UserError, match=f"{tmp_path}: nothing can be written there"):
        atomic.check_writable(tmp_path / "new" / "file")


def test_what_is_appended_follows_no_link_and_waits_for_no_pipe(tmp_path):
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "folder", "pipe"):
        with (
            pytest.raises(UserError, match=f"{name}: not a file of this program; remove it"),
            atomic.appending(tmp_path / name) as file,
        ):
            file.write(b"ours")
    assert (tmp_path / "theirs").read_text() == "theirs"
    for part in (b"one", b"two"):
        with atomic.appending(tmp_path / "new" / "file") as file:
            file.write(part)
    assert (tmp_path / "new" / "file").read_bytes() == b"onetwo"


def test_a_folder_is_removed_as_a_whole(tmp_path, monkeypatch):
    """A kill in between leaves only what is hidden."""
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").touch()
    with monkeypatch.context() as patch:
        patch.setattr(atomic.shutil, "rmtree", lambda _: None)
        atomic.remove_folder(tmp_path / "old")
    assert [path.name[:5] for path in tmp_path.iterdir()] == [".old-"]
    monkeypatch.setattr(atomic, "_cleaned", set())  # as in another process
    atomic.write_bytes(tmp_path / "new", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
