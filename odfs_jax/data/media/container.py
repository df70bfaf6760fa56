"""Opening clips: the one place that hands a file, perhaps a stranger's, to libav for reading.

Only regular files are opened, and only demuxers that read that file alone: a playlist or a script
called dst.mp4 could make libav read other files and addresses. Tags are read leniently, for old
programs wrote them in other encodings than UTF-8.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import av

from odfs_jax.data import foreign
from odfs_jax.errors import BadFileError

MAX_PIXELS = 1 << 27  # of a frame: 16,384 x 8,192
# Demuxers that open what a file names, or no file at all.
FOLLOWING = {
    *("applehttp", "avisynth", "concat", "dash", "hls", "image2", "image2pipe", "imf", "lavfi"),
    *("mlv", "rtp", "rtsp", "sap", "sdp", "vapoursynth", "vobsub", "webm_dash_manifest"),
}
OPTIONS = {
    "format_whitelist": ",".join(sorted(av.formats_available - FOLLOWING)),
    "protocol_whitelist": "file",
    "max_pixels": str(MAX_PIXELS),
}


def open_clip(path: Path) -> av.container.InputContainer:
    """The clip at `path`, opened. Raises BadFileError."""
    foreign.size_of_regular(path)
    try:
        # With the protocol, a name like `concat:a` is a name.
        return av.open(f"file:{path}", metadata_errors="replace", options=OPTIONS)
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadFileError(path, f"not a video that can be read ({reason})") from error


def packets(
    container: av.container.InputContainer, *streams: av.stream.Stream
) -> Iterator[av.Packet]:
    """The packets of `streams`, or of all, to the end. Raises av.FFmpegError where damage ends it.

    As PyAV's `demux`, which at the end looks for streams that a damaged clip seemed to gain.
    """
    with contextlib.suppress(IndexError):
        yield from container.demux(*streams)


class PacketTime(NamedTuple):
    """Of a packet of pictures: when it is shown, and whether decoding may begin there."""

    pts: int | None
    is_key: bool
    is_discard: bool  # decoded, not shown


def packet_times(path: Path) -> list[PacketTime]:
    """All packets of the clip at `path` that hold pictures, in their order; nothing is decoded.

    Where damage ends them early, what there is. Raises BadFileError.
    """
    times = []
    with open_clip(path) as container, contextlib.suppress(av.FFmpegError):
        for packet in packets(container, picture_stream(container, path)):
            if packet.size:
                times.append(PacketTime(packet.pts, packet.is_keyframe, packet.is_discard))
    return times


def decode_leniently(
    container: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[av.VideoFrame]:
    """What can be decoded of `stream`, from where `container` is; damage is left out."""
    try:
        for packet in packets(container, stream):
            with contextlib.suppress(av.FFmpegError):
                yield from stream.decode(packet)
    except av.FFmpegError:
        return


def picture_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    """The first (or default) picture stream of the clip at `path`. Raises BadFileError."""
    stream = container.streams.best("video")
    cover = av.stream.Disposition.attached_pic
    if stream is None or stream.codec_context is None or stream.disposition & cover:
        raise BadFileError(path, "no video stream in this file")
    if stream.time_base is None:
        raise BadFileError(path, "a video stream without a time base")
    return stream
