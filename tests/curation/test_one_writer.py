"""Whatever renames, adds or removes faces holds the folder's lock; else it says who has it."""

import os
from pathlib import Path

import numpy as np
import pytest

from odfs_jax.config import compose
from odfs_jax.curation import rename
from odfs_jax.curation.faceset import faceset, unpack
from odfs_jax.curation.sort import sort
from odfs_jax.data import lock
from odfs_jax.data.lock import LOCK, locked
from odfs_jax.data.media.frames import Frame
from odfs_jax.errors import UserError
from odfs_jax.extraction.writing import accept_faces
from odfs_jax.faces.types import FaceType


@pytest.fixture
def folder(tmp_path, write_random) -> Path:
    write_random(tmp_path / "src" / "aligned", 6)
    return tmp_path / "src" / "aligned"


def command(folder: Path, name: str, *more: str):
    return compose(name, [f"workspace={folder.parents[1]}", "data=src", *more])


def accept(folder: Path) -> None:
    frame = Frame("a.mp4", 50, 50, np.zeros((64, 64, 3), np.uint8))
    accept_faces(folder, frame, [], FaceType.FULL, 64)


WRITERS = {
    "sort": lambda folder: sort(command(folder, "sort", "by=blur")),
    "undo": lambda folder: sort(command(folder, "sort", "undo=true")),
    "trash": lambda folder: rename.move_to_trash(sorted(folder.glob("*.png"))[:2]),
    "restore": lambda folder: rename.restore_from_trash(
        [rename.trash_folder(folder) / "a.png"], folder
    ),
    "recover": rename.recover,
    "by_hand": accept,
    "pack": lambda folder: faceset(command(folder, "faceset", "action=pack")),
    "unpack": lambda folder: unpack(folder / "a.zip", folder),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_in_use_is_left_alone(folder, monkeypatch, held_elsewhere, name):
    monkeypatch.setattr(lock, "POLL", 0.01)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with held_elsewhere(locked(folder, "extracting faces")):
        with pytest.raises(UserError, match=r"aligned: in use \(extracting faces, process \d+ on "):
            WRITERS[name](folder)
        found = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != LOCK}
        assert found == before and not (folder.parents[1] / "src_faces.zip").exists()


def test_nothing_of_the_lock_is_left(folder):
    WRITERS["sort"](folder)
    WRITERS["undo"](folder)
    WRITERS["by_hand"](folder)
    assert not (folder / LOCK).exists()


@pytest.mark.parametrize("name", ["sort", "undo", "trash", "by_hand"])
def test_a_folder_that_cannot_be_written_is_named(folder, monkeypatch, name):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for anybody but root
    with pytest.raises(UserError, match=f"^{folder}: nothing can be written there"):
        WRITERS[name](folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
