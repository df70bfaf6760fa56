"""Folders of many pictures, of all formats, some of them broken: the others are extracted."""

import logging
import random

import cv2
import numpy as np
import pytest

from odfs_jax.data.aligned_png import read_face
from odfs_jax.errors import UserError
from odfs_jax.extraction import extract as extraction

SIDE = 96  # pixels
FORMATS = (".jpg", ".png", ".bmp", ".tiff", ".webp")
LOSSLESS = (".png", ".bmp", ".tiff")
ACTORS = ("ada_000.jpg", "ada_070.jpg", "ben_010.jpg")


@pytest.fixture
def write_folder(frames):
    """write(folder, count): pictures of the actors, each shifted otherwise, formats in turn."""

    def write(folder, count):
        folder.mkdir(parents=True)
        rng, paths = np.random.default_rng(0), []
        for number in range(count):
            frame = frames[ACTORS[number % len(ACTORS)]]
            shift = np.float32([[0.25, 0, rng.uniform(-2, 2)], [0, 0.25, rng.uniform(-2, 2)]])
            small = cv2.resize(frame, (2 * SIDE, 2 * SIDE), interpolation=cv2.INTER_AREA)
            shift[:, :2] *= 2
            picture = cv2.warpAffine(
                small, shift, (SIDE, SIDE), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE
            )
            paths.append(folder / f"p{number:03d}{FORMATS[number % len(FORMATS)]}")
            assert cv2.imwrite(str(paths[-1]), picture[..., ::-1])
        return paths

    return write


@pytest.fixture
def extract(configure, detector, landmarker, monkeypatch):
    monkeypatch.setattr(extraction, "build_detector", lambda _: detector)
    monkeypatch.setattr(extraction, "build_landmarker", lambda _: landmarker)

    def go(workspace, *overrides):
        data = "hardware.compilation_cache=null", "data=src", f"workspace={workspace}", "size=64"
        extraction.extract(configure(*data, *overrides))

    return go


def halved(content):
    return content[: len(content) // 2]


def without_start(content):
    return bytes(64) + content[64:]


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x10]) + content[middle + 1 :]


def damage(path, number):
    """Breaks the file in one of six ways that no reader could make good."""
    ways = [halved, without_start, lambda _: b"", lambda _: b"no picture", halved]
    way = flipped if path.suffix == ".png" and number % 2 else ways[number % len(ways)]
    path.write_bytes(way(path.read_bytes()))


@pytest.mark.parametrize(
    ("count", "broken"), [(100, 1), pytest.param(500, 5, marks=pytest.mark.slow)]
)
def test_one_percent_broken_the_rest_is_extracted(
    tmp_path, write_folder, extract, caplog, count, broken
):
    paths = write_folder(tmp_path / "src", count)
    chosen = random.Random(1).sample(range(count), broken)
    for number, index in enumerate(chosen):
        damage(paths[index], number)
    with caplog.at_level(logging.INFO):
        extract(tmp_path)
    bad, good = {paths[i].name for i in chosen}, {path.name for path in paths}
    found = [read_face(p).source.file for p in (tmp_path / "src" / "aligned").glob("*.png")]
    assert sorted(found) == sorted(good - bad)
    named = [r.getMessage() for r in caplog.records if r.getMessage().startswith("skipped: ")]
    assert len(named) == broken and all(any(name in line for line in named) for name in bad)
    assert f"{count - broken} frames, {count - broken} faces, 0 frames without" in caplog.text
    assert f"{broken} problems reading" in caplog.text


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("way", [halved, without_start, lambda _: b""])
def test_a_broken_file_of_any_format_is_refused_by_name(tmp_path, write_folder, suffix, way):
    path = write_folder(tmp_path / "src", len(FORMATS))[FORMATS.index(suffix)]
    path.write_bytes(way(path.read_bytes()))
    with pytest.raises(UserError, match=rf"none of 1 pictures can be read; .*{path.name}: "):
        alone(path)


def alone(path):
    for other in path.parent.iterdir():
        if other != path:
            other.unlink()
    return extraction.open_frames(path.parent)


def test_every_format_gives_the_same_face(tmp_path, frames, extract):
    folder = tmp_path / "src"
    folder.mkdir()
    picture = cv2.resize(frames["ben_010.jpg"], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    for suffix in FORMATS:
        quality = [cv2.IMWRITE_JPEG_QUALITY, 98] if suffix == ".jpg" else []
        assert cv2.imwrite(str(folder / f"p{suffix}"), picture[..., ::-1], quality)
    extract(tmp_path)
    faces = [read_face(path) for path in sorted((folder / "aligned").glob("*.png"))]
    points = {face.source.file: face.source.landmarks for face in faces}
    assert points.keys() == {f"p{suffix}" for suffix in FORMATS}
    for suffix in FORMATS:
        exact = points["p.png"]
        assert np.abs(points[f"p{suffix}"] - exact).max() < (1e-6 if suffix in LOSSLESS else 3)
