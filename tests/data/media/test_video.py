"""Frames in and out: times, sound, tags, and color against the formulas of BT.601 and BT.709."""

import dataclasses
import threading
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from clips import (
    CODES,
    COMMENT,
    MARKING,
    OUTPUT,
    RANGES,
    copy,
    grid,
    make_clip,
    read,
    rgb_to_yuv,
    sound_packets,
    video_facts,
)

from odfs_jax.data.media import png
from odfs_jax.data.media.frame_io import open_frames, open_writer
from odfs_jax.data.media.video_reader import CONVERSIONS


@pytest.mark.parametrize("matrix", ["bt709", "bt601"])
@pytest.mark.parametrize("range_", ["tv", "pc"])
def test_clip_comes_out_as_it_went_in(tmp_path, matrix, range_):
    source = make_clip(
        tmp_path / "in.mp4", grid(8), matrix=matrix, range_=range_, aspect=Fraction(4, 3)
    )
    result = copy(source, tmp_path / "out.mp4")
    assert video_facts(result) == video_facts(source)
    assert video_facts(result)["tags"] == (*[CODES[matrix]] * 3, RANGES[range_])
    assert sound_packets(result) == sound_packets(source)
    assert len(sound_packets(result)) > 10
    with av.open(str(result)) as clip:
        assert clip.metadata["comment"] == COMMENT


def test_no_thread_decodes_a_clip_that_was_left(tmp_path):
    before = threading.active_count()
    with open_frames(make_clip(tmp_path / "in.mp4", grid(24))) as source:
        frames = iter(source)
        next(frames), next(frames)
        assert before < threading.active_count() <= before + 1 + CONVERSIONS
    assert threading.active_count() == before


@pytest.mark.parametrize("matrix", ["bt709", "bt601"])
@pytest.mark.parametrize("range_", ["tv", "pc"])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p", "yuv420p10le"])
def test_colors_are_those_of_the_formula(tmp_path, matrix, range_, pixel_format):
    images = grid(6)
    source = make_clip(
        tmp_path / "in.mp4", images, matrix=matrix, range_=range_, pixel_format=pixel_format
    )
    _, seen = read(source)
    inner = np.s_[:, 7::16, 7::16]  # away from the blocks' borders, where chroma is interpolated
    assert np.abs(seen[inner].astype(int) - images[inner]).max() <= 3
    assert np.abs(seen[inner].astype(int) - images[inner]).mean() < 1
    _, again = read(copy(source, tmp_path / "out.mp4"))
    assert np.abs(again[inner].astype(int) - images[inner]).max() <= 4
    with av.open(str(tmp_path / "out.mp4")) as clip:
        frame = next(clip.decode(video=0))
        assert frame.format.name.replace("yuvj", "yuv") == pixel_format
        luma = np.frombuffer(frame.planes[0], np.uint16 if "10" in pixel_format else np.uint8)
    luma = luma.reshape(48, -1)[7::16, 7:64:16] / (4 if "10" in pixel_format else 1)
    assert np.abs(luma - rgb_to_yuv(images[0, 7::16, 7::16], matrix, range_)[..., 0]).max() <= 1.6


@pytest.mark.parametrize(("height", "matrix"), [(480, "bt601"), (720, "bt709")])
def test_untagged_clips_go_by_their_height(tmp_path, height, matrix):
    images = grid(1, height, 64)
    source = make_clip(tmp_path / "in.mp4", images, matrix=matrix, tagged=False, sound=0)
    _, seen = read(source)
    assert np.abs(seen.astype(int) - images).max() <= 3
    result = copy(source, tmp_path / "out.mp4")
    assert video_facts(result)["tags"] == video_facts(source)["tags"] == (2, 2, 2, 0)
    assert np.abs(read(result)[1].astype(int) - images).max() <= 4


def test_variable_frame_rate_and_a_late_start_are_kept(tmp_path):
    times = [80, 120, 133, 250, 251, 400, 440, 900]
    source = make_clip(tmp_path / "in.mp4", grid(8), times=times)
    result = copy(source, tmp_path / "out.mp4")
    assert video_facts(result) == video_facts(source)
    assert video_facts(result)["times"] == [Fraction(t, 1000) for t in times]
    assert sound_packets(result) == sound_packets(source)


@pytest.mark.parametrize("start", [0, 80])
def test_reordered_frames_keep_their_times(tmp_path, start):
    times = [start + t for t in (0, 40, 53, 170, 171, 320, 360, 820)]
    source = make_clip(tmp_path / "in.mp4", grid(8), times=times)
    result = copy(
        source, tmp_path / "out.mp4", dataclasses.replace(OUTPUT, preset="medium", crf=23)
    )
    with av.open(str(result)) as clip:
        assert any(packet.pts != packet.dts for packet in clip.demux(video=0))  # B-frames
    assert video_facts(result)["times"] == [Fraction(t, 1000) for t in times]
    assert sound_packets(result) == sound_packets(source)


def test_every_sound_stream_is_copied(tmp_path):
    source = make_clip(tmp_path / "in.mp4", grid(8), sound=2)
    result = copy(source, tmp_path / "out.mp4")
    first, second = (sound_packets(result, stream) for stream in (0, 1))
    assert first == sound_packets(source, 0)
    assert second == sound_packets(source, 1) != first


@pytest.mark.parametrize("suffix", [".mkv", ".mov"])
def test_other_containers_keep_times_and_sound(tmp_path, suffix):
    source = make_clip(tmp_path / f"in{suffix}", grid(8))
    result = copy(source, tmp_path / f"out{suffix}")
    assert video_facts(result)["times"] == video_facts(source)["times"]
    assert sound_packets(result) == sound_packets(source)


@pytest.mark.parametrize("turn", [90, 180, -90])
def test_rotated_clip_is_read_and_written_upright(tmp_path, turn):
    images = grid(3)
    source = make_clip(tmp_path / "in.mp4", images, turn=turn, aspect=Fraction(4, 3))
    upright = np.rot90(images, turn // 90, axes=(1, 2))  # counter-clockwise, as PyAV counts
    times, seen = read(source)
    assert seen.shape == upright.shape
    assert np.abs(seen.astype(int) - upright).max() <= 3
    result = copy(source, tmp_path / "out.mp4")
    assert np.abs(read(result)[1].astype(int) - upright).max() <= 4
    assert read(result)[0] == times
    facts = video_facts(result)
    assert facts["aspect"] == (Fraction(4, 3) if turn == 180 else Fraction(3, 4))
    assert sound_packets(result) == sound_packets(source)


def test_odd_sizes_keep_every_row(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    image = grid(1)[0, :37, :51]
    cv2.imwrite(str(folder / "a.png"), image[..., ::-1])
    result = copy(folder, tmp_path / "out.mp4")
    _, seen = read(result)
    assert seen.shape == (1, 37, 51, 3)
    assert np.abs(seen[0].astype(int) - image).max() <= 3


def test_pictures_become_a_clip_and_a_folder(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    images = grid(4)
    for name, image in zip(("a.png", "b.bmp", "d.png", "e.png"), images, strict=True):
        cv2.imwrite(str(folder / name), image[..., ::-1])
    (folder / "c.png").write_text("not a picture")
    (folder / "notes.txt").write_text("left alone")
    with open_frames(folder) as source:
        assert (source.width, source.height, source.count) == (64, 48, 5)
        with open_writer(tmp_path / "out", source, OUTPUT, MARKING) as writer:
            frames = list(source)
            for frame in frames:
                writer.write(frame)
        assert [bad.path.name for bad in source.bad] == ["c.png"]
    assert [(f.file, f.index) for f in frames] == [
        ("a.png", 0),
        ("b.bmp", 1),
        ("d.png", 3),
        ("e.png", 4),
    ]
    assert np.array_equal([f.image for f in frames], images)
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["a.png", "b.png", "d.png", "e.png"]
    content = (tmp_path / "out" / "a.png").read_bytes()
    assert png.read_text(content, "Comment") == COMMENT
    assert np.array_equal(read(tmp_path / "out")[1], images)
    film = dataclasses.replace(OUTPUT, fps=23.976)
    copy(tmp_path / "out", tmp_path / "film.mp4", film)
    step = Fraction(1001, 24000)
    assert video_facts(tmp_path / "film.mp4")["times"] == [i * step for i in range(4)]


def test_clip_becomes_numbered_pictures(tmp_path):
    source = make_clip(tmp_path / "in.mp4", grid(2))
    copy(source, tmp_path / "out")
    copy(source, tmp_path / "out")  # our own older result is replaced
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["in_000000.png", "in_000001.png"]
    assert np.array_equal(read(tmp_path / "out")[1], read(source)[1])
