"""One writer at a time in a folder; a dead one holds nobody up."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from odfs_jax.data import lock
from odfs_jax.data.lock import LOCK, holder, locked
from odfs_jax.errors import UserError

HOLD = """
import sys, time
from odfs_jax.data.lock import Path, locked
with locked(Path(sys.argv[1]), "sorting faces"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def other(tmp_path):
    """A process that holds the lock of tmp_path."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_other_process_is_named_and_its_death_frees_the_folder(tmp_path, other, monkeypatch):
    monkeypatch.setattr(lock, "POLL", 0.01)
    (tmp_path.parent / "link").unlink(missing_ok=True)
    (tmp_path.parent / "link").symlink_to(tmp_path)  # the same folder by another name
    for path in (tmp_path, tmp_path.parent / "link"):
        with pytest.raises(UserError) as error, locked(path, "extracting faces"):
            pass
        assert f"{path}: in use (sorting faces, process {other.pid} on " in str(error.value)
    assert "sorting faces" in holder(tmp_path)
    other.kill()
    other.wait()
    assert holder(tmp_path) is None and (tmp_path / LOCK).exists()
    with locked(tmp_path, "extracting faces"):
        assert "extracting faces" in holder(tmp_path)
    assert not list(tmp_path.iterdir())


def test_one_thread_may_lock_twice_another_one_waits(tmp_path):
    order, held = [], threading.Event()

    def work():
        held.wait()
        with locked(tmp_path, "b"):
            order.append("thread")

    thread = threading.Thread(target=work)
    thread.start()
    with locked(tmp_path, "a"):
        with locked(tmp_path, "a"):
            held.set()
        thread.join(0.3)
        order.append("main")
    thread.join()
    assert order == ["main", "thread"]


def test_what_is_no_lock_is_left_alone(tmp_path):
    """A lock's file is written to: a stranger's folder may hold a link to a user's file."""
    target = tmp_path / "letter"
    target.write_text("mine")
    folder = tmp_path / "aligned"
    folder.mkdir()
    for make in (
        lambda path: path.symlink_to(target),
        lambda path: os.link(target, path),
        os.mkfifo,
        os.mkdir,
    ):
        make(folder / LOCK)
        with pytest.raises(UserError, match="not a file of this program"), locked(folder, "a"):
            pass
        assert target.read_text() == "mine" and holder(folder) is None
        (folder / LOCK).rmdir() if (folder / LOCK).is_dir() else (folder / LOCK).unlink()


def test_a_folder_that_is_replaced_keeps_the_new_ones_lock(tmp_path):
    folder = tmp_path / "aligned"
    folder.mkdir()
    with locked(folder, "a"):
        folder.rename(tmp_path / "old")
        folder.mkdir()
        (folder / LOCK).write_text("another's")
    assert (folder / LOCK).read_text() == "another's"


def test_parts_share_a_folder_with_each_other_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "POLL", 0.001)
    folder = tmp_path / "aligned"
    folder.mkdir()
    with ThreadPoolExecutor(1) as other, ThreadPoolExecutor(1) as third:

        def refused(who, part=None):
            with pytest.raises(UserError, match=rf"in use \({who}, process"):
                third.submit(ExitStack().enter_context, locked(folder, "sorting", part)).result()

        first, second = ExitStack(), ExitStack()
        first.enter_context(locked(folder, "extracting", "0-of-2"))
        other.submit(second.enter_context, locked(folder, "extracting", "1-of-2")).result()
        refused("extracting, shard 0-of-2", "0-of-2")
        refused("extracting")
        assert "shard 0-of-2" in holder(folder)
        first.close()
        refused("extracting")  # the other part is still at work
        other.submit(second.close).result()
        assert holder(folder) is None and not list(folder.iterdir())
