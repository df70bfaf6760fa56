"""The aligned PNG from hostile or broken programs: refused in one line that says what is wrong."""

import base64
import json
import math
import os
import pickle
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from face_files import SIZE, changed, picture, usual_face, with_data

from odfs_jax.data import aligned_png
from odfs_jax.data.media import png
from odfs_jax.data.parallel import read_files
from odfs_jax.errors import BadFileError


def coded_mask(dtype=np.uint8, shape=(4, 4)):
    return base64.b64encode(cv2.imencode(".png", np.zeros(shape, dtype))[1].tobytes()).decode()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "00000_0.png"
    aligned_png.write_face(path, picture(), usual_face())
    return path


def test_pictures_without_data(tmp_path):
    plain = tmp_path / "plain.png"
    cv2.imwrite(str(plain), picture())
    with pytest.raises(BadFileError, match="no face data in this PNG"):
        aligned_png.read_face(plain)
    text = tmp_path / "letter.png"
    text.write_text("no picture at all")
    with pytest.raises(BadFileError, match="not a PNG"):
        aligned_png.read_face(text)
    with pytest.raises(BadFileError, match="no such file"):
        aligned_png.read_face(tmp_path / "gone.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(BadFileError, match="a folder, not a file"):
        aligned_png.read_face(tmp_path / "folder.png")


def test_pipes_and_devices_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    read, bad = read_files(sorted(tmp_path.iterdir()), aligned_png.read_face, "reading")
    assert not read and all("not a regular file" in str(error) for error in bad) and len(bad) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{",
        '{"version": 1}',
        '{"version": 2}',
        "[" * 100_000,
        '{"a":' * 100_000,
        "9" * 5000,  # Python refuses to convert integers of more than 4300 digits
        '{"version": ' + "9" * 5000 + "}",
        "NaN",
        "{'version': 1}",
        pickle.dumps({"version": 1}, 0).decode("latin-1"),
        "cos\nsystem\n(S'touch /tmp/odfs-was-unpickled'\ntR.",
    ],
)
def test_hostile_text(path, text):
    with pytest.raises(BadFileError):
        aligned_png.read_face(with_data(path, text))
    assert not Path("/tmp/odfs-was-unpickled").exists()


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("version", ..., "version None"),
        ("version", "1", "version '1'"),
        ("face_type", "hole", "face_type 'hole'"),
        ("face_type", "mark_only", "is not size 24"),
        ("face_type", ["full"], "face_type"),
        ("face_type", "x" * 500_000, "face_type"),
        ("size", 10**4000, "size"),
        ("size", SIZE + 1, "is not size 25"),
        ("size", 10**30, "size"),
        ("size", True, "size"),
        ("size", 24.0, "size"),
        ("landmarks", [[0, 0]] * 67, "landmarks is a list of 67, not of 68"),
        ("landmarks", [[0, 0, 0]] * 68, "landmarks is a list of 3, not of 2"),
        ("landmarks", [[0, "1"]] * 68, "landmarks '1' is not a number"),
        ("landmarks", [[0, math.nan]] * 68, "NaN is no number"),
        ("landmarks", [[0, math.inf]] * 68, "Infinity is no number"),
        ("landmarks", [[0, 10**400]] * 68, "out of range"),
        ("landmarks", [[0, 1e10]] * 68, "out of range"),
        ("landmarks", {"0": 1}, "landmarks"),
        ("source", ..., "source None is not"),
        ("source", "a.mp4", "source 'a.mp4' is not"),
        ("source.file", "../../etc/passwd", "not a plain file name"),
        ("source.file", "/etc/passwd", "not a plain file name"),
        ("source.file", "..", "not a plain file name"),
        ("source.file", "", "not a plain file name"),
        ("source.file", 7, "source.file"),
        ("source.file", "x" * 5000, "more than 1024 characters"),
        ("source.frame", -1, "source.frame"),
        ("source.frame", 1.5, "source.frame"),
        ("source.frame", 2**80, "source.frame"),
        ("source.pts", "now", "source.pts"),
        ("source.width", 0, "source.width"),
        ("source.height", 2**40, "source.height"),
        ("source.rect", [1, 2, 3], "source.rect"),
        ("source.rect", [1, 2, 3, None], "source.rect"),
        ("source.landmarks", None, "source.landmarks"),
        ("pose", [1, 2, 3], "is not an object"),
        ("pose.yaw", ..., "pose.yaw"),
        ("pose.roll", -math.inf, "-Infinity is no number"),
        ("pose.roll", "1", "pose.roll"),
        ("detector", None, "detector"),
        ("landmarker", {}, "landmarker"),
        ("score", "high", "score"),
        ("polygons", {}, "polygons {} is not a list"),
        ("polygons", [7], "polygons 7 is not"),
        ("polygons", [{"include": 1, "points": []}], "polygons.include 1"),
        ("polygons", [{"include": True}], "polygons.points None"),
        ("polygons", [{"include": True, "points": [[1, "2"]]}], "polygons.points '2'"),
        ("polygons", [{"include": True, "points": [[1, 2, 3]]}], "polygons.points"),
        ("polygons", [{"include": True, "points": [[1, 1e6]]}], "out of range"),
        (
            "polygons",
            [{"include": True, "points": [[1, 1]] * 1001}],
            "a list of 1001, not of 1 to 1000",
        ),
        ("polygons", [{"include": True, "points": []}] * 101, "a list of 101, not of 1 to"),
        ("polygons", [], "a list of 0"),
        ("polygons", [{"include": True, "points": []}], "polygons.points is a list of 0"),
        ("mask", None, "mask None"),
        ("mask", "a!", "base64"),
        ("mask", "", "mask: not a PNG"),
        ("mask", "A" * 600_000, "mask"),
        ("mask", coded_mask()[:-20], "mask: "),
        ("mask", coded_mask(shape=(1, 1025)), "mask of 1025x1"),
        ("mask", coded_mask(shape=(4, 4, 3)), "expected 8-bit gray"),
        ("mask", coded_mask(np.uint16), "expected 8-bit gray"),
    ],
)
def test_a_wrong_field_is_named(path, where, value, message):
    with pytest.raises(BadFileError, match=message.replace(".", r"\.")) as error:
        aligned_png.read_face(changed(path, where, value))
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_pickled_bytes_in_the_chunk_of_the_2018_program_are_ignored(path):
    kept = png.chunks(path.read_bytes())
    kept.insert(1, (b"fcWp", pickle.dumps({"landmarks": [1]})))
    packed = (
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in kept
    )
    path.write_bytes(png.SIGNATURE + b"".join(packed))
    assert aligned_png.read_face(path).source.file == "a.mp4"


def test_a_picture_that_lies_about_its_size(tmp_path):
    """A header of 4 Gpx costs nothing: data are checked against it before anything is decoded."""
    content = png.with_text(cv2.imencode(".png", picture())[1].tobytes(), "odfs", "{}")
    kept = png.chunks(content)
    kept[0] = (b"IHDR", struct.pack(">IIBBBBB", 2**16, 2**16, 8, 2, 0, 0, 0))
    packed = (
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in kept
    )
    path = tmp_path / "huge.png"
    path.write_bytes(png.SIGNATURE + b"".join(packed))
    aligned_text = json.loads(aligned_png._to_json(usual_face()))
    with_data(path, json.dumps(aligned_text))
    with pytest.raises(BadFileError, match="is not size 24"):
        aligned_png.read_image_and_face(path)
