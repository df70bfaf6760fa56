"""Frames in and out, on clips made here; colour against the formulas of BT.601 and BT.709."""

import dataclasses
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from odfs_jax.config import OutputConfig
from odfs_jax.data import png
from odfs_jax.data.video import open_frames, open_writer
from odfs_jax.errors import BadFileError, UserError

COMMENT = "AI-edited face swap; a test"
OUTPUT = OutputConfig(codec="libx264", crf=0, preset="ultrafast", fps=25)
WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}  # red and blue
CODES = {"bt601": 6, "bt709": 1}
RANGES = {"tv": 1, "pc": 2}


def rgb_to_yuv(rgb: np.ndarray, matrix: str, range_: str) -> np.ndarray:
    """float YUV codes of uint8 `rgb` [..., 3]: ITU-R BT.601 and BT.709, written out."""
    red, blue = WEIGHTS[matrix]
    r, g, b = np.moveaxis(rgb / 255.0, -1, 0)
    luma = red * r + (1 - red - blue) * g + blue * b
    cb, cr = (b - luma) / (2 - 2 * blue), (r - luma) / (2 - 2 * red)
    if range_ == "pc":
        return np.stack([255 * luma, 128 + 255 * cb, 128 + 255 * cr], -1)
    return np.stack([16 + 219 * luma, 128 + 224 * cb, 128 + 224 * cr], -1)


def grid(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """uint8 RGB [count, height, width, 3]: 16x16 blocks of one colour, which survive 4:2:0."""
    colours = np.random.default_rng(3).integers(20, 236, (count, height // 16, width // 16, 3))
    return colours.repeat(16, 1).repeat(16, 2).astype(np.uint8)


def make_clip(
    path: Path,
    images: np.ndarray,
    *,
    times: list[int] | None = None,
    matrix: str = "bt709",
    range_: str = "tv",
    turn: int = 0,
    sound: int = 1,
    pixel_format: str = "yuv444p",
    tagged: bool = True,
    aspect: Fraction = Fraction(1),
) -> Path:
    """A clip with B-frames and an AAC tone, its YUV written from the formulas above."""
    options = {"movflags": "+faststart"} if path.suffix != ".mkv" else {}
    with av.open(str(path), "w", options=options) as out:
        video = out.add_stream("libx264", rate=25, options={"crf": "0", "bf": "2"})
        video.height, video.width = images.shape[1:3]
        video.pix_fmt = pixel_format
        video.codec_context.time_base = Fraction(1, 1000)
        video.codec_context.sample_aspect_ratio = aspect
        if tagged:
            video.codec_context.colorspace = CODES[matrix]
            video.codec_context.color_primaries = video.codec_context.color_trc = CODES[matrix]
            video.codec_context.color_range = RANGES[range_]
        if turn:
            video.set_display_rotation(turn)
        tones = [out.add_stream("aac", rate=48000, layout="stereo") for _ in range(sound)]
        for number, image in enumerate(images):
            frame = yuv_frame(rgb_to_yuv(image, matrix, range_), pixel_format)
            frame.pts = 40 * number if times is None else times[number]
            frame.time_base = Fraction(1, 1000)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        for number, tone in enumerate(tones):
            add_tone(out, tone, frame.pts / 1000 + 0.1, hertz=440 * (number + 1))
    return path


def yuv_frame(codes: np.ndarray, pixel_format: str) -> av.VideoFrame:
    """4:4:4 or 4:2:0 planes of 8 or 10 bits from `codes` [H, W, 3]; blocks of 2x2 must agree."""
    scale, kind = (4, np.uint16) if "10" in pixel_format else (1, np.uint8)
    planes = np.rint(codes * scale).astype(kind)
    frame = av.VideoFrame(codes.shape[1], codes.shape[0], pixel_format)
    for index, plane in enumerate(frame.planes):
        step = 2 if index and "420" in pixel_format else 1
        rows = np.zeros((plane.height, plane.line_size // planes.itemsize), kind)
        rows[:, : plane.width] = planes[::step, ::step, index]
        plane.update(rows.tobytes())
    return frame


def add_tone(
    out: av.container.OutputContainer, stream: av.AudioStream, seconds: float, hertz: float = 440
) -> None:
    wave = 0.2 * np.sin(2 * np.pi * hertz * np.arange(round(48000 * seconds)) / 48000)
    samples = np.stack([wave, wave]).astype(np.float32)
    for start in range(0, samples.shape[1], 1024):
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples[:, start : start + 1024]), "fltp", "stereo"
        )
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def copy(source_path: Path, result: Path, output: OutputConfig = OUTPUT) -> Path:
    with (
        open_frames(source_path) as source,
        open_writer(result, source, output, COMMENT) as writer,
    ):
        for frame in source:
            writer.write(frame)
    return result


def read(path: Path) -> tuple[list[int | None], np.ndarray]:
    with open_frames(path) as source:
        frames = list(source)
        assert not source.bad
    return [frame.pts for frame in frames], np.stack([frame.image for frame in frames])


def video_facts(path: Path) -> dict:
    """What must come through, read with plain PyAV."""
    with av.open(str(path)) as clip:
        stream = clip.streams.video[0]
        context = stream.codec_context
        frames = list(clip.decode(stream))
        return {
            "times": [frame.pts * stream.time_base for frame in frames],
            "durations": [frame.duration * stream.time_base for frame in frames],
            "time_base": stream.time_base,
            "aspect": stream.sample_aspect_ratio,
            "tags": (
                context.color_primaries,
                context.color_trc,
                context.colorspace,
                context.color_range,
            ),
        }


def sound_packets(path: Path, stream: int = 0) -> list[tuple[Fraction, bytes]]:
    with av.open(str(path)) as clip:
        packets = clip.demux(clip.streams.audio[stream])
        return [(p.pts * p.time_base, bytes(p)) for p in packets if p.size]


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


@pytest.mark.parametrize("matrix", ["bt709", "bt601"])
@pytest.mark.parametrize("range_", ["tv", "pc"])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p", "yuv420p10le"])
def test_colours_are_those_of_the_formula(tmp_path, matrix, range_, pixel_format):
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
        with open_writer(tmp_path / "out", source, OUTPUT, COMMENT) as writer:
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


@pytest.mark.parametrize("name", ["out.mp4", "out"])
def test_a_failed_write_leaves_the_old_result_and_nothing_else(tmp_path, name):
    source = make_clip(tmp_path / "in.mp4", grid(4))
    result = copy(source, tmp_path / name)
    before = read(result)[1]
    with (
        pytest.raises(RuntimeError, match="on purpose"),
        open_frames(source) as frames,
        open_writer(result, frames, OUTPUT, COMMENT) as writer,
    ):
        writer.write(next(iter(frames)))
        raise RuntimeError("on purpose")
    assert np.array_equal(read(result)[1], before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", name]


@pytest.mark.parametrize("name", ["mine.mp4", "mine"])
def test_files_that_are_not_ours_are_not_replaced(tmp_path, name):
    source = make_clip(tmp_path / "in.mp4", grid(2))
    mine = tmp_path / name
    if name.endswith(".mp4"):
        make_clip(mine, grid(1))
    else:
        mine.mkdir()
        (mine / "in_000000.png").write_bytes(b"precious")
    with pytest.raises(UserError, match="not an earlier result"):
        copy(source, mine)


def test_the_input_is_never_the_output(tmp_path):
    source = make_clip(tmp_path / "in.mp4", grid(2))
    with pytest.raises(UserError, match="that is the input"):
        copy(source, tmp_path / "sub" / ".." / "in.mp4")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("out.webm", {}, "cannot hold it"),
        ("out.webm", {"codec": "libvpx-vp9", "crf": 40}, r"sound \(aac\)"),
        ("out.mp4", {"codec": "nonsense"}, "no such encoder"),
        ("out.mp4", {"codec": "aac"}, "audio encoder"),
        ("out.mp4", {"preset": "warp9"}, "output.preset=warp9"),
        ("out.xyz", {}, "expected one of"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_writing(tmp_path, name, changes, message):
    source = make_clip(tmp_path / "in.mp4", grid(2))
    with pytest.raises(UserError, match=message):
        copy(source, tmp_path / name, dataclasses.replace(OUTPUT, **changes))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4"]


def test_what_is_not_a_clip_is_refused_by_name(tmp_path):
    (tmp_path / "text.mp4").write_text("just words\n" * 100)
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "none").mkdir()
    cv2.imwrite(str(tmp_path / "one.png"), grid(1)[0])
    with av.open(str(tmp_path / "sound.mp4"), "w") as out:
        add_tone(out, out.add_stream("aac", rate=48000, layout="stereo"), 0.5)
    for name, message in {
        "text.mp4": "not a video",
        "empty.mp4": "not a video",
        "none": "no pictures",
        "one.png": "single picture",
        "sound.mp4": "no video stream",
        "missing.mp4": "no such file",
    }.items():
        with pytest.raises(UserError, match=message) as error:
            open_frames(tmp_path / name)
        assert name in str(error.value)


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_truncated_clip_gives_what_is_left_and_says_so(tmp_path, share):
    images = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), np.uint8)
    source = make_clip(tmp_path / "in.mp4", images)
    content = source.read_bytes()
    source.write_bytes(content[: int(len(content) * share)])
    with open_frames(source) as frames:
        left = list(frames)
        assert 30 * share * 0.7 < len(left) < 30
        assert frames.bad
        assert all(isinstance(bad, BadFileError) and bad.path == source for bad in frames.bad)
    copy(source, tmp_path / "out.mp4")
    assert len(read(tmp_path / "out.mp4")[0]) == len(left)
    source.write_bytes(content[:200])
    with pytest.raises(UserError, match=r"in\.mp4: no"):
        open_frames(source)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_truncated_pictures_are_named_and_skipped(tmp_path, suffix):
    for name in "abc":
        cv2.imwrite(str(tmp_path / f"{name}{suffix}"), grid(1)[0])
    whole = (tmp_path / f"b{suffix}").read_bytes()
    (tmp_path / f"b{suffix}").write_bytes(whole[: len(whole) * 3 // 4])
    (tmp_path / f"a{suffix}").write_bytes(b"")
    with open_frames(tmp_path) as source:
        assert [frame.file for frame in source] == [f"c{suffix}"]
        assert [bad.path.name for bad in source.bad] == [f"a{suffix}", f"b{suffix}"]
    (tmp_path / f"c{suffix}").unlink()
    with pytest.raises(UserError, match="none of 2 pictures"):
        open_frames(tmp_path)


def test_a_source_is_iterated_once(tmp_path):
    with open_frames(make_clip(tmp_path / "in.mp4", grid(2))) as source:
        assert len(list(source)) == source.count == 2
        with pytest.raises(RuntimeError, match="iterated before"):
            next(iter(source))
