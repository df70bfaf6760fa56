"""Finding the user's clips, frames and faces."""

import pytest

from odfs_jax.config import SideConfig
from odfs_jax.data import workspace
from odfs_jax.errors import UserError


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def find(folder, given=None):
    return workspace.find_input(str(folder), "src", SideConfig(input=given, aligned="unused"))


@pytest.mark.parametrize("name", ["src.mp4", "src.mkv", "src.webm"])
def test_a_clip(tmp_path, name):
    touch(tmp_path / "dst.mp4")
    clip = touch(tmp_path / name)
    assert find(tmp_path) == clip


def test_frames_in_a_folder(tmp_path):
    touch(tmp_path / "src" / "0001.png")
    touch(tmp_path / "src" / "aligned" / "0_0.png")
    assert find(tmp_path) == tmp_path / "src"


def test_a_folder_of_faces_only_is_no_input(tmp_path):
    touch(tmp_path / "src" / "aligned" / "0_0.png")
    with pytest.raises(UserError, match=r"src\.mp4: no such clip"):
        find(tmp_path)


def test_the_configured_path_wins(tmp_path):
    touch(tmp_path / "src.mp4")
    other = touch(tmp_path / "elsewhere" / "x.avi")
    assert find(tmp_path, str(other)) == other
    with pytest.raises(UserError, match=r"data\.src\.input=.*gone: no such file"):
        find(tmp_path, str(tmp_path / "gone"))


def test_two_candidates_are_named(tmp_path):
    touch(tmp_path / "src.mp4")
    touch(tmp_path / "src" / "0001.png")
    with pytest.raises(
        UserError, match=r"src\.mp4 and .*src exist; say which with data\.src\.input="
    ):
        find(tmp_path)


def test_missing_workspace(tmp_path):
    with pytest.raises(UserError, match=r"no such folder; make it and put src\.mp4"):
        find(tmp_path / "none")


def test_image_files_by_name_without_others(tmp_path):
    for name in ("b.PNG", "a.jpg", ".hidden.png", "note.txt"):
        touch(tmp_path / name)
    (tmp_path / "c.png").mkdir()
    assert [p.name for p in workspace.image_files(tmp_path)] == ["a.jpg", "b.PNG"]
    assert workspace.image_files(tmp_path / "none") == []


def test_aligned_files(tmp_path):
    with pytest.raises(UserError, match=r"no such folder; run: python extract.py data=dst"):
        workspace.aligned_files(tmp_path / "none", "dst")
    with pytest.raises(UserError, match="no aligned PNG in it"):
        workspace.aligned_files(tmp_path, "dst")
    touch(tmp_path / "2.png"), touch(tmp_path / "1.png"), touch(tmp_path / ".3.png")
    assert [p.name for p in workspace.aligned_files(tmp_path, "dst")] == ["1.png", "2.png"]
