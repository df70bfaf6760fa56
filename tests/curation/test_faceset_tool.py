"""The faceset command: summary, verify, pack, unpack, and what it says of bad input."""

import dataclasses
import os
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import cv2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from odfs_jax import cli
from odfs_jax.config import compose
from odfs_jax.curation.faceset import (
    EDGE,
    MARGIN,
    faceset,
    measure_faces,
    pack,
    pose_chart,
    summarize,
    unpack,
)
from odfs_jax.data.aligned_png import Pose, read_face, write_face
from odfs_jax.errors import UserError

ASSETS = Path(__file__).parents[1] / "assets"
ROOT = Path(cli.__file__).parents[1]


@pytest.fixture
def folder(tmp_path, write_faceset):
    folder = tmp_path / "src" / "aligned"
    write_faceset(folder, 6)
    return folder


@pytest.fixture
def run_faceset(tmp_path):
    """Runs the command on the workspace."""

    def go(*overrides):
        settings_ = [f"workspace={tmp_path}", "people=false", *overrides]
        faceset(compose("faceset", settings_))

    return go


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def test_summary(run_faceset, folder, tmp_path, capsys, caplog):
    damage(folder / "00003_0.png")
    run_faceset()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(folder) and lines[1] == "faces        5, 1 files that are not faces"
    assert lines[2] == "kinds        5 half 64x64" and lines[3].endswith("5 clip.mp4")
    assert lines[4] == "yaw          0 / 0 / 0 degrees"
    assert lines[-1] == f"poses        {tmp_path / 'src_poses.png'}"
    assert cv2.imread(str(tmp_path / "src_poses.png")) is not None
    assert "00003_0.png: damaged PNG" in caplog.text


def test_people_in_the_summary(tmp_path, actor_faces):
    for name, (image, face) in actor_faces.items():
        write_face(tmp_path / f"{name}.png", image, face)
    faces, bad = measure_faces(sorted(tmp_path.iterdir()), people=True)
    assert "people       2 with 3, 2 faces; 0 faces like no other" in summarize(faces, len(bad))


def test_the_picture_of_poses(folder):
    (face, *_), _ = measure_faces(sorted(folder.iterdir()), people=False)

    def posed(yaw, pitch):
        return dataclasses.replace(
            face, data=dataclasses.replace(face.data, pose=Pose(yaw, pitch, 0))
        )

    faces = [posed(35.0, 15.0), posed(500.0, -500.0), *[posed(-0.5, -0.5)] * 8]
    picture = pose_chart(faces)
    rows, columns, _ = picture.shape
    shown = {}
    for row in range(12):
        for column in range(18):
            x, y = MARGIN + 40 * column + 35, EDGE + 40 * row + 35
            if tuple(picture[y, x]) != (255, 255, 255):
                shown[-90 + 10 * column, 60 - 10 * (row + 1)] = int(picture[y, x, 0])
    assert shown.keys() == {(30, 10), (80, -60), (-10, -10)}
    assert shown[-10, -10] == 60 < shown[30, 10] < 255 and rows < columns


def test_verify_names_every_bad_file(run_faceset, folder, capsys):
    run_faceset("action=verify")
    assert capsys.readouterr().out == f"{folder}: 6 faces, all whole\n"
    damage(folder / "00001_0.png")
    (folder / "00004_0.png").write_text("letter")
    with pytest.raises(UserError, match="2 of 6 PNG files are not whole faces"):
        run_faceset("action=verify")
    out = capsys.readouterr().out
    assert "bad: " in out and "00001_0.png: damaged PNG" in out and "00004_0.png: not a PNG" in out


def test_the_real_command_ends_with_2_when_a_file_is_bad(folder, tmp_path):
    damage(folder / "00001_0.png")
    command = [sys.executable, f"{ROOT}/scripts/faceset.py", "action=verify"]
    done = subprocess.run(
        [*command, f"workspace={tmp_path}"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2 and "00001_0.png: damaged PNG" in done.stdout
    assert done.stderr == f"odfs-faceset: {folder}: 1 of 6 PNG files are not whole faces\n"


def test_packed_and_unpacked_is_the_same(run_faceset, folder, tmp_path, capsys, caplog):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / ".odfs_sort.json").write_text("{}")
    (folder / "letter.png").write_text("no face")
    run_faceset("action=pack")
    run_faceset("action=unpack", f"data.src.aligned={tmp_path}/copy")
    assert {p.name: p.read_bytes() for p in (tmp_path / "copy").iterdir()} == before
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith(f"{tmp_path}/src_faces.zip: 6 faces, ")
    assert out[1] == f"{tmp_path}/copy: 6 faces, 0 members of {tmp_path}/src_faces.zip left out"
    assert "not packed: " in caplog.text and "letter.png: not a PNG" in caplog.text
    again = tmp_path / "again.zip"
    run_faceset("action=pack", f"data.src.aligned={tmp_path}/copy", f"file={again}")
    assert again.read_bytes() == (tmp_path / "src_faces.zip").read_bytes()  # no dates in it


def test_nothing_is_overwritten(run_faceset, folder, tmp_path):
    run_faceset("action=pack")
    packed = (tmp_path / "src_faces.zip").read_bytes()
    with pytest.raises(UserError, match=r"src_faces.zip: exists already"):
        run_faceset("action=pack")
    with pytest.raises(UserError, match="aligned: not empty"):
        run_faceset("action=unpack")
    assert (tmp_path / "src_faces.zip").read_bytes() == packed and len(list(folder.iterdir())) == 6


def test_members_that_share_bytes_are_refused(folder, tmp_path):
    """Local headers whose extra fields reach to one face: each member would be that face again."""
    face, count, size = (folder / "00000_0.png").read_bytes(), 50, 30 + len("00.png")
    heads, directory = b"", b""
    for number in range(count):
        extra = (count - 1 - number) * size
        fields = (20, 0, 0, 0, 0x21, zlib.crc32(face), len(face), len(face), 6)
        name = f"{number:02d}.png".encode()
        local = struct.pack("<4s5H3L2H", b"PK\3\4", *fields, extra) + name
        directory += (
            struct.pack("<4sH5H3L5H2L", b"PK\1\2", 20, *fields, *5 * [0], len(heads)) + name
        )
        heads += local
    end = struct.pack(
        "<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(heads + face), 0
    )
    (tmp_path / "x.zip").write_bytes(heads + face + directory + end)
    with zipfile.ZipFile(tmp_path / "x.zip") as members:
        assert len(members.namelist()) == count
    with pytest.raises(UserError, match=r"not a zip that can be read \(overlapping members"):
        unpack(tmp_path / "x.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def member(path, name, content, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(zipfile.ZipInfo(name), content, method)


@pytest.mark.parametrize(
    "name",
    [
        "../up.png", "/tmp/odfs_root.png", "sub/in.png", "sub\\in.png", "C:\\in.png", "..", "",
        ".hidden.png", "run.sh", "x.png/", "..png", "a" * 300 + ".png", "\x1b[2J/.png",
    ],
)  # fmt: skip
def test_hostile_names_are_left_out(folder, tmp_path, name):
    face = (folder / "00000_0.png").read_bytes()
    path = tmp_path / "x.zip"
    member(path, "good.png", face)
    member(path, name, face)
    before = set(tmp_path.rglob("*"))
    unpacked, bad = unpack(path, tmp_path / "out")
    assert unpacked == 1 and len(bad) == 1 and "not the plain name of a PNG" in str(bad[0])
    new = set(tmp_path.rglob("*")) - before
    assert new == {tmp_path / "out", tmp_path / "out" / "good.png"}
    assert not Path("/tmp/odfs_root.png").exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_are_no_faces_are_left_out(folder, tmp_path):
    face = (folder / "00000_0.png").read_bytes()
    path = tmp_path / "x.zip"
    member(path, "good.png", face)
    member(path, "letter.png", b"hello")
    member(path, "good.png", (folder / "00001_0.png").read_bytes())
    member(path, "swollen.png", b"\0" * 10_000_000, zipfile.ZIP_DEFLATED)
    unpacked, bad = unpack(path, tmp_path / "out")
    assert unpacked == 1 and (tmp_path / "out" / "good.png").read_bytes() == face
    reasons = " ".join(map(str, bad))
    for reason in ("letter.png': not a PNG", "good.png': a second file", "swollen.png': not a st"):
        assert reason in reasons


def test_an_archive_that_is_none(run_faceset, folder, tmp_path):
    shutil.rmtree(folder)
    (tmp_path / "letter.zip").write_text("hello")
    member(tmp_path / "empty.zip", "a.png", b"")
    os.mkfifo(tmp_path / "pipe.zip")
    for file, message in (
        ("letter.zip", "not a zip that can be read"),
        ("empty.zip", "none of its 1 members is an aligned face"),
        ("gone.zip", "gone.zip: no such file"),
        (ASSETS / "long_name.zip", "none of its 1 members is an aligned face"),
        ("pipe.zip", "pipe.zip: not a regular file"),
    ):
        with pytest.raises(UserError, match=message):
            run_faceset("action=unpack", f"file={tmp_path / file}")
    assert not folder.exists() and not list(folder.parent.iterdir())


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_damaged_archive_never_crashes_and_gives_only_whole_faces(tmp_path, write_faceset, data):
    source, path, out = tmp_path / "in", tmp_path / "x.zip", tmp_path / "out"
    if not source.exists():
        write_faceset(source, 3, size=16)
        pack(sorted(source.iterdir()), path)
        (tmp_path / "whole").write_bytes(path.read_bytes())
    content = bytearray((tmp_path / "whole").read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    head = max(0, len(content) - 400)  # the directory at the end is where a zip is fragile
    for _ in range(data.draw(st.integers(0, 4)) if content else 0):
        low = data.draw(st.sampled_from((0, head)))
        content[data.draw(st.integers(low, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    shutil.rmtree(out, ignore_errors=True)
    try:
        unpacked, _ = unpack(path, out)
    except UserError as error:
        assert "x.zip" in str(error) and "\n" not in str(error) and not out.exists()
    else:
        assert unpacked == len([read_face(file) for file in out.iterdir()])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["action=eat"], "action=eat: expected one of summary, verify, pack, unpack"),
        (["data=dst"], "dst/aligned: no such folder"),
        (["data=src_dst", "action=pack", "file=x.zip"], "file=x.zip: one file for one side"),
        (["acton=pack"], "acton"),
    ],
)
def test_mistakes_give_one_line_and_exit_code_2(
    folder, tmp_path, monkeypatch, capsys, overrides, message
):
    monkeypatch.setattr(sys, "argv", ["faceset", f"workspace={tmp_path}", *overrides])
    with pytest.raises(SystemExit) as exit_:
        cli.faceset()
    error = capsys.readouterr().err.strip()
    assert exit_.value.code == 2 and message in error and len(error.splitlines()) == 1


def test_a_folder_of_no_faces(run_faceset, folder):
    for path in folder.iterdir():
        path.write_text("letter")
    for action in ("summary", "pack"):
        with pytest.raises(UserError, match="none of its 6 PNG files is a"):
            run_faceset(f"action={action}")
    assert not list(folder.parent.parent.glob("*.zip"))


def test_help(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["faceset", "--help"])
    cli.faceset()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    first = {line[0] for line in lines if line}
    assert {"summary", "verify", "pack", "unpack", "workspace=workspace", "people=true"} <= first
