"""Writing a clip with the times, tags and sound of another; which encoders there are."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.codec.context import Flags
from av.video.frame import PictureType

from odfs_jax.config import OutputConfig
from odfs_jax.data import atomic
from odfs_jax.data.media import fields, parts, picture, xmp, yuv
from odfs_jax.data.media.container import open_clip, packets
from odfs_jax.data.media.frames import ClipFormat, Frame, FrameSource, FrameWriter
from odfs_jax.data.media.marking import SIDECAR, Marking
from odfs_jax.data.media.parts import Part
from odfs_jax.data.workspace import image_files
from odfs_jax.errors import UserError, printable
from odfs_jax.frame_ranges import Shard

log = logging.getLogger(__name__)

QUICKTIME = (".mp4", ".mov", ".m4v")
X26X = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower")
X26X += ("veryslow", "placebo")
PRORES = ("proxy", "lt", "standard", "hq", "4444", "4444xq")
SUBSAMPLED = PRORES[:4]  # the profiles that are 4:2:2
CHAPTERS = "SubtitleHandler"  # what libav calls the track of chapters in QuickTime


@dataclass(frozen=True)
class EncoderSpec:
    """The options of an encoder of libav. `crf` is (best, worst); both may be unknown: None, ()."""

    codec: str
    crf: tuple[int, int] | None = None
    default_crf: int | None = None
    presets: tuple[str, ...] = ()
    default_preset: str | None = None
    preset_option: str = "preset"
    fixed: dict[str, str] = field(default_factory=dict)
    quicktime_tag: str | None = None  # for QuickTime, instead of libav's own


ENCODERS = {
    "x264": EncoderSpec("libx264", (0, 51), 16, X26X, "medium"),
    "x265": EncoderSpec(
        *("libx265", (0, 51), 18, X26X, "medium"),
        fixed={"x265-params": "log-level=error"},
        quicktime_tag="hvc1",
    ),
    # Version 3 in slices with checksums: several threads, and damage is noticed.
    "ffv1": EncoderSpec("ffv1", fixed={"level": "3", "slicecrc": "1"}),
    "prores": EncoderSpec("prores_ks", presets=PRORES, preset_option="profile"),
    "libx264rgb": EncoderSpec("libx264rgb", (0, 51), 16, X26X, "medium"),
    "libsvtav1": EncoderSpec("libsvtav1", (0, 63), 25, tuple(map(str, range(14))), "8"),
    "libvpx-vp9": EncoderSpec("libvpx-vp9", (0, 63), 24, fixed={"b": "0"}),
    "libvpx": EncoderSpec("libvpx", (4, 63), 10, fixed={"b": "20M"}),
}


@contextmanager
def clip_writer(
    path: Path,
    source: FrameSource,
    output: OutputConfig,
    marking: Marking,
    is_mask: bool = False,
) -> Iterator[FrameWriter]:
    """A writer of `path`, which appears only when the block ends without an exception.

    A mask has its picture alone. Raises UserError before anything is encoded when the encoder, its
    settings, the container or the sound do not go together.
    """
    sidecar = path.with_name(path.name + SIDECAR)
    with atomic.replacing(path) as temporary:
        with _opened(temporary, path, source, output, is_mask) as (container, stream, copies):
            if marking.comment:
                container.metadata["comment"] = marking.comment

            def put(packet: av.Packet) -> None:
                copies.copy_until(packet.dts * packet.time_base)
                packet.stream = stream
                container.mux(packet)

            writer = ClipWriter(stream, source, output, put)
            yield writer
            writer.finish()
            copies.copy_until(None)
        if marking.xmp and path.suffix.lower() in QUICKTIME:
            xmp.append_to_mp4(temporary, marking.xmp)
        seal = marking.seal(temporary, path.name)
        sidecar.unlink(missing_ok=True)  # that of an older result does not fit the new one
    if seal is not None:
        atomic.write_bytes(sidecar, seal)


@contextmanager
def clip_part_writer(
    path: Path, source: FrameSource, output: OutputConfig, part: Part, is_mask: bool = False
) -> Iterator[FrameWriter]:
    """A writer of a part of the clip `path`, into the folder of its parts; else as `clip_writer`.

    The part is encoded by itself: it begins with a key frame, and refers to no other part.
    """
    partial = parts.partial_of(path)
    with _opened(partial / path.name, path, source, output, is_mask) as (_, stream, _):
        if yuv.has_alpha(stream.pix_fmt) and stream.codec_context.name.startswith("libvpx"):
            raise UserError(
                f"output.codec={output.codec}: its transparency cannot be joined; take "
                "output.codec=prores or ffv1, or run without shard="
            )
        file = parts.packets_file(partial, part.shard)
        with parts.writing_packets(file, stream.codec_context.extradata) as put:
            writer = ClipWriter(stream, source, output, put)
            yield writer
            writer.finish()


def join_clip(
    path: Path,
    source: FrameSource,
    output: OutputConfig,
    marking: Marking,
    count: int,
    is_mask: bool = False,
) -> None:
    """Makes the clip `path` of its `count` parts, which are not encoded again; else as a writer."""
    partial = parts.partial_of(path)
    files = [parts.packets_file(partial, Shard(number, count)) for number in range(count)]
    with clip_writer(path, source, output, marking, is_mask) as writer:
        writer.take(files)
    atomic.remove_folder(partial)


@contextmanager
def _opened(
    file: Path, path: Path, source: FrameSource, output: OutputConfig, is_mask: bool
) -> Iterator[tuple[av.container.OutputContainer, av.VideoStream, "_Copies"]]:
    """A container at `file` for what will be `path`, its picture's stream, and what is copied.

    The file is made with the first packet. Raises UserError as `clip_writer`.
    """
    clip = _clip_format(source, output)
    if source.is_folder:
        _refuse_second_size(source)
    with av.open(str(file), "w", options=_muxer_options(path, clip)) as container:
        stream = _add_video(container, path, source, clip, output)
        with _Copies(None if is_mask else source, container, stream, path) as copies:
            _start(stream, output)
            yield container, stream, copies


class ClipWriter(FrameWriter):
    """Encodes frames, and gives the packets to `put`."""

    def __init__(
        self,
        stream: av.VideoStream,
        source: FrameSource,
        output: OutputConfig,
        put: Callable[[av.Packet], None],
    ) -> None:
        self._stream, self._put, self._alpha = stream, put, output.alpha
        self._clip = clip = _clip_format(source, output)
        self._shift = int(clip.start / clip.time_base)
        self._color = yuv.output_tags(clip.color, stream.pix_fmt)
        has_fields = bool(stream.codec_context.flags & int(Flags.interlaced_dct))
        self._mark = fields.FieldMarker(clip.fields) if has_fields else None
        self._target = yuv.TargetFormat(stream.pix_fmt, clip.color, self._color, self._mark)
        self._encodes = True

    def write(self, frame: Frame) -> None:
        expected = (self._stream.height, self._stream.width)
        if frame.image.shape[:2] != expected:
            raise UserError(
                f"{frame.file}: {frame.image.shape[1]}x{frame.image.shape[0]} pixels in a video of "
                f"{expected[1]}x{expected[0]}; pictures of several sizes need a folder as output"
            )
        picture = self._picture(frame)
        if self._mark is not None:
            picture = self._mark(picture)
        picture.pict_type = PictureType.NONE  # the encoder decides, not the source
        picture.pts = frame.index if frame.pts is None else frame.pts - self._shift
        picture.duration = frame.duration or 0
        picture.time_base = self._clip.time_base
        for packet in self._stream.encode(picture):
            self._put(packet)

    def take(self, files: Sequence[Path]) -> None:
        """Takes all packets from `files` of parts, instead of frames."""
        self._encodes = False
        extradata = self._stream.codec_context.extradata
        for packet in parts.joined_packets(files, extradata, self._clip.time_base):
            self._put(packet)

    def finish(self) -> None:
        """Gives out what the encoder still holds."""
        for packet in self._stream.encode(None) if self._encodes else ():
            self._put(packet)

    def _picture(self, frame: Frame) -> av.VideoFrame:
        if self._alpha:
            return yuv.from_rgb(frame.cutout(), self._stream.pix_fmt, self._color, self._mark)
        if frame.stored is None:
            return yuv.from_rgb(frame.image, self._stream.pix_fmt, self._color, self._mark)
        return yuv.blend_samples(frame.stored, frame.image, frame.untouched(), self._target)


class _Copies:
    """What a clip has beside its picture, as far as the result's container takes it.

    Sound and subtitles are copied unchanged, packet by packet, in step with the video; chapters and
    the time code of the start as well. Of everything else one line says that it is left out.
    """

    def __init__(
        self,
        source: FrameSource | None,
        container: av.container.OutputContainer,
        video: av.VideoStream,
        path: Path,
    ) -> None:
        self._container, self._copies = container, {}
        self._input = None if source is None or source.is_folder else open_clip(source.path)
        self._packets: Iterator[av.Packet] = iter(())
        if self._input is not None:
            try:
                self._start = source.clip.start
                self._add_streams(video, path)
            except BaseException:
                self._close()
                raise
            self._packets = self._read([self._input.streams[index] for index in self._copies])
        self._waiting = next(self._packets, None)

    def copy_until(self, seconds: Fraction | None) -> None:
        """Copies the packets up to `seconds`, or all that are left."""
        while (packet := self._waiting) is not None:
            if seconds is not None and packet.dts * packet.time_base > seconds:
                return
            packet.stream = self._copies[packet.stream.index]
            self._container.mux(packet)
            self._waiting = next(self._packets, None)

    def _add_streams(self, video: av.VideoStream, path: Path) -> None:
        picture, chapters = self._input.streams.best("video"), self._input.chapters()
        left_out = Counter()
        for stream in self._input.streams:
            if stream.type == "audio":
                self._copies[stream.index] = _copy_sound(stream, self._container, path)
            elif stream.type == "subtitle":
                copy = _copy_stream(stream, self._container)
                if copy is None:
                    left_out[f"{_codec(stream)} subtitles, which {path.suffix} does not hold"] += 1
                else:
                    self._copies[stream.index] = copy
            elif stream.index != picture.index and "timecode" not in stream.metadata:
                is_chapters = chapters and stream.metadata.get("handler_name") == CHAPTERS
                if not is_chapters:
                    left_out[stream.type if stream.type != "data" else _data_name(stream)] += 1
        for tags in (self._input.metadata, *(s.metadata for s in self._input.streams)):
            if "timecode" in tags:
                video.metadata["timecode"] = tags["timecode"]
        self._container.set_chapters([_earlier(chapter, self._start) for chapter in chapters])
        if left_out:
            what = ", ".join(f"{count} {kind}" for kind, count in left_out.items())
            log.warning("%s: not in the result: %s", self._input.name.removeprefix("file:"), what)

    def _read(self, streams: list[av.stream.Stream]) -> Iterator[av.Packet]:
        if not streams:
            return
        try:
            for packet in packets(self._input, *streams):
                if packet.dts is not None:
                    shift = int(self._start / packet.time_base)
                    packet.dts -= shift
                    packet.pts = packet.dts if packet.pts is None else packet.pts - shift
                    yield packet
        except av.FFmpegError as error:
            log.warning("%s: the sound ends early (%s)", self._input.name, error.strerror)

    def __enter__(self) -> "_Copies":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._input is not None:
            self._input.close()


def _copy_sound(
    stream: av.AudioStream, container: av.container.OutputContainer, path: Path
) -> av.AudioStream:
    copy = _copy_stream(stream, container)
    if copy is None:
        raise UserError(
            f"{path}: a {path.suffix} file cannot hold the clip's sound ({_codec(stream)}); "
            "set output.path to .mkv or .mov"
        )
    if _codec(stream).startswith("pcm_") and path.suffix.lower() in (".mp4", ".m4v"):
        log.warning(
            "%s: few players play this sound (%s) from a %s file; .mov or .mkv is safer",
            path, _codec(stream), path.suffix,
        )  # fmt: skip
    return copy


def _copy_stream(
    stream: av.stream.Stream, container: av.container.OutputContainer
) -> av.stream.Stream | None:
    """A stream of `container` for the packets of `stream`; None when it cannot hold them."""
    try:
        copy = container.add_stream_from_template(stream)
    except (ValueError, av.FFmpegError):
        return None
    copy.metadata.update(stream.metadata)
    copy.disposition = int(stream.disposition)
    return copy


def _codec(stream: av.stream.Stream) -> str:
    return stream.codec_context.name if stream.codec_context else "unknown"


def _data_name(stream: av.stream.Stream) -> str:
    return f"data stream ({printable(stream.metadata.get('handler_name') or _codec(stream))[:40]})"


def _earlier(chapter: dict[str, Any], start: Fraction) -> dict[str, Any]:
    shift = round(start / chapter["time_base"])
    times = {key: max(0, chapter[key] - shift) for key in ("start", "end")}
    return chapter | times


def _refuse_second_size(source: FrameSource) -> None:
    """Raises UserError when the headers of the pictures of a folder tell of more than one size."""
    first = source.width, source.height
    for file in image_files(source.path):
        size = picture.size(file)
        if size not in (first, None):
            raise UserError(
                f"{file}: {size[0]}x{size[1]} pixels among pictures of {first[0]}x{first[1]}; "
                "several sizes need a folder as output"
            )


def _find_encoder(output: OutputConfig) -> tuple[EncoderSpec, av.Codec]:
    """The encoder `output.codec`: x264, x265, ffv1, prores, or libav's name of any other.

    Raises UserError when there is none, or when it does not take `output.crf` or `output.preset`.
    """
    by_codec = {encoder.codec: encoder for encoder in ENCODERS.values()}
    name = output.codec
    encoder = ENCODERS.get(name) or by_codec.get(name) or EncoderSpec(name)
    try:
        codec = av.Codec(encoder.codec, "w")
    except ValueError as error:
        raise UserError(
            f"output.codec={name}: no such encoder; for example {', '.join(ENCODERS)}"
        ) from error
    if codec.type != "video":
        raise UserError(f"output.codec={name}: an {codec.type} encoder; for example x264")
    if output.crf is not None:
        _check_crf(output, encoder)
    if output.preset is not None and output.preset not in encoder.presets:
        known = f"expected one of {', '.join(encoder.presets)}" if encoder.presets else "leave it"
        raise UserError(f"output.preset={output.preset}: {name} has no such preset; {known}")
    return encoder, codec


def _pixel_format(
    codec: av.Codec, output: OutputConfig, source: str | None, width: int, height: int
) -> str:
    """The pixel format of the result: `output.pixel_format`, or the nearest to `source`.

    `source` is None for pictures. They, and clips of RGB (GIF, screen captures), become 4:2:0,
    which all players play, or RGB for a lossless encoder. Raises UserError.
    """
    formats = [f.name for f in codec.video_formats or ()]
    chosen = output.pixel_format
    if chosen is not None:
        if chosen not in formats or (output.alpha and not yuv.has_alpha(chosen)):
            usable = [f for f in formats if yuv.has_alpha(f) or not output.alpha]
            raise UserError(
                f"output.pixel_format={chosen}: {output.codec} has: {', '.join(usable) or 'none'}"
            )
        return chosen
    if source is None or (yuv.is_rgb(source) and not yuv.only_lossless(codec)):
        source = "rgb24" if yuv.only_lossless(codec) else yuv.subsampled(source)
    if codec.name == ENCODERS["prores"].codec and not output.alpha:
        is_full = yuv.full_chroma(source) if output.preset is None else False
        is_full = is_full or output.preset in PRORES[4:]
        return "yuv444p10le" if is_full or width % 2 else "yuv422p10le"
    return yuv.output_format(codec, source, width, height, alpha=output.alpha)


def _encoder_options(encoder: EncoderSpec, output: OutputConfig, layout: str) -> dict[str, str]:
    """The options that `encoder` is opened with for the pixel format `layout`. Raises UserError."""
    crf = encoder.default_crf if output.crf is None else output.crf
    preset = output.preset or encoder.default_preset
    if encoder is ENCODERS["prores"] and preset is None:
        preset = "4444" if yuv.full_chroma(layout) else "hq"
    if encoder is ENCODERS["prores"] and preset in SUBSAMPLED and yuv.full_chroma(layout):
        raise UserError(f"output.preset={preset} is 4:2:2; {layout} needs output.preset=4444")
    chosen = {"crf": crf, encoder.preset_option: preset}
    return encoder.fixed | {k: str(v) for k, v in chosen.items() if v is not None}


def _check_crf(output: OutputConfig, encoder: EncoderSpec) -> None:
    if encoder.crf is None:
        raise UserError(f"output.crf={output.crf}: {output.codec} has no CRF; leave it out")
    best, worst = encoder.crf
    if not best <= output.crf <= worst:
        raise UserError(f"output.crf={output.crf}: {output.codec} takes {best} to {worst}")


def _add_video(
    container: av.container.OutputContainer,
    path: Path,
    source: FrameSource,
    clip: ClipFormat,
    output: OutputConfig,
) -> av.VideoStream:
    encoder, codec = _find_encoder(output)
    size = source.width, source.height
    layout = _pixel_format(codec, output, clip.pixel_format, *size)
    if output.pixel_format is None and (size[0] % 2 or size[1] % 2) and yuv.full_chroma(layout):
        log.warning(
            "%s: %dx%d pixels are written as %s, for 4:2:0 would lose a row; few players play "
            "that, so better crop the input to even numbers",
            path, *size, layout,
        )  # fmt: skip
    options = _encoder_options(encoder, output, layout)
    try:
        stream = container.add_stream(encoder.codec, rate=clip.rate, options=options)
    except ValueError as error:
        raise UserError(
            f"output.codec={output.codec}: a {path.suffix} file cannot hold it; "
            "change output.codec or the suffix of output.path"
        ) from error
    stream.width, stream.height = size
    stream.pix_fmt = layout
    context = stream.codec_context
    stream.time_base = context.time_base = clip.time_base
    if clip.pixel_aspect:
        context.sample_aspect_ratio = clip.pixel_aspect
    color = yuv.output_tags(clip.color, stream.pix_fmt)
    context.color_primaries, context.color_trc = color.primaries, color.transfer
    context.colorspace, context.color_range = color.matrix, color.range
    if encoder.quicktime_tag and path.suffix.lower() in QUICKTIME:
        context.codec_tag = encoder.quicktime_tag
    if clip.fields is not None and _keeps_fields(encoder, path, stream.height):
        fields.set_order(context, clip.fields)
    context.thread_count = 0  # as many as there are cores
    context.flags |= int(Flags.frame_duration)  # else the last frame's length is a guess
    return stream


def _keeps_fields(encoder: EncoderSpec, path: Path, height: int) -> bool:
    """True where the fields of an interlaced clip can be written; else a line says why not."""
    if height % fields.ROWS:
        why = f"fields need a height that is a multiple of {fields.ROWS}"
    elif encoder.codec not in fields.ENCODERS:
        why = "output.codec=x264, prores and ffv1 keep fields"
    else:
        return True
    log.warning("%s: progressive, unlike its clip; %s", path, why)
    return False


def _start(stream: av.VideoStream, output: OutputConfig) -> None:
    """Opens the encoder, so that a bad setting is refused before the first frame."""
    try:
        stream.codec_context.open()
    except (av.FFmpegError, ValueError) as error:
        raise UserError(
            f"output.codec={output.codec} refuses {stream.width}x{stream.height} {stream.pix_fmt}, "
            f"output.crf={output.crf} or output.preset={output.preset} ({error})"
        ) from error


def _muxer_options(path: Path, clip: ClipFormat) -> dict[str, str]:
    if path.suffix.lower() not in QUICKTIME:
        return {}
    scale = str(clip.time_base.denominator)  # else libav may choose a multiple
    return {"movflags": "+faststart", "video_track_timescale": scale}


def _clip_format(source: FrameSource, output: OutputConfig) -> ClipFormat:
    return source.clip or _clip_of_pictures(output.fps)


def _clip_of_pictures(fps: float) -> ClipFormat:
    """Pictures become a BT.709 clip of constant rate; 23.976 and its like are n * 1000 / 1001."""
    if fps <= 0:
        raise UserError(f"output.fps={fps}: expected frames per second above 0")
    ntsc = Fraction(round(fps * 1.001) * 1000, 1001)
    rate = ntsc if fps % 1 and abs(fps - ntsc) < 0.005 else Fraction(str(fps))
    return ClipFormat(1 / rate, rate, None, None, yuv.ColorTags())
