"""Small clips with known colors, times and sound, and what must come through a copy of them."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from odfs_jax.config import OutputConfig
from odfs_jax.data.media.frame_io import open_frames, open_writer
from odfs_jax.data.media.marking import Unmarked

COMMENT = "AI-edited face swap; a test"


class Commented(Unmarked):
    """The comment alone: what stands in a result besides its frames is tested elsewhere."""

    comment = COMMENT


MARKING = Commented()
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
    """uint8 RGB [count, height, width, 3]: 16x16 blocks of one color, which survive 4:2:0."""
    colors = np.random.default_rng(3).integers(20, 236, (count, height // 16, width // 16, 3))
    return colors.repeat(16, 1).repeat(16, 2).astype(np.uint8)


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
        open_frames(source_path, plates=True) as source,
        open_writer(result, source, output, MARKING) as writer,
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
