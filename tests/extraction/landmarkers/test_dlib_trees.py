"""dlib's file of 68 points: what is read of it, and what is kept for the next time."""

import logging
import os

import dlib
import numpy as np
import pytest

from odfs_jax.errors import UserError
from odfs_jax.extraction.landmarkers import dlib68, dlib_trees
from odfs_jax.extraction.landmarkers.dlib_trees import dlib68_path, parse, read_trees
from odfs_jax.faces.crop import crop_face_fast
from tests.extraction.landmarkers.test_dlib68 import TRUTH, detection


@pytest.fixture(scope="module")
def trees():
    return read_trees()


def test_the_arrays_of_dlibs_file(trees):
    mean, stages = trees
    assert mean.shape == (68, 2) and np.ptp(mean, axis=0).max() < 1.3
    shapes = {name: array.shape for name, array in stages._asdict().items()}
    assert shapes == {
        "anchors": (15, 500),
        "offsets": (15, 500, 2),
        "first": (15, 15 * 500),
        "second": (15, 15 * 500),
        "thresholds": (15, 15, 500),
        "leaves": (15, 16 * 500, 136),
    }
    assert stages.anchors.max() == 67 and stages.first.max() == 499


def test_points_are_dlibs_but_for_rounding(frames, dlib_landmarker):
    """dlib computes in double precision what we do in single: a tree may decide otherwise."""
    reference, off = dlib.shape_predictor(str(dlib68_path())), []
    for name in sorted(TRUTH):
        (crop,) = dlib68.upright_crops(0, frames[name], detection(name))
        colors = crop_face_fast(frames[name], crop.crop_from_frame, dlib68.CROP)
        gray = (colors.sum(axis=-1, dtype=np.uint16) // 3).astype(np.uint8)  # as dlib makes it
        squares = np.rint(crop.squares)
        found = np.asarray(dlib68.all_starts(dlib_landmarker.trees, gray[None], squares[None]))[0]
        for (left, top, side), points in zip(squares.astype(int).tolist(), found, strict=True):
            box = dlib.rectangle(left, top, left + side, top + side)
            parts = [(p.x, p.y) for p in reference(colors, box).parts()]
            off.append(np.abs(points - np.array(parts)).max())
    assert np.median(off) < 0.51 and np.max(off) < 2.5


def test_what_was_read_is_kept(trees, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(dlib_trees, "parse", lambda content: calls.append(1) or trees)
    monkeypatch.setattr(dlib_trees, "verified", lambda path, digest: b"")
    for _ in range(2):
        mean, stages = read_trees(tmp_path)
        np.testing.assert_array_equal(mean, trees[0])
        np.testing.assert_array_equal(stages.leaves, trees[1].leaves)
    assert len(calls) == 1


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut short"], ids=len)
def test_a_broken_copy_is_read_anew(trees, tmp_path, monkeypatch, caplog, content):
    monkeypatch.setattr(dlib_trees, "parse", lambda content: trees)
    monkeypatch.setattr(dlib_trees, "verified", lambda path, digest: b"")
    read_trees(tmp_path)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        mean, _ = read_trees(tmp_path)
    np.testing.assert_array_equal(mean, trees[0])
    assert str(kept) in caplog.text
    caplog.clear()
    read_trees(tmp_path)
    assert not caplog.text  # it was mended


def test_a_folder_that_cannot_be_written_is_said(trees, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(dlib_trees, "parse", lambda content: trees)
    monkeypatch.setattr(dlib_trees, "verified", lambda path, digest: b"")
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        mean, _ = read_trees(tmp_path / "file")
    assert mean is trees[0] and "has to be read each time" in caplog.text


def test_another_file_is_refused(tmp_path, monkeypatch):
    other = tmp_path / "other.dat"
    other.write_bytes(os.urandom(100))
    monkeypatch.setattr(dlib_trees, "dlib68_path", lambda: other)
    with pytest.raises(UserError, match="SHA-256"):
        read_trees(tmp_path / "cache")


@pytest.mark.parametrize("content", [b"\x01\x02rest", b"\x01\x01\x01\x84\x81\x01"], ids=len)
def test_other_versions_and_cut_files_are_errors(content):
    with pytest.raises((ValueError, IndexError)):
        parse(content)
