"""Backups by time, and going back to one: nothing is lost, wherever it is stopped."""

import os
import shutil
import time
from contextlib import nullcontext
from pathlib import Path

import jax
import numpy as np
import pytest

from odfs_jax.config import compose
from odfs_jax.data import atomic
from odfs_jax.errors import UserError
from odfs_jax.saved_model import steps_in
from odfs_jax.training import backups
from odfs_jax.training.backups import back_up_when_due, backups_in, rollback
from odfs_jax.training.metrics import PREVIEW, add_preview, preview_files
from odfs_jax.training.train import train


def add_checkpoint(folder: Path, step: int, ago: float, word: str = "") -> None:
    """What a finished checkpoint has on the disk, saved `ago` minutes ago."""
    checkpoint = folder / "checkpoints" / str(step)
    for name, content in (
        ("config/metadata", "{}"),
        ("history/metadata", f'{{"rows": [[{step}, {{"src_face": {step / 1e4}}}]]}}'),
        ("state/d/numbers", f"state {step}{word}"),
    ):
        path = checkpoint / name
        path.parent.mkdir(parents=True)
        path.write_text(content)
        then = time.time() - ago * 60
        os.utime(path, (then, then))
    add_preview(folder, step, np.full((8, 8, 3), step % 256, np.uint8))


def states(folder: Path) -> set[str]:
    """All states that are kept anywhere and whole."""
    kept = [*backups.checkpoints_in(folder), *backups_in(folder)]
    return {(one.checkpoint / "state/d/numbers").read_text() for one in kept}


def names(folder: Path) -> list[str]:
    return [one.name for one in backups_in(folder)]


@pytest.fixture
def folder(tmp_path) -> Path:
    """A model's folder with three checkpoints, backups of an older one and of the first of them."""
    folder = tmp_path / "models" / "h64"
    for step, ago in ((50, 300), (100, 150), (200, 20), (300, 10)):
        add_checkpoint(folder, step, ago)
        if step <= 100:
            back_up_when_due(folder, 4, 60)
    shutil.rmtree(folder / "checkpoints" / "50")
    return folder


def test_a_backup_is_due_by_time_and_the_oldest_goes(tmp_path):
    for step, ago in enumerate((300, 290, 241, 239, 180, 100, 30), 1):
        add_checkpoint(tmp_path, step, ago)
        back_up_when_due(tmp_path, 3, 60)
        back_up_when_due(tmp_path, 3, 60)
    # 1, 4 (an hour and a minute later), 6, 7; the oldest of the four is gone
    assert names(tmp_path) == ["7", "6", "4"]
    newest = backups_in(tmp_path)[0]
    assert newest.preview.read_bytes() == preview_files(tmp_path)[7].read_bytes()
    state = "state/d/numbers"
    assert os.path.samefile(newest.checkpoint / state, tmp_path / "checkpoints/7" / state)
    assert not list((tmp_path / "backups").glob(".*"))
    back_up_when_due(tmp_path, 0, 60)
    assert len(names(tmp_path)) == 3


def test_without_links_a_backup_is_a_copy(tmp_path, monkeypatch):
    def refused(*_args, **_kwargs):
        raise PermissionError

    monkeypatch.setattr(os, "link", refused)
    add_checkpoint(tmp_path, 1, 5)
    back_up_when_due(tmp_path, 1, 60)
    back_up_when_due(tmp_path, 1, 0)  # the same state: known by its time
    assert names(tmp_path) == ["1"] and states(tmp_path) == {"state 1"}


def test_a_disk_that_takes_no_backup_does_not_end_the_run(tmp_path, monkeypatch, caplog):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    add_checkpoint(tmp_path, 1, 5)
    monkeypatch.setattr(backups.shutil, "copytree", full)
    back_up_when_due(tmp_path, 1, 60)
    assert "no backup was made (No space left on device)" in caplog.text
    assert names(tmp_path) == [] and not list((tmp_path / "backups").iterdir())


def test_back_and_forward_again(folder):
    before = states(folder)
    assert before == {"state 50", "state 100", "state 200", "state 300"}
    rollback(folder, "50")
    assert steps_in(folder) == [50] and states(folder) == before
    assert sorted(names(folder)) == ["100", "200", "300", "50"]
    preview = next(one for one in backups_in(folder) if one.name == "300").preview
    assert preview.read_bytes() == preview_files(folder)[300].read_bytes()
    assert (folder / PREVIEW).stat().st_mtime_ns >= preview.stat().st_mtime_ns
    # the same iteration again, learned otherwise: none takes the other's place
    add_checkpoint(folder, 300, 1, " otherwise")
    rollback(folder, "300")
    assert steps_in(folder)[-1] == 300 and "300-2" in names(folder)
    assert (folder / "checkpoints/300/state/d/numbers").read_text() == "state 300"
    assert states(folder) == before | {"state 300 otherwise"}
    rollback(folder, "300-2")
    rollback(folder, "300-2")
    assert (folder / "checkpoints/300/state/d/numbers").read_text() == "state 300 otherwise"
    assert states(folder) == before | {"state 300 otherwise"}


def test_a_checkpoint_is_gone_back_to_like_a_backup(folder):
    rollback(folder, "200")
    assert steps_in(folder) == [100, 200] and "300" in names(folder)


def test_what_is_kept_is_listed(folder, capsys):
    rollback(folder, "list")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["300", "200", "100", "50"]
    assert lines[0].split()[1:] == ["10", "min", "src_face", "0.03000", "(present)"]
    assert lines[3].split()[1:3] == ["5", "h"]
    words = r"rollback=7: no such backup .*there is: 300, 200, 100, 50"
    with pytest.raises(UserError, match=words):
        rollback(folder, "7")
    with pytest.raises(UserError, match="no such model"):
        rollback(folder / "none", "list")


@pytest.mark.parametrize(("name", "first"), [("50", 0), ("100", 3)])
def test_stopped_anywhere_nothing_is_lost_and_the_next_try_ends_it(folder, tmp_path, name, first):
    """One in seven of the calls that change the disk is the last one once."""
    before, calls = states(folder), ("link", "mkdir", "replace", "rename", "rmdir", "unlink")

    class Killed(BaseException):
        pass

    for last in range(first, 1000, 7):
        copy = tmp_path / "copy" / "h64"
        shutil.copytree(folder, copy)
        with pytest.MonkeyPatch.context() as patch:
            left = last

            def counted(call):
                def wrapped(*args, **kwargs):
                    nonlocal left
                    left -= 1
                    if left < 0:
                        raise Killed
                    return call(*args, **kwargs)

                return wrapped

            patch.setattr(
                backups, "locked", lambda *_: nullcontext()
            )  # a lock ends with its process
            for call in calls:
                patch.setattr(os, call, counted(getattr(os, call)))
            try:
                rollback(copy, name)
            except Killed:
                pass
            else:
                break
        assert states(copy) == before, last
        present = steps_in(copy)[-1]
        assert present in (100, 200, 300) or present == int(name)
        patch.undo()
        atomic._cleaned.clear()
        rollback(copy, name)
        assert steps_in(copy)[-1] == int(name) and states(copy) == before, last
        shutil.rmtree(tmp_path / "copy")
    assert last > 20


def test_a_run_keeps_backups_and_goes_on_from_one(
    workspace, run_training, read_checkpoint, configure, capsys
):
    """Twenty iterations again from a backup of iteration 20 are those that were learned before."""
    settings = ("backups=2", "backup_minutes=0", "log_every=10", "preview_every=0")
    folder = run_training(workspace, "iterations=20", *settings)
    assert names(folder) == ["20"] and backups_in(folder)[0].preview is not None
    run_training(workspace, "iterations=40", *settings)
    assert names(folder) == ["40", "20"]
    expected = read_checkpoint(folder)
    train(configure(workspace, "rollback=20"))
    assert steps_in(folder) == [20]
    train(configure(workspace, "rollback=list"))
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["20", "40"]
    run_training(workspace, "iterations=40", *settings)
    again = read_checkpoint(folder)
    for ours, theirs in zip(jax.tree.leaves(again[0]), jax.tree.leaves(expected[0]), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert again[2] == expected[2] and names(folder) == ["40-2", "40"]
    # Where the checkpoints are gone no new model takes the place of what is kept.
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(UserError, match="no checkpoint, but backups; give rollback=40-2"):
        run_training(workspace, "iterations=40")
    assert compose("train").backups == 4 and compose("train").backup_minutes == 60
