"""Writing a clip with the times, tags and sound of another."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
from av.codec.context import Flags
from av.video.frame import PictureType

from odfs_jax.config import OutputConfig
from odfs_jax.data import atomic
from odfs_jax.data.media import encoders, matte, planes, xmp, yuv
from odfs_jax.data.media.frames import ClipFormat, Frame, FrameSource, FrameWriter
from odfs_jax.errors import UserError
from odfs_jax.provenance.marking import SIDECAR, Marking

log = logging.getLogger(__name__)

QUICKTIME = (".mp4", ".mov", ".m4v")


@contextmanager
def clip_writer(
    path: Path,
    source: FrameSource,
    output: OutputConfig,
    marking: Marking,
    is_mask: bool = False,
) -> Iterator[FrameWriter]:
    """A writer of `path`, which appears only when the block ends without an exception.

    A mask has no sound. Raises UserError before anything is encoded when the encoder, its settings,
    the container or the sound do not go together.
    """
    clip = source.clip or _clip_of_pictures(output.fps)
    for left in sorted(path.parent.glob(f".{path.stem}-*.partial{path.suffix}")):
        log.warning("%s: left by a run that was stopped, unless one is under way", left)
    sidecar = path.with_name(path.name + SIDECAR)
    with atomic.replacing(path) as temporary:
        with av.open(str(temporary), "w", options=_muxer_options(path, clip)) as container:
            if marking.comment:
                container.metadata["comment"] = marking.comment
            stream = _add_video(container, path, source, clip, output)
            with _Sound(None if is_mask else source, container, path) as sound:
                _start(stream, output)
                writer = ClipWriter(stream, sound, clip, output.alpha)
                yield writer
                writer.finish()
        if marking.xmp and path.suffix.lower() in QUICKTIME:
            xmp.append_to_mp4(temporary, marking.xmp)
        seal = marking.seal(temporary, path.name)
        sidecar.unlink(missing_ok=True)  # that of an older result does not fit the new one
    if seal is not None:
        atomic.write_bytes(sidecar, seal)


class ClipWriter(FrameWriter):
    """Encodes frames and muxes them with the sound up to the same time."""

    def __init__(
        self, stream: av.VideoStream, sound: "_Sound", clip: ClipFormat, alpha: bool
    ) -> None:
        self._stream, self._sound, self._clip, self._alpha = stream, sound, clip, alpha
        self._colour = yuv.output_tags(clip.colour, stream.pix_fmt)
        self._target = planes.Target(stream.pix_fmt, clip.colour, self._colour)

    def write(self, frame: Frame) -> None:
        expected = (self._stream.height, self._stream.width)
        if frame.image.shape[:2] != expected:
            raise UserError(
                f"{frame.file}: {frame.image.shape[1]}x{frame.image.shape[0]} pixels in a video of "
                f"{expected[1]}x{expected[0]}; pictures of several sizes need a folder as output"
            )
        picture = self._picture(frame)
        picture.pict_type = PictureType.NONE  # how the source coded it is no wish of ours
        picture.pts = frame.index if frame.pts is None else frame.pts
        picture.duration = frame.duration or 0
        picture.time_base = self._clip.time_base
        self._mux(self._stream.encode(picture))

    def finish(self) -> None:
        """Writes what the encoder still holds and the rest of the sound."""
        self._mux(self._stream.encode(None))
        self._sound.copy_until(None)

    def _picture(self, frame: Frame) -> av.VideoFrame:
        if self._alpha:
            return yuv.from_rgb(matte.cut_out(frame), self._stream.pix_fmt, self._colour)
        if frame.stored is None:
            return yuv.from_rgb(frame.image, self._stream.pix_fmt, self._colour)
        return planes.blended(frame.stored, frame.image, frame.untouched(), self._target)

    def _mux(self, packets: list[av.Packet]) -> None:
        for packet in packets:
            self._sound.copy_until(packet.dts * packet.time_base)
            self._stream.container.mux(packet)


class _Sound:
    """The sound packets of a clip, copied unchanged in step with the video."""

    def __init__(
        self, source: FrameSource | None, container: av.container.OutputContainer, path: Path
    ) -> None:
        self._container = container
        is_silent = source is None or source.is_folder
        self._input = None if is_silent else av.open(str(source.path))
        streams = () if self._input is None else self._input.streams.audio
        try:
            self._copies = {s.index: _copy_stream(s, container, path) for s in streams}
        except UserError:
            self._close()
            raise
        self._packets = self._read(streams) if streams else iter(())
        self._waiting = next(self._packets, None)

    def copy_until(self, seconds: Fraction | None) -> None:
        """Copies the packets up to `seconds`, or all that are left."""
        while (packet := self._waiting) is not None:
            if seconds is not None and packet.dts * packet.time_base > seconds:
                return
            packet.stream = self._copies[packet.stream.index]
            self._container.mux(packet)
            self._waiting = next(self._packets, None)

    def _read(self, streams: tuple[av.AudioStream, ...]) -> Iterator[av.Packet]:
        try:
            for packet in self._input.demux(*streams):
                if packet.dts is not None:
                    yield packet
        except av.FFmpegError as error:
            log.warning("%s: the sound ends early (%s)", self._input.name, error.strerror)

    def __enter__(self) -> "_Sound":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._input is not None:
            self._input.close()


def _copy_stream(
    stream: av.AudioStream, container: av.container.OutputContainer, path: Path
) -> av.AudioStream:
    try:
        copy = container.add_stream_from_template(stream)
    except ValueError as error:
        codec = stream.codec_context.name if stream.codec_context else "unknown"
        raise UserError(
            f"{path}: a {path.suffix} file cannot hold the clip's sound ({codec}); "
            "set output.path to .mkv or .mov"
        ) from error
    copy.metadata.update(stream.metadata)
    return copy


def _add_video(
    container: av.container.OutputContainer,
    path: Path,
    source: FrameSource,
    clip: ClipFormat,
    output: OutputConfig,
) -> av.VideoStream:
    encoder, codec = encoders.find_encoder(output)
    size = source.width, source.height
    layout = encoders.pixel_format(codec, output, clip.pixel_format, *size)
    options = encoders.options(encoder, output, layout)
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
    colour = yuv.output_tags(clip.colour, stream.pix_fmt)
    context.color_primaries, context.color_trc = colour.primaries, colour.transfer
    context.colorspace, context.color_range = colour.matrix, colour.range
    if encoder.quicktime_tag and path.suffix.lower() in QUICKTIME:
        context.codec_tag = encoder.quicktime_tag
    context.thread_count = 0  # as many as there are cores
    context.flags |= int(Flags.frame_duration)  # else the last frame's length is a guess
    return stream


def _start(stream: av.VideoStream, output: OutputConfig) -> None:
    """Opens the encoder now, so that a bad setting is refused before the first frame."""
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


def _clip_of_pictures(fps: float) -> ClipFormat:
    """Pictures become a BT.709 clip of constant rate; 23.976 and its like are n * 1000 / 1001."""
    if fps <= 0:
        raise UserError(f"output.fps={fps}: expected frames per second above 0")
    ntsc = Fraction(round(fps * 1.001) * 1000, 1001)
    rate = ntsc if fps % 1 and abs(fps - ntsc) < 0.005 else Fraction(str(fps))
    return ClipFormat(1 / rate, rate, None, None, yuv.ColourTags())
