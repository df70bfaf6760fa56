"""Snapshots of a run by time: `train.py backups=4 backup_minutes=60`, and `rollback=list|NAME`.

<workspace>/models/<name>/backups/<step>/
    checkpoint/     a finished checkpoint: hard links to its files, copies where there are no links
    preview.jpg     the preview of its iteration, where there was one

A second state of the same iteration, after a rollback, is called <step>-2, and so on. A snapshot
appears whole and goes as a whole; what a killed run left of one is hidden, and removed by the next.
"""

import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from odfs_jax import saved_model
from odfs_jax.data import atomic
from odfs_jax.data.lock import locked
from odfs_jax.data.media.picture_folder import read_picture
from odfs_jax.errors import UserError
from odfs_jax.runtime.output import say
from odfs_jax.training.checkpoint import read_history
from odfs_jax.training.metrics import add_preview, preview_files

log = logging.getLogger(__name__)

FOLDER, CHECKPOINT, PREVIEW = "backups", "checkpoint", "preview.jpg"
NAME = re.compile(r"([0-9]{1,12})(-[0-9]{1,6})?")
LIST = "list"  # the other choice of the setting `rollback`


@dataclass(frozen=True)
class Snapshot:
    """A state of a run that can be gone back to: a backup, or a checkpoint itself."""

    name: str  # as `rollback=` takes it
    checkpoint: Path
    preview: Path | None = None

    @property
    def step(self) -> int:
        return int(NAME.fullmatch(self.name)[1])

    @property
    def saved(self) -> float:
        """When it was saved, in seconds since 1970. Copies and links keep that of the original."""
        return (self.checkpoint / "config" / "metadata").stat().st_mtime

    def is_state_of(self, other: "Snapshot") -> bool:
        """True when both are the same state: of the same iteration, saved at the same time."""
        return self.step == other.step and self.saved == other.saved

    def losses(self) -> dict[str, float]:
        """Those of the last log line before it. Raises UserError when they cannot be read."""
        rows = read_history(self.checkpoint).rows
        return rows[-1][1] if rows else {}


def backups_in(folder: Path) -> list[Snapshot]:
    """The backups of the model in `folder`, the one saved last first."""
    found = []
    for path in (folder / FOLDER).glob("*"):
        # Links and folders that lack what a checkpoint has are not ours.
        whole = not path.is_symlink() and (path / CHECKPOINT / "config" / "metadata").is_file()
        if whole and NAME.fullmatch(path.name):
            preview = path / PREVIEW
            found.append(
                Snapshot(path.name, path / CHECKPOINT, preview if preview.is_file() else None)
            )
    return sorted(found, key=lambda one: one.saved, reverse=True)


def checkpoints_in(folder: Path) -> list[Snapshot]:
    """The checkpoints of the model in `folder`, the last iteration first."""
    previews = preview_files(folder)
    return [
        Snapshot(str(step), folder / "checkpoints" / str(step), previews.get(step))
        for step in reversed(saved_model.steps_in(folder))
    ]


def back_up_when_due(folder: Path, keep: int, minutes: float) -> None:
    """Keeps the last checkpoint of `folder` where the last backup is `minutes` older; oldest go.

    To be called while no checkpoint is being written. With `keep` 0 it does nothing. A disk that
    takes no backup is logged: the run itself goes on.
    """
    present, known = checkpoints_in(folder)[:1], backups_in(folder)
    if not keep or not present:
        return
    # Of a clock that was set back in between, no more is asked than of another one.
    if known and abs(present[0].saved - known[0].saved) < max(minutes * 60, 1e-9):
        return
    try:
        back_up(folder, present[0])
        for old in backups_in(folder)[keep:]:
            atomic.remove_folder(old.checkpoint.parent)
    except OSError as error:
        log.warning("%s: no backup was made (%s)", folder / FOLDER, error.strerror)


def back_up(folder: Path, snapshot: Snapshot) -> None:
    """Adds `snapshot`, a checkpoint of `folder`, to its backups unless it is there."""
    known = backups_in(folder)
    if any(snapshot.is_state_of(other) for other in known):
        return
    taken = {other.name for other in known}
    name = next(name for name in _names(snapshot.step) if name not in taken)
    with atomic.replacing_folder(folder / FOLDER / name) as new:
        _link(snapshot.checkpoint, new / CHECKPOINT)
        if snapshot.preview is not None:
            _link_file(snapshot.preview, new / PREVIEW)


def _names(step: int) -> Iterator[str]:
    yield str(step)
    yield from (f"{step}-{number}" for number in count(2))


def _link(folder: Path, new: Path) -> None:
    shutil.copytree(folder, new, copy_function=_link_file, dirs_exist_ok=True)


def _link_file(file: str | Path, new: str | Path) -> None:
    """No file of a checkpoint is ever changed: it is replaced or removed."""
    try:
        os.link(file, new, follow_symlinks=False)
    except OSError:  # a file system without links
        shutil.copy2(file, new)


def rollback(folder: Path, name: str) -> None:
    """Makes the backup or checkpoint `name` the present state of the model in `folder`, or lists.

    The states after it become backups, so that one can go forward again; nothing is removed. Killed
    half way it leaves the state that was there or the one asked for, and does the rest when it is
    run again. Raises UserError.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such model")
    if name == LIST:
        say(*_listed(folder))
        return
    with locked(folder, "going back to a backup"):
        there = checkpoints_in(folder)
        names = {one.name: one for one in (*there, *backups_in(folder))}  # backups count first
        if name not in names:
            known = ", ".join(names) or "none"
            raise UserError(f"rollback={name}: no such backup of {folder}; there is: {known}")
        chosen = names[name]
        in_place = any(chosen.is_state_of(one) for one in there)
        for one in there:  # the last one first: until it is gone it is the present state
            if one.step > chosen.step or (one.step == chosen.step and not in_place):
                back_up(folder, one)
        if not in_place:
            target = folder / "checkpoints" / str(chosen.step)
            with atomic.replacing_folder(target) as new:
                _link(chosen.checkpoint, new)
                if target.exists():
                    atomic.remove_folder(target)  # it is a backup by now
        for one in there:
            if one.step > chosen.step:
                atomic.remove_folder(one.checkpoint)
        if chosen.preview is not None:
            add_preview(folder, chosen.step, read_picture(chosen.preview))
    log.info("%s: at iteration %d; what was after it is kept in %s", folder, chosen.step, FOLDER)


def _listed(folder: Path) -> list[str]:
    """A line for each state: its name, its age, its losses."""
    there = checkpoints_in(folder)
    kept = [b for b in backups_in(folder) if not any(b.is_state_of(one) for one in there)]
    lines = []
    for one in (*there, *kept):
        losses = "  ".join(f"{name} {value:.5f}" for name, value in one.losses().items())
        present = "  (present)" if one is there[0] else ""
        lines.append(f"{one.name:>12}  {age(one):>10}  {losses}{present}")
    return lines or [f"{folder}: nothing is saved yet"]


def age(snapshot: Snapshot) -> str:
    """How long ago it was saved, for people."""
    minutes = max(0, int(time.time() - snapshot.saved)) // 60
    if minutes < 120:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h" if hours < 48 else f"{hours // 24} d"
