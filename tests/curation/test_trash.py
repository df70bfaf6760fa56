"""Faces to the trash and back: nothing is lost, nothing replaced."""

import pytest

from odfs_jax.curation.rename import move_to_trash, restore_from_trash, trash_folder
from odfs_jax.errors import BadFileError


@pytest.fixture
def faces(tmp_path):
    folder = tmp_path / "aligned"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.png").write_text(name)
    return folder


def content(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_there_and_back(faces):
    assert move_to_trash([]) == []
    moved = move_to_trash([faces / "a.png", faces / "c.png", faces / "gone.png"])
    assert moved == [(faces / n, trash_folder(faces) / n) for n in ("a.png", "c.png")]
    assert content(faces) == {"b.png": "b"} and content(trash_folder(faces)) == {
        "a.png": "a",
        "c.png": "c",
    }
    restore_from_trash([now for _, now in moved], faces)
    assert content(faces) == {f"{n}.png": n for n in "abc"} and not content(trash_folder(faces))


def test_a_name_that_is_taken_gets_another(faces):
    move_to_trash([faces / "a.png"])
    (faces / "a.png").write_text("new")
    ((_, now),) = move_to_trash([faces / "a.png"])
    assert now.name == "a-1.png"
    assert content(trash_folder(faces)) == {"a.png": "a", "a-1.png": "new"}
    (faces / "a.png").write_text("newer")
    ((_, back),) = restore_from_trash([trash_folder(faces) / "a.png"], faces)
    assert back.name == "a-1.png" and content(faces)["a.png"] == "newer"


def test_only_the_trash_gives_back(faces, tmp_path):
    with pytest.raises(BadFileError, match="not in"):
        restore_from_trash([tmp_path / "other.png"], faces)
