"""The sort command, small: what it renames, prints and writes, and what it says of bad input."""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from odfs_jax import cli
from odfs_jax.conversion.target_faces import find_target_faces
from odfs_jax.curation import rename
from odfs_jax.curation.sort import CELL, COLUMNS, ROWS, TRASH_COLOR, contact_sheet, sort
from odfs_jax.curation.sort_keys import SORT_KEYS
from odfs_jax.data.aligned_png import read_face, read_image_and_face, write_face
from odfs_jax.data.media.picture_folder import PictureSource
from odfs_jax.errors import UserError

ROOT = Path(cli.__file__).parents[1]
DATA = Path(__file__).parents[1] / "extraction" / "data"
COUNT = 12


@pytest.fixture
def workspace(tmp_path, write_random):
    write_random(tmp_path / "src" / "aligned", COUNT)
    return tmp_path


def scores(folder):
    """{file name: the running number that `write_random` gave the face}."""
    return {path.name: int(read_face(path).score) for path in sorted(folder.glob("*.png"))}


def test_sorts_and_puts_back(workspace, configure, caplog):
    folder = workspace / "src" / "aligned"
    before, content = scores(folder), {p.read_bytes() for p in folder.iterdir()}
    with caplog.at_level(logging.INFO):
        sort(configure(workspace, "by=face_yaw"))
    yaws = [read_face(path).pose.yaw for path in sorted(folder.glob("*.png"))]
    assert yaws == sorted(yaws, reverse=True) and len(yaws) == COUNT
    assert list(scores(folder)) == [f"{i:05d}.png" for i in range(COUNT)]
    assert {p.read_bytes() for p in folder.glob("*.png")} == content
    assert "12 faces by face_yaw in" in caplog.text and "undo=true takes it back" in caplog.text
    sort(configure(workspace, "undo=true"))
    assert scores(folder) == before


def test_keep_moves_the_rest_beside_and_undo_brings_it_back(workspace, configure, caplog):
    folder = workspace / "src" / "aligned"
    before = scores(folder)
    with caplog.at_level(logging.INFO):
        sort(configure(workspace, "by=blur", "keep=5"))
    assert "5 faces by blur" in caplog.text and "7 moved to aligned_trash" in caplog.text
    rest = scores(workspace / "src" / "aligned_trash")
    assert len(scores(folder)) == 5 and {before[name] for name in rest} == set(rest.values())
    sort(configure(workspace, "by=blur", "keep=5", "undo=true"))
    assert scores(folder) == before and not scores(workspace / "src" / "aligned_trash")


def test_dry_run_only_prints(workspace, configure, capsys, caplog):
    folder = workspace / "src" / "aligned"
    before = scores(folder)
    with caplog.at_level(logging.INFO):
        sort(configure(workspace, "by=face_pitch", "keep=4", "dry_run=true"))
    said = caplog.messages[-1]
    printed = capsys.readouterr().out
    assert scores(folder) == before and len(list(folder.iterdir())) == COUNT
    sort(configure(workspace, "by=face_pitch", "keep=4"))
    after = {number: name for name, number in scores(folder).items()}
    trash = workspace / "src" / "aligned_trash"
    lines = dict(line.split(" -> ") for line in printed.splitlines())
    assert lines == {name: after.get(n, str(trash / name)) for name, n in before.items()}
    renamed = sum(name != lines[name] for name in lines if str(trash) not in lines[name])
    assert said == (
        f"{folder}: {renamed} of {COUNT} faces by face_pitch would get other names, {COUNT - 4} "
        "would go to aligned_trash; nothing is changed"
    )
    with caplog.at_level(logging.INFO):
        sort(configure(workspace, "undo=true", "dry_run=true"))
    assert caplog.messages[-1] == f"{folder}: {COUNT} faces would have their earlier names again"
    printed = capsys.readouterr().out
    assert {b: a for a, b in lines.items()} == dict(p.split(" -> ") for p in printed.splitlines())
    assert len(scores(folder)) == 4


def test_what_is_no_face_is_left_alone_named_and_counted(workspace, configure, caplog):
    folder = workspace / "src" / "aligned"
    shutil.copy(folder / "00002_0.png", folder / "00005.png")
    whole = (folder / "00003_0.png").read_bytes()
    (folder / "00000.png").write_bytes(whole[:-40])
    cv2.imwrite(str(folder / "holiday.png"), np.zeros((9, 9, 3), np.uint8))
    (folder / "notes.txt").write_text("mine")
    with caplog.at_level(logging.INFO):
        sort(configure(workspace, "by=hue"))
    assert (folder / "00000.png").read_bytes() == whole[:-40]
    assert (folder / "holiday.png").exists() and (folder / "notes.txt").read_text() == "mine"
    assert "left alone: " in caplog.text and "00000.png: truncated PNG" in caplog.text
    assert "holiday.png: no face data" in caplog.text
    assert "13 faces by hue" in caplog.text and "2 files left alone" in caplog.text
    assert not (folder / f"{COUNT + 2:05d}.png").exists()  # 00001.png to 00013.png


def test_after_a_stopped_sort_the_next_run_ends_right(workspace, configure, monkeypatch, caplog):
    folder = workspace / "src" / "aligned"
    before = scores(folder)
    moved = []

    def stop(old, new):
        moved.append(new)
        if len(moved) > COUNT + 3:
            raise KeyboardInterrupt
        old.rename(new)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(rename, "_move", stop)
        sort(configure(workspace, "by=blur"))
    assert sorted(scores(folder).values()) == sorted(before.values())
    with pytest.raises(UserError, match="a sort was stopped half way; run without dry_run"):
        sort(configure(workspace, "by=blur", "dry_run=true"))
    sort(configure(workspace, "by=brightness"))
    assert "an earlier sort was stopped half way; it is undone" in caplog.text
    assert list(scores(folder)) == [f"{i:05d}.png" for i in range(COUNT)]
    sort(configure(workspace, "undo=true"))
    assert scores(folder) == before


def test_both_sides_and_a_report(workspace, configure):
    shutil.copytree(workspace / "src", workspace / "dst")
    sort(configure(workspace, "data=src_dst", "by=best", "keep=3", "report=true"))
    for side in ("src", "dst"):
        assert len(scores(workspace / side / "aligned")) == 3
        sheet = cv2.imread(str(workspace / f"{side}_by_best.png"))[..., ::-1]
        assert sheet.shape == (CELL, COUNT * CELL, 3)
        edges = [tuple(sheet[0, cell * CELL + 40]) == TRASH_COLOR for cell in range(COUNT)]
        assert edges == [False] * 3 + [True] * (COUNT - 3)
    assert not list((workspace / "src").glob("*.png"))  # pictures there would be frames


def test_a_contact_sheet_of_many_faces_is_bounded(many):
    sheet = contact_sheet(many * 3, kept=600)
    assert sheet.shape == (ROWS * CELL, COLUMNS * CELL, 3)
    for cell, index in ((0, 0), (399, 599)):
        top, left = CELL * (cell // COLUMNS), CELL * (cell % COLUMNS)
        face = cv2.resize(read_image_and_face((many * 3)[index])[0], (CELL, CELL))
        found = sheet[top : top + CELL // 2, left : left + CELL]
        assert np.abs(found.astype(int) - face[: CELL // 2]).mean() < 3


def test_identity_puts_the_frequent_person_first(tmp_path, configure, actor_faces):
    folder = tmp_path / "src" / "aligned"
    for number, name in enumerate(("ben_010", "ada_000", "ada_070", "ben_100", "ada_235")):
        write_face(folder / f"{number}_{name}.png", *actor_faces[name])
    sort(configure(tmp_path, "by=identity"))
    people = [read_face(path).source.file[:3] for path in sorted(folder.glob("*.png"))]
    assert people == ["ada"] * 3 + ["ben"] * 2


def test_conversion_finds_the_faces_of_each_frame_under_any_name(tmp_path, configure, actor_faces):
    frames, folder = tmp_path / "dst", tmp_path / "dst" / "aligned"
    for number, (name, (image, face)) in enumerate(actor_faces.items()):
        write_face(folder / f"{number:05d}_0.png", image, face)
        shutil.copy(DATA / f"{name}.jpg", frames)
    sort(configure(tmp_path, "data=dst", "by=brightness", "keep=4"))
    with PictureSource(frames) as source:
        found = find_target_faces(folder, source).by_frame
    kept = {f"{number:05d}.png" for number in range(4)}
    assert {path.name for faces in found.values() for path, _ in faces} == kept
    for file, [(path, _)] in found.items():
        np.testing.assert_array_equal(read_image_and_face(path)[0], actor_faces[Path(file).stem][0])


def test_help_lists_every_order(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sort", "--help"])
    cli.sort()
    text = capsys.readouterr().out
    listed = text.split("docs/sorting.md):")[1].split("keep=null")[0].split()
    expected = [word for name, key in SORT_KEYS.items() for word in (name, *key.help.split())]
    assert listed == expected


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["by=nose"], "by=nose: expected one of blur, motion_blur, hist"),
        (["keep=0"], "keep=0: expected 1 or more"),
        (["keep=some"], "keep"),
        (["by=blur", "bye=1"], "bye"),
        (["data=dst"], "dst/aligned: no such folder; run: python extract.py data=dst"),
        (["undo=true"], "src/aligned: nothing to undo"),
        (["undo=true", "data=dst"], "dst/aligned: nothing to undo"),
        (["data.src.aligned={tmp}/letters"], "letters: none of its 1 PNG files is an aligned face"),
    ],
)
def test_mistakes_give_one_line_and_exit_code_2(workspace, monkeypatch, capsys, overrides, message):
    (workspace / "letters").mkdir()
    (workspace / "letters" / "a.png").write_text("no picture")
    arguments = [f"workspace={workspace}", *(o.format(tmp=workspace) for o in overrides)]
    no_cache = "hardware.compilation_cache=null"
    monkeypatch.setattr(sys, "argv", ["sort", no_cache, *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.sort()
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert exit_.value.code == 2 and error.startswith("odfs-sort: ") and message in error


def test_the_real_command_and_a_reader_that_has_seen_enough(workspace):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    script = f"{sys.executable} {ROOT}/scripts/sort.py by=face_yaw dry_run=true"

    def run(command):
        bash = ["bash", "-o", "pipefail", "-c", command]
        return subprocess.run(bash, capture_output=True, text=True, env=environment, cwd=workspace)

    done = run(script)
    assert done.returncode == 2 and done.stderr.startswith("odfs-sort: workspace/src/aligned: no")
    done = run(f"{script} workspace={workspace} | true")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
