"""Finding the user's clips, frames and faces."""

import os

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


@pytest.mark.parametrize("name", ["src.mp4", "src.webm", "src.MP4", "src.ts", "src.MOV", "src.gif"])
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
    for name in ("b.PNG", "a.jpg", ".hidden.png", "note.txt", "c.avif", "d.JFIF", "e.heic"):
        touch(tmp_path / name)
    (tmp_path / "c.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    names = ["a.jpg", "b.PNG", "c.avif", "d.JFIF"]
    assert [p.name for p in workspace.image_files(tmp_path)] == names
    assert workspace.image_files(tmp_path / "none") == []


def test_numbers_in_names_count_by_their_value(tmp_path):
    numbered = [f"{number}.png" for number in range(1, 13)]
    in_shots = ["a2b9.png", "a2b10.png", "a10b1.png", "a٣.png", "b.png", "b01.png", "b1.png"]
    for name in (*reversed(numbered), *in_shots):
        touch(tmp_path / name)
    assert [p.name for p in workspace.image_files(tmp_path)] == numbered + in_shots


def test_what_is_passed_over_is_counted_once(tmp_path, caplog):
    for name in ("1.png", "2.PNG", "3.jpg", "4.heic", "left_out.txt", ".journal", "5.jpg", "6.jpg"):
        touch(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "none")
    for _ in range(2):
        assert [p.name for p in workspace.aligned_files(tmp_path, "dst")] == ["1.png", "2.PNG"]
    said = [f"{tmp_path}: 6 files passed over, no files like .png (3.jpg, 4.heic, 5.jpg, ...)"]
    assert caplog.messages == said


def test_aligned_files(tmp_path):
    with pytest.raises(UserError, match=r"no such folder; run: python extract.py data=dst"):
        workspace.aligned_files(tmp_path / "none", "dst")
    with pytest.raises(UserError, match="no aligned PNG in it"):
        workspace.aligned_files(tmp_path, "dst")
    touch(tmp_path / "2.png"), touch(tmp_path / "1.png"), touch(tmp_path / ".3.png")
    assert [p.name for p in workspace.aligned_files(tmp_path, "dst")] == ["1.png", "2.png"]
