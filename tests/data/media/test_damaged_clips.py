"""Clips with spoiled packets, and clips whose end is not there: all that is left comes out, and the
rest is said."""

from pathlib import Path

import av
import numpy as np
import pytest

from odfs_jax.data.media import video_reader
from odfs_jax.data.media.frame_io import open_frames

COUNT = 40


def plain_clip(path: Path, codec: str, options: dict | None = None, sound: bool = True) -> Path:
    """COUNT frames of noise in a pattern, every 10th one a key picture, with a tone."""
    pixel_format = {"prores": "yuv422p10le", "gif": "rgb8"}.get(codec, "yuv420p")
    noise = np.random.default_rng(0).integers(0, 60, (COUNT, 48, 64, 3), np.uint8)
    with av.open(str(path), "w", options=options or {}) as out:
        video = out.add_stream(codec, rate=25)
        video.height, video.width, video.pix_fmt = 48, 64, pixel_format
        video.codec_context.gop_size = 10
        tone = out.add_stream("aac", rate=48000, layout="mono") if sound else None
        for number, image in enumerate(noise):
            image[:, number : number + 8] += 150
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format=pixel_format)
            out.mux(video.encode(frame))
            if tone:
                wave = np.sin(np.arange(1920) / 20).astype(np.float32)[None]
                samples = av.AudioFrame.from_ndarray(wave, "fltp", "mono")
                samples.sample_rate, samples.pts = 48000, 1920 * number
                out.mux(tone.encode(samples))
        out.mux(video.encode(None))
        if tone:
            out.mux(tone.encode(None))
    return path


def spoil(path: Path, number: int) -> float:
    """Replaces packet `number` of the picture by noise; the time that it has, in seconds."""
    with av.open(str(path)) as clip:
        packets = [packet for packet in clip.demux(video=0) if packet.size]
        packet = packets[number]
        start, size, time = packet.pos, packet.size, float(packet.pts * packet.time_base)
    content = bytearray(path.read_bytes())
    noise = np.random.default_rng(0).integers(0, 256, size - 5, np.uint8).tobytes()
    content[start + 5 : start + size] = noise
    path.write_bytes(content)
    return time


def read(path: Path) -> tuple[list[int], list[str]]:
    with open_frames(path) as source:
        return [frame.pts for frame in source], [bad.reason for bad in source.bad]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("number", [15, -6, -2, -1])
def test_one_spoiled_packet_costs_one_frame(tmp_path, monkeypatch, suffix, number):
    """However many threads decode: libav's hold back the last frames until the clip's end."""
    path = plain_clip(tmp_path / f"a.{suffix}", "libx264", sound=False)
    whole, bad = read(path)
    assert len(whole) == COUNT and not bad
    time = spoil(path, number)
    for threads in (1, 2, 16):
        monkeypatch.setattr(video_reader, "THREADS", threads)
        times, bad = read(path)
        assert set(times) < set(whole) and len(times) == COUNT - 1
        (reason,) = bad
        assert f"packets that cannot be decoded, the first at {time:.2f} s (1)" in reason


@pytest.mark.parametrize(
    ("name", "codec"), [("a.webm", "libvpx-vp9"), ("b.webm", "libvpx"), ("a.mp4", "libx265")]
)
def test_what_is_left_does_not_depend_on_the_threads(tmp_path, monkeypatch, name, codec):
    """Of codecs whose later pictures are lost with the spoiled one."""
    path = plain_clip(tmp_path / name, codec, sound=False)
    spoil(path, -5)
    found = []
    for threads in (1, 16):
        monkeypatch.setattr(video_reader, "THREADS", threads)
        found.append(read(path))
    assert found[0] == found[1] and len(found[0][0]) > COUNT - 8
    assert "packets that cannot be decoded" in found[0][1][0]


def test_a_clip_without_times_loses_one_frame_too(tmp_path, monkeypatch):
    path = plain_clip(tmp_path / "a.avi", "libx264", sound=False)
    spoil(path, -6)
    for threads in (1, 16):
        monkeypatch.setattr(video_reader, "THREADS", threads)
        times, bad = read(path)
        assert len(times) == COUNT - 1 and any("cannot be decoded" in reason for reason in bad)


CUT = (  # container, codec, options, sound, what is said of 60 % of the file
    ("mkv", "libx264", {}, True, "it ends at 0.96 s of 1.60 s"),
    ("webm", "libvpx-vp9", {}, False, "it ends at "),
    ("flv", "flv", {}, True, "it ends at "),
    ("ts", "libx264", {}, True, "the file ends inside a packet"),
    ("m2ts", "libx264", {"mpegts_m2ts_mode": "1"}, False, "the file ends inside a packet"),
    ("avi", "mpeg4", {}, False, " bytes are there"),
    ("wmv", "wmv2", {}, False, " bytes are there"),
    ("mpg", "mpeg2video", {}, False, "the file ends inside a packet"),
    ("mxf", "mpeg2video", {}, False, "it ends at "),
    ("mp4", "libx264", {"movflags": "faststart"}, True, "packets missing at the end"),
    ("mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}, True, " bytes are there"),
    ("mov", "prores", {"movflags": "faststart"}, False, "packets missing at the end"),
    ("ogv", "libvpx", {}, False, "the last page is not there"),
    ("gif", "gif", {}, False, "the trailer is not there"),
)


@pytest.mark.parametrize(("suffix", "codec", "options", "sound", "words"), CUT)
def test_a_clip_that_is_cut_says_so(tmp_path, suffix, codec, options, sound, words):
    path = plain_clip(tmp_path / f"a.{suffix}", codec, options, sound)
    assert read(path) == (read(path)[0], []) and len(read(path)[0]) == COUNT
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10 | 1])
    times, bad = read(path)
    assert 0 < len(times) < COUNT and any(words in reason for reason in bad)


def test_packets_that_a_container_loses_leave_a_gap(tmp_path):
    path = plain_clip(tmp_path / "a.ts", "libx264")
    time = spoil(path, 15)  # 5 bytes of it, and the heads of its transport packets
    times, bad = read(path)
    assert len(times) < COUNT and any(f"at {time - 0.04:.2f} s" in reason for reason in bad)
