"""Frames in any order are those of reading them all, with the same numbers."""

import gc
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from clips import grid, make_clip

from odfs_jax.data.media.frame_io import FrameReader, open_frames
from odfs_jax.errors import BadFileError, UserError

ASSETS = Path(__file__).parents[2] / "assets"
ORDER = (7, 30, 3, 31, 32, 59, 0, 58, 12, 11)


def check(path):
    with open_frames(path) as source:
        frames = list(source)
    reader = FrameReader(path)
    assert reader.count == len(frames)
    for number in ORDER:
        ours, theirs = reader.read(number), frames[number]
        np.testing.assert_array_equal(ours.image, theirs.image)
        assert (ours.file, ours.index, ours.pts) == (theirs.file, theirs.index, theirs.pts)
    with pytest.raises(BadFileError, match="no frame 60, there are 60"):
        reader.read(60)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("a.mp4", {}),
        ("a.mkv", {"sound": 0}),
        ("turned.mp4", {"turn": 90, "sound": 0}),
        ("untagged.mp4", {"tagged": False, "sound": 0}),
        ("uneven.mp4", {"times": np.cumsum(20 + np.arange(60) % 7 * 9).tolist(), "sound": 0}),
    ],
)
def test_a_clip_in_any_order(tmp_path, name, settings):
    check(make_clip(tmp_path / name, grid(60), **settings))


def test_a_clip_without_usable_times_is_read_from_its_beginning(tmp_path, monkeypatch):
    path = make_clip(tmp_path / "a.mp4", grid(60), sound=0)
    monkeypatch.setattr("odfs_jax.data.media.frame_io._packet_times", lambda _: [None] * 60)
    check(path)


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_what_is_dropped_takes_its_decoders_along(tmp_path, monkeypatch):
    """At once: their threads do not wait for garbage to be looked for."""
    path = make_clip(tmp_path / "a.mp4", grid(60), sound=0)
    monkeypatch.setattr("odfs_jax.data.media.frame_io._packet_times", lambda _: [None] * 60)
    gc.collect()
    gc.disable()
    try:
        threads = []
        for _ in range(3):
            FrameReader(path).read(5)
            with open_frames(path):
                pass
            threads.append(len(os.listdir("/proc/self/task")))
    finally:
        gc.enable()
    assert threads[0] == threads[-1]


def test_a_frame_that_cannot_be_decoded_is_one_line_each_time():
    """In this clip packet 9 is damaged, and all later ones refer to it."""
    path = ASSETS / "video_5_116.mov"
    reader = FrameReader(path)
    for number in (9, 19, 10, 19):
        with pytest.raises(UserError, match=rf"frame {number} cannot be decoded"):
            reader.read(number)
    assert reader.read(8).index == 8


def test_a_folder_in_any_order(tmp_path, write_faceset):
    write_faceset(tmp_path / "frames", 60, size=24)
    (tmp_path / "frames" / "00005_0.png").write_bytes(b"broken")
    reader = FrameReader(tmp_path / "frames")
    with open_frames(tmp_path / "frames") as source:
        frames = {frame.index: frame for frame in source}
    assert reader.count == 60 and 5 not in frames
    np.testing.assert_array_equal(reader.read(7).image, frames[7].image)
    assert reader.read(7).file == frames[7].file
    with pytest.raises(BadFileError, match="00005_0"):
        reader.read(5)


def test_nothing_to_read(tmp_path):
    with pytest.raises(UserError, match="no pictures"):
        FrameReader(tmp_path)
