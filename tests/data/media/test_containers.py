"""Clips as they come: other containers, tags and starts, playlists in disguise, what goes along."""

import dataclasses
import os
import re
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import OUTPUT, add_tone, copy, grid, make_clip, read, sound_packets

import odfs_jax
from odfs_jax.data.media import fields, yuv
from odfs_jax.data.media.container import MAX_PIXELS
from odfs_jax.data.media.frame_io import FrameReader, open_frames, open_writer
from odfs_jax.data.media.marking import Unmarked
from odfs_jax.data.media.video_reader import clip_comment
from odfs_jax.errors import BadFileError, UserError

ASSETS = Path(__file__).parents[2] / "assets"
DEFAULT = int(av.stream.Disposition.default)


def remuxed(source: Path, result: Path, seconds: Fraction = Fraction(0), **tags: str) -> Path:
    """All streams of `source`, `seconds` later."""
    with av.open(str(source)) as old, av.open(str(result), "w") as new:
        streams = {}
        for stream in old.streams:
            streams[stream.index] = new.add_stream_from_template(stream)
            streams[stream.index].disposition = int(stream.disposition)
        new.metadata.update(tags)
        for packet in old.demux():
            if packet.dts is not None:
                shift = round(seconds / packet.time_base)
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    return result


def starts(path: Path) -> list[Fraction]:
    with av.open(str(path)) as clip:
        return [stream.start_time * stream.time_base for stream in clip.streams]


def test_tags_in_other_encodings_do_not_matter(tmp_path):
    clip = ASSETS / "latin1_title.mp4"
    times, images = read(clip)
    assert len(times) == 5 and FrameReader(clip).read(4).image.shape == images[4].shape
    assert clip_comment(clip) == ""
    assert read(copy(clip, tmp_path / "out.mp4"))[0] == times
    for name in ("in.mkv", "in.avi"):  # other containers, the same title
        titled = remuxed(make_clip(tmp_path / "a.mp4", grid(3)), tmp_path / name, title="Cafe noir")
        titled.write_bytes(titled.read_bytes().replace(b"Cafe noir", b"Caf\xe9 noir"))
        assert len(read(copy(titled, tmp_path / f"out_{name}"))[0]) == 3


@pytest.mark.parametrize(("suffix", "seconds"), [(".ts", 36000), (".mkv", 5), (".mov", 3)])
def test_a_result_begins_at_0_and_its_streams_keep_their_distance(tmp_path, suffix, seconds):
    plain = make_clip(tmp_path / "plain.mp4", grid(8), pixel_format="yuv420p")
    source = remuxed(plain, tmp_path / f"in{suffix}", Fraction(seconds) + Fraction(37, 100))
    result = copy(source, tmp_path / "out.mkv")
    before, after = starts(source), starts(result)
    assert before[0] > seconds and after[0] < Fraction(1, 10) and min(after) >= 0
    assert abs((after[1] - after[0]) - (before[1] - before[0])) <= Fraction(1, 1000)  # MKV's step
    for (_, was), (_, now) in zip(sound_packets(source), sound_packets(result), strict=True):
        assert was.endswith(now)  # in MPEG-TS each packet has a header of its own
    exact = copy(source, tmp_path / "out.mov")
    assert starts(exact)[1] - starts(exact)[0] == pytest.approx(before[1] - before[0], abs=1e-3)
    with av.open(str(result)) as clip:
        assert clip.duration < 2e6  # microseconds
    mask = copy(source, tmp_path / "masked.mkv", dataclasses.replace(OUTPUT, mask=True))
    assert starts(mask.with_name("masked_mask.mkv"))[0] == after[0]


def test_a_late_picture_stays_late(tmp_path):
    source = make_clip(tmp_path / "in.mp4", grid(4), times=[500, 540, 580, 620])
    assert starts(copy(source, tmp_path / "out.mp4"))[0] == Fraction(1, 2)


def rich_clip(path: Path) -> Path:
    """Two sound tracks of which the second is the default, subtitles, chapters, a time code."""
    subtitles = path.with_suffix(".srt")
    subtitles.write_text("1\n00:00:00,040 --> 00:00:00,080\nhello\n")
    with av.open(str(subtitles)) as text, av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        tones = [out.add_stream("aac", rate=48000, layout="stereo") for _ in range(2)]
        tones[1].disposition, tones[0].disposition = DEFAULT, 0
        tones[1].metadata["language"] = "ger"
        written = out.add_stream_from_template(text.streams[0]) if path.suffix == ".mkv" else None
        if path.suffix == ".mov":
            video.metadata["timecode"] = "01:00:00:00"
        out.set_chapters(
            [{"id": 1, "start": 0, "end": 80, "time_base": Fraction(1, 1000), "metadata": {}}]
        )
        for image in grid(4):
            out.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(video.encode(None))
        for tone in tones:
            add_tone(out, tone, 0.2)
        for packet in text.demux() if written else ():
            if packet.size:
                packet.stream = written
                out.mux(packet)
    return path


def test_what_goes_along_with_the_picture(tmp_path, caplog):
    source = rich_clip(tmp_path / "in.mkv")
    with av.open(str(copy(source, tmp_path / "out.mkv"))) as clip:
        assert [s.type for s in clip.streams] == ["video", "audio", "audio", "subtitle"]
        assert [int(s.disposition) for s in clip.streams.audio] == [0, DEFAULT]
        assert clip.streams.audio[1].metadata["language"] == "ger" and len(clip.chapters()) == 1
    assert not caplog.text
    copy(source, tmp_path / "out.mp4")
    assert caplog.messages == [
        f"{source}: not in the result: 1 srt subtitles, which .mp4 does not hold"
    ]
    caplog.clear()
    with av.open(str(copy(rich_clip(tmp_path / "in.mov"), tmp_path / "out.mov"))) as clip:
        assert clip.streams.video[0].metadata["timecode"] == "01:00:00:00"
        assert [int(s.disposition) for s in clip.streams.audio] == [0, DEFAULT]
    assert not caplog.text


def test_sound_that_few_players_play_is_said(tmp_path, caplog):
    with av.open(str(tmp_path / "in.mov"), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        tone = out.add_stream("pcm_s24le", rate=48000, layout="stereo")
        for image in grid(2):
            out.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4000), np.int32), "s32", "stereo")
        frame.sample_rate = 48000
        out.mux(tone.encode(frame))
        out.mux(tone.encode(None))
    copy(tmp_path / "in.mov", tmp_path / "out.mov")
    assert not caplog.text
    copy(tmp_path / "in.mov", tmp_path / "out.mp4")
    assert "few players play this sound (pcm_s24le) from a .mp4 file" in caplog.text


def test_rgb_becomes_420_unless_asked(tmp_path, caplog):
    with av.open(str(tmp_path / "in.gif"), "w") as out:
        video = out.add_stream("gif", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "rgb8"
        for image in grid(3):
            out.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(video.encode(None))
    for asked, layout in ((None, "yuv420p"), ("yuv444p", "yuv444p")):
        output = dataclasses.replace(OUTPUT, pixel_format=asked)
        with av.open(str(copy(tmp_path / "in.gif", tmp_path / f"{layout}.mp4", output))) as clip:
            assert clip.streams.video[0].pix_fmt == layout
    assert not caplog.text
    odd = make_clip(tmp_path / "odd.mp4", grid(2)[:, :47, :63])
    copy(odd, tmp_path / "odd_out.mp4")
    assert "63x47 pixels are written as yuv444p" in caplog.text


def test_interlaced_clips_are_said_once(tmp_path, caplog):
    options = {"x264-params": "tff=1:interlaced=1"}
    with av.open(str(tmp_path / "in.mp4"), "w") as out:
        video = out.add_stream("libx264", rate=25, options=options)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        for image in grid(4, 64):
            out.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(video.encode(None))
    assert len(read(tmp_path / "in.mp4")[0]) == 4
    assert [message.split("; ")[0] for message in caplog.messages] == [
        f"{tmp_path}/in.mp4: interlaced (from frame 0 on)"
    ]


def interlaced_clip(path, order, height=64):
    with av.open(str(path), "w") as out:
        video = out.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = 64, height, "yuv420p"
        fields.set_order(video.codec_context, order)
        mark = fields.FieldMarker(order)
        for number, image in enumerate(grid(4, 64)[:, :height]):
            picture = mark(yuv.from_rgb(image, "yuv420p", yuv.ColorTags()))
            picture.pts, picture.time_base = number, Fraction(1, 25)
            out.mux(video.encode(picture))
        out.mux(video.encode(None))
    return path


def orders(path):
    return [fields.field_order(picture) for picture in decoded(path)]


def decoded(path):
    with av.open(str(path)) as clip:
        return list(clip.decode(video=0))


@pytest.mark.parametrize("order", ["tff", "bff"])
@pytest.mark.parametrize(
    ("codec", "crf", "suffix"), [("x264", 0, "mp4"), ("prores", None, "mov"), ("ffv1", None, "mkv")]
)
def test_fields_are_kept_in_their_order(order, codec, crf, suffix, tmp_path, caplog):
    clip = interlaced_clip(tmp_path / "in.mkv", order)
    result = tmp_path / f"out.{suffix}"
    with open_frames(clip, plates=True) as source:
        output = dataclasses.replace(OUTPUT, codec=codec, crf=crf, preset=None)
        with open_writer(result, source, output, Unmarked()) as writer:
            for frame in source:
                image = frame.image.copy()
                image[24:40] = 255 - image[24:40]
                writer.write(dataclasses.replace(frame, image=image))
    assert orders(clip) == orders(result) == [order] * 4
    assert [m.partition("interlaced")[1] for m in caplog.messages] == ["interlaced"]
    if codec != "prores":  # which has more chroma
        for pictures in zip(decoded(clip), decoded(result), strict=True):
            for before, after in zip(*map(yuv.samples, pictures), strict=True):
                rows = np.arange(len(before)) * 64 // len(before)
                is_kept = (before == after).all((1, 2))
                assert is_kept[(rows < 24) | (rows >= 40)].all() and not is_kept[rows == 24].all()


@pytest.mark.parametrize(("codec", "height"), [("x265", 64), ("x264", 62)])
def test_fields_that_cannot_be_kept_are_said(codec, height, tmp_path, caplog):
    clip = interlaced_clip(tmp_path / "in.mkv", "tff", height)
    output = dataclasses.replace(OUTPUT, codec=codec)
    assert orders(copy(clip, tmp_path / "out.mp4", output)) == [None] * 4
    assert sum("progressive, unlike its clip" in m for m in caplog.messages) == 1


def test_playlists_and_scripts_in_disguise_read_nothing(tmp_path):
    make_clip(tmp_path / "secret.mp4", grid(2))
    lines = {
        "concat": "ffconcat version 1.0\nfile secret.mp4\n",
        "playlist": "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n",
        "session": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 1 RTP/AVP 96\n",
        "dash": '<?xml version="1.0"?><MPD><Period><AdaptationSet/></Period></MPD>\n',
    }
    for name, text in lines.items():
        for suffix in (".mp4", ".m3u8", ".ts"):
            path = tmp_path / f"{name}{suffix}"
            path.write_text(text)
            for read_it in (open_frames, FrameReader):
                with pytest.raises(UserError, match="not a video that can be read"):
                    read_it(path)
            assert clip_comment(path) == ""


def test_names_are_no_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("concat:a.mp4", "http:x.mp4", "data:,x.mp4", "pipe:0.mp4", "%d.mp4", "a?b#c.mp4"):
        make_clip(tmp_path / "plain.mp4", grid(2)).rename(tmp_path / name)
        assert len(read(Path(name))[0]) == 2
        assert FrameReader(Path(name)).count == 2


def test_pipes_devices_and_giant_frames_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")
    for name in ("pipe.mp4", "zero.mp4"):
        for read_it in (open_frames, FrameReader):
            with pytest.raises(BadFileError, match="not a regular file"):
                read_it(tmp_path / name)
    side = 12000
    assert side**2 > MAX_PIXELS
    # A header of giant size over a small picture: refused before anything is allocated.
    picture = bytearray(cv2.imencode(".jpg", np.zeros((64, 64), np.uint8))[1].tobytes())
    place = picture.index(b"\xff\xc0") + 5
    picture[place : place + 4] = side.to_bytes(2, "big") * 2
    with av.open(str(tmp_path / "giant.avi"), "w") as out:
        video = out.add_stream("mjpeg", rate=25)
        video.width, video.height, video.pix_fmt = side, side, "yuvj420p"
        packet = av.Packet(bytes(picture))
        packet.stream, packet.pts, packet.dts, packet.is_keyframe = video, 0, 0, True
        out.mux(packet)
    with pytest.raises(UserError, match="no frame of this video can be decoded"):
        open_frames(tmp_path / "giant.avi")


def test_libav_opens_files_in_one_place_only():
    package = Path(odfs_jax.__file__).parent
    for path in package.rglob("*.py"):
        opened = re.findall(r"av\.open\((.*)", path.read_text())
        allowed = path.name == "container.py" or all(', "w"' in call for call in opened)
        assert allowed, path


def test_two_sizes_and_two_pictures_of_a_name_are_refused_at_the_start(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f"{number}.png"), grid(1, 48, 64)[0])
    cv2.imwrite(str(folder / "9.png"), grid(1, 48, 80)[0])
    with pytest.raises(UserError, match=r"9\.png: 80x48 pixels among pictures of 64x48"):
        copy(folder, tmp_path / "out.mp4")
    copy(folder, tmp_path / "pictures")
    (folder / "9.png").rename(folder / "2.jpg")
    with pytest.raises(UserError, match=r"2\.png: beside 2\.jpg a second picture would be"):
        copy(folder, tmp_path / "others")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "pictures"]


def test_color_profiles_of_pictures_are_kept(tmp_path):
    from PIL import Image, ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    (tmp_path / "in").mkdir()
    Image.fromarray(grid(1)[0]).save(tmp_path / "in" / "a.jpg", icc_profile=profile)
    for kind, suffix in (("png", ".png"), ("tiff", ".tif")):
        output = dataclasses.replace(OUTPUT, pictures=kind)
        result = copy(tmp_path / "in", tmp_path / kind, output)
        with Image.open(result / f"a{suffix}") as image:
            assert image.info["icc_profile"] == profile


def test_damaged_clips_end_in_one_error_or_in_fewer_frames(tmp_path):
    random = np.random.default_rng(0)
    for suffix in (".mp4", ".mkv", ".ts"):
        source = make_clip(tmp_path / f"in{suffix}", grid(6), pixel_format="yuv420p")
        content = source.read_bytes()
        for kind in range(12):
            damaged = bytearray(content)
            end = 1500 if kind % 2 else len(content)
            for place in random.integers(0, end, 12):
                damaged[place] = random.integers(0, 256)
            source.write_bytes(damaged[: len(damaged) * (3 + kind % 3) // 5 if kind > 7 else None])
            try:
                with open_frames(source, plates=True) as frames:
                    assert len(list(frames)) <= 200
                reader = FrameReader(source)
                for number in (0, reader.count - 1, reader.count // 2):
                    reader.read(number)
            except UserError as error:
                assert str(error).isprintable()
