"""The command itself, on a clip with sound and a small random network."""

import errno
import logging
import os
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from workspaces import (
    COUNT,
    HEIGHT,
    WIDTH,
    WITHOUT_FACE,
    convert_workspace,
    read_clip,
    write_aligned,
)

from odfs_jax.config import MergeConfig
from odfs_jax.conversion.convert import find_anchor
from odfs_jax.data.aligned_png import read_face, rewrite_data
from odfs_jax.data.media.marking import COMMENT
from odfs_jax.errors import UserError
from odfs_jax.faces.affine import transform
from odfs_jax.saved_model import load_model


def test_a_clip_is_swapped_with_its_times_and_its_sound(workspace, caplog):
    caplog.set_level(logging.INFO)
    convert_workspace(workspace)
    before, sound, _ = read_clip(workspace / "dst.mp4")
    after, sound_after, comment = read_clip(workspace / "result.mp4")
    assert [f.pts * f.time_base for f in after] == [f.pts * f.time_base for f in before]
    assert sound_after == sound and len(sound) > 5
    assert comment == COMMENT and "compositeWithTrainedAlgorithmicMedia" in comment
    pairs = zip(before, after, strict=True)
    change = [np.abs(a.to_ndarray().astype(int) - b.to_ndarray()).mean() for a, b in pairs]
    assert 2 * change[WITHOUT_FACE] < min(np.delete(change, WITHOUT_FACE))
    assert "6 frames, 5 faces swapped, 1 frames without a face" in caplog.messages[-1]
    assert "0 files skipped" in caplog.messages[-1] and "result.mp4" in caplog.messages[-1]


def test_only_faces_that_still_have_a_png_are_swapped(workspace):
    """Written without loss, the other frames are the source's bit for bit."""
    (workspace / "dst/aligned/00004_0.png").unlink()
    convert_workspace(workspace, f"output.path={workspace}/pictures", "merge=hist_match")
    convert_workspace(workspace, f"output.path={workspace}/again", "merge=hist_match")
    files = sorted((workspace / "pictures").glob("*.png"))
    assert len(files) == COUNT
    # The reader's own pictures of the clip: what a frame without a face has to be.
    for path in (workspace / "dst/aligned").iterdir():
        path.rename(path.with_suffix(".away"))
    points = np.random.default_rng(0).random((68, 2)) * 9 - 500  # outside the frame: skipped
    write_aligned(workspace / "dst/aligned/out.png", points, 0, 0)  # a clip needs one file
    convert_workspace(workspace, f"output.path={workspace}/plain")
    for index, file in enumerate(files):
        swapped, plain = (cv2.imread(str(p)) for p in (file, workspace / "plain" / file.name))
        assert (swapped == plain).all() == (index in (WITHOUT_FACE, 4))
        assert file.read_bytes() == (workspace / "again" / file.name).read_bytes()


def test_bfloat16_gives_the_same_faces_but_for_their_last_digits(workspace):
    for precision in ("float32", "bfloat16"):
        convert_workspace(
            workspace, f"output.path={workspace}/{precision}", f"precision={precision}"
        )
    apart = []
    for file in sorted((workspace / "float32").glob("*.png")):
        pair = (cv2.imread(str(workspace / p / file.name)) for p in ("float32", "bfloat16"))
        apart.append(cv2.absdiff(*pair))
    assert 0 < np.max(apart) <= 3 and np.mean(apart) < 0.3


def test_a_folder_of_pictures_gives_a_folder(workspace, face_points, smooth_picture, caplog):
    caplog.set_level(logging.INFO)
    (workspace / "dst.mp4").unlink()
    for path in (workspace / "dst/aligned").iterdir():
        path.unlink()
    for name in ("a", "b", "c"):
        cv2.imwrite(str(workspace / f"dst/{name}.png"), smooth_picture(HEIGHT, WIDTH))
    (workspace / "dst/broken.png").write_bytes(b"no picture")
    face = {"file": "b.png", "width": WIDTH, "height": HEIGHT}
    write_aligned(workspace / "dst/aligned/b_0.png", face_points((60, 50), 30), 7, None, **face)
    convert_workspace(workspace)
    written = sorted(p.name for p in (workspace / "result").iterdir())
    assert written == ["a.png", "b.png", "c.png", "provenance.json", "provenance.json.c2pa"]
    changed = [
        (
            cv2.imread(str(workspace / f"dst/{n}.png"))
            != cv2.imread(str(workspace / f"result/{n}.png"))
        )
        for n in "abc"
    ]
    assert [c.any() for c in changed] == [False, True, False]
    assert "1 files skipped" in caplog.messages[-1]
    assert "broken.png" in caplog.text


def test_bad_aligned_files_are_named_skipped_and_counted(workspace, caplog):
    caplog.set_level(logging.INFO)
    aligned_png = workspace / "dst" / "aligned"
    good = (aligned_png / "00000_0.png").read_bytes()
    (aligned_png / "cut.png").write_bytes(good[: len(good) // 2])
    (aligned_png / "text.png").write_text("hello")
    plain = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    (aligned_png / "plain.png").write_bytes(plain)
    (aligned_png / "hostile.png").write_bytes(hostile(plain))
    convert_workspace(workspace)
    for name in ("cut", "text", "plain", "hostile"):
        assert sum(f"{name}.png" in message for message in caplog.messages) == 1
    assert "5 faces swapped" in caplog.messages[-1] and "4 files skipped" in caplog.messages[-1]


def test_points_of_another_landmarker_than_the_model_learned_from_are_warned_of(workspace, caplog):
    caplog.set_level(logging.WARNING)
    files = sorted((workspace / "dst" / "aligned").iterdir())
    rewrite_data(files[0], replace(read_face(files[0]), landmarker="manual"))
    convert_workspace(workspace)
    assert not caplog.messages
    for path in files:
        rewrite_data(path, replace(read_face(path), landmarker="face_mesh"))
    convert_workspace(workspace)
    (warned,) = caplog.messages
    assert "the model's by dlib68, dst's by face_mesh" in warned


def hostile(picture: bytes) -> bytes:
    """A PNG whose face data is nested a hundred thousand times."""
    from odfs_jax.data import aligned_png
    from odfs_jax.data.media import png

    return png.with_text(picture, aligned_png.KEYWORD, "[" * 100_000)


def test_what_is_missing_or_ambiguous_is_said(workspace, trained):
    with pytest.raises(UserError, match=r"name=other: no such model in .* there is: tiny"):
        convert_workspace(workspace, "name=other")
    with pytest.raises(UserError, match=r"run: python convert.py data=dst"):
        convert_workspace(workspace, "data=src")
    with pytest.raises(UserError, match=r"batch_size=0: expected at least 1"):
        convert_workspace(workspace, "batch_size=0")
    with pytest.raises(UserError, match=r"precision=half: expected one of float32, bfloat16"):
        convert_workspace(workspace, "precision=half")
    (workspace / "models" / "second").symlink_to(trained)
    with pytest.raises(UserError, match=r"several models .* name=: second, tiny"):
        convert_workspace(workspace)
    for name in ("second", "tiny"):
        (workspace / "models" / name).unlink()
    with pytest.raises(UserError, match=r"no trained model here; run: python train.py"):
        convert_workspace(workspace)
    assert not (workspace / "result.mp4").exists()


def test_a_file_that_is_no_result_is_not_replaced(workspace):
    (workspace / "result.mp4").write_bytes((workspace / "dst.mp4").read_bytes())
    with pytest.raises(UserError, match="not an earlier result"):
        convert_workspace(workspace)
    assert (workspace / "result.mp4").read_bytes() == (workspace / "dst.mp4").read_bytes()


def test_a_full_disk_leaves_the_earlier_result(workspace, monkeypatch):
    convert_workspace(workspace)
    earlier = (workspace / "result.mp4").read_bytes()

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        convert_workspace(workspace, "output.crf=40")
    assert (workspace / "result.mp4").read_bytes() == earlier
    assert sorted(p.name for p in workspace.iterdir()) == ["dst", "dst.mp4", "models", "result.mp4"]


def test_the_command_says_one_line_and_ends_with_2(tmp_path):
    (tmp_path / "dst.mp4").write_bytes(b"")
    code = "from odfs_jax.cli import convert; convert()"
    for overrides in (
        ["data=dst"],
        ["data=dst", "merge.erode=much"],
        ["data=dst", "merge.eroed=1"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, f"workspace={tmp_path}", *overrides],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert done.stderr.startswith("odfs-convert: ")


def test_a_smaller_face_keeps_its_anchor_in_place(workspace, identity_swapper):
    """The middle of dst's eyes stays with anchor=eyes, the middle of the square with face."""
    swapper, eyes = identity_swapper(64), load_model(workspace / "models" / "tiny").src_eyes
    dst_eyes = 0.9 * eyes + [0.04, 0.01]
    for anchor, middle in (("eyes", 64 * eyes.mean(0)), ("face", np.full(2, 31.5))):
        whole, smaller = (
            find_anchor(MergeConfig(anchor=anchor, scale=scale), eyes, lambda: dst_eyes, swapper)
            for scale in (0, -20)
        )
        whole = np.eye(2, 3) if whole is None else whole
        np.testing.assert_allclose(transform(smaller, middle), transform(whole, middle), atol=1e-9)
        np.testing.assert_allclose(smaller[:, :2], 0.8 * whole[:, :2])
