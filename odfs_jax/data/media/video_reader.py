"""Reading a clip: decoded on several threads, upright, RGB, with the stream's own times."""

import dataclasses
import logging
import math
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from odfs_jax.data.media import yuv
from odfs_jax.data.media.container import open_clip, picture_stream
from odfs_jax.data.media.frames import ClipFormat, Frame, FrameSource
from odfs_jax.data.media.yuv import tags_of, to_rgb
from odfs_jax.data.parallel import cores, parallel_map, prefetch
from odfs_jax.errors import BadFileError, UserError

log = logging.getLogger(__name__)

AHEAD = 4  # decoded pictures that wait to become RGB
CONVERSIONS = 4  # to RGB at once, where there are as many cores


class _Picture(NamedTuple):
    """A decoded picture, its number in the clip and its time."""

    index: int
    pts: int
    picture: av.VideoFrame


class ClipSource(FrameSource):
    """The first (or default) picture stream of a clip. Raises UserError when there is none.

    With `plates` its frames keep what a writer needs for an exact copy: twice the memory.
    """

    is_folder = False

    def __init__(self, path: Path, plates: bool = False) -> None:
        self.path = path
        self._plates = plates
        self.bad: list[BadFileError] = []
        self._damage: Counter[str] = Counter()
        self._is_interlaced = False
        self._container = open_clip(path)
        try:
            self._stream = picture_stream(self._container, path)
            self._decoded = self._decode()
            first = next(self._decoded, None)
            if first is None:
                raise UserError(f"{path}: no frame of this video can be decoded")
            self._describe(first)
        except BaseException:
            self._container.close()
            raise
        self._first: av.VideoFrame | None = first
        self._frames: Generator[Frame] | None = None

    def _describe(self, first: av.VideoFrame) -> None:
        stream = self._stream
        self._orientation = Orientation(first, self.path)
        self.width, self.height = self._orientation.size(first.width, first.height)
        self.count = stream.frames or _frames_by_duration(self._container, stream)
        self.clip = ClipFormat(
            time_base=stream.time_base,
            rate=stream.average_rate or stream.guessed_rate or Fraction(25),
            pixel_aspect=self._orientation.pixel_aspect(stream.sample_aspect_ratio),
            pixel_format=first.format.name,
            color=tags_of(first),
            start=_common_start(self._container, stream, first),
        )

    def __iter__(self) -> Iterator[Frame]:
        if self._first is None:
            raise RuntimeError(f"{self.path} was iterated before; open it again")
        first, self._first = self._first, None
        self._frames = parallel_map(self._frame, self._chosen(first), min(cores(), CONVERSIONS))
        yield from self._frames
        self._report()

    def _chosen(self, first: av.VideoFrame) -> Generator[_Picture]:
        """The pictures that are wanted, from the `first` up to a change of size."""
        with closing(prefetch(self._decoded, AHEAD)) as others:
            yield from self._numbered(chain([first], others))

    def _numbered(self, pictures: Iterable[av.VideoFrame]) -> Generator[_Picture]:
        step = max(1, round(1 / (self.clip.rate * self.clip.time_base)))
        last: int | None = None
        for index, picture in enumerate(pictures):
            if index == self._stop:
                return
            pts = picture.pts
            if pts is None or (last is not None and pts <= last):
                pts = 0 if last is None else last + step
                self._damage["frames without a usable time stamp"] += 1
            last = pts
            if picture.interlaced_frame and not self._is_interlaced:
                self._is_interlaced = True
                log.warning(
                    "%s: interlaced (from frame %d on); whole frames are searched and swapped, and "
                    "a result is progressive; deinterlace it first, with ffmpeg -vf bwdif say",
                    self.path, index,
                )  # fmt: skip
            if picture.is_corrupt:
                self._damage["damaged frames"] += 1
            if self._is_skipped(self.path.name, index):
                continue
            width, height = self._orientation.size(picture.width, picture.height)
            if (width, height) != (self.width, self.height):
                self._damage[f"a change of size to {width}x{height}; stopped there"] += 1
                return
            yield _Picture(index, pts, picture)

    def _frame(self, numbered: _Picture) -> Frame:
        index, pts, picture = numbered
        image = self._orientation.upright(to_rgb(picture, self.clip.color, threads=1))
        frame = Frame(self.path.name, index, pts, image, picture.duration or None)
        if self._plates:
            stored = self._orientation.stored(picture)
            frame = dataclasses.replace(frame, plate=image, stored=stored)
        return frame

    def close(self) -> None:
        if self._frames is not None:
            self._frames.close()  # no thread may decode once the container is closed
        self._container.close()

    def _decode(self) -> Generator[av.VideoFrame]:
        self._stream.thread_type = "AUTO"
        for packet in self._packets():
            try:
                yield from self._stream.decode(packet)
            except av.FFmpegError:
                self._damage["packets that cannot be decoded"] += 1

    def _packets(self) -> Iterator[av.Packet | None]:
        """The packets of the stream, then None, which drains the decoder."""
        read = 0
        try:
            for packet in self._container.demux(self._stream):
                if packet.size:
                    read += 1
                    yield packet
        except av.FFmpegError as error:
            self._damage[f"an early end ({error.strerror})"] += 1
        # A cut MP4 ends without an error, but its index still names every packet.
        indexed = len(self._stream.index_entries) if "mp4" in self._container.format.name else 0
        if read < indexed:
            self._damage["packets missing at the end"] += indexed - read
        yield None

    def _report(self) -> None:
        for what, times in self._damage.items():
            self.bad.append(BadFileError(self.path, f"damaged clip: {what} ({times})"))


def clip_comment(path: Path) -> str:
    """The comment in the metadata of the clip at `path`; empty when it has none or is no clip."""
    try:
        with open_clip(path) as container:
            tags = {key.lower(): value for key, value in container.metadata.items()}
            return tags.get("comment", "")
    except BadFileError:
        return ""


class Orientation:
    """The quarter turn or mirror image that a clip's display matrix prescribes.

    The matrix maps pixel (x, y) to (a x + c y, b x + d y). Source: ISO/IEC 14496-12, 8.3.2.
    """

    def __init__(self, frame: av.VideoFrame, path: Path) -> None:
        side = frame.side_data.get("DISPLAYMATRIX")
        matrix = np.eye(3) if side is None else np.frombuffer(bytes(side), np.int32).reshape(3, 3)
        (a, b), (c, d) = np.sign(matrix[:2, :2]).astype(int).tolist()
        if bool(a and d) == bool(b and c):
            raise UserError(f"{path}: rotated by {frame.rotation} degrees; only quarter turns work")
        self._swaps = not a
        self._mirrors = (c < 0, b < 0) if self._swaps else (a < 0, d < 0)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) once upright."""
        return (height, width) if self._swaps else (width, height)

    def pixel_aspect(self, aspect: Fraction | None) -> Fraction | None:
        """Width / height of a pixel once upright; None when the clip does not say."""
        if not aspect:
            return None
        return 1 / aspect if self._swaps else aspect

    def stored(self, frame: av.VideoFrame) -> av.VideoFrame | None:
        """The upright form of `frame`, samples untouched; None when its format has none."""
        if self._swaps or any(self._mirrors):
            return yuv.rotated(frame, self.upright)
        return frame

    def upright(self, image: np.ndarray) -> np.ndarray:
        """The upright, contiguous form of `image` [H, W, C]."""
        if self._swaps:
            image = image.swapaxes(0, 1)
        mirror_x, mirror_y = self._mirrors
        return np.ascontiguousarray(image[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1])


def _common_start(
    container: av.container.InputContainer, stream: av.VideoStream, first: av.VideoFrame
) -> Fraction:
    """The time in seconds at which picture and sound of a clip begin, the earlier of both.

    A broadcast begins at the time of day, a part of a longer film at its place. It is rounded down
    to a multiple of the time bases of all that is copied, so that it can be taken away exactly.
    """
    copied = [stream, *container.streams.audio, *container.streams.subtitles]
    bases = [each.time_base for each in copied if each.time_base]
    timed = [stream, *container.streams.audio]
    starts = [s.start_time * s.time_base for s in timed if s.start_time is not None and s.time_base]
    if first.pts is None or not starts:
        return Fraction(0)
    whole = math.lcm(*(base.denominator for base in bases))
    step = Fraction(math.lcm(*(int(base * whole) for base in bases)), whole)
    return max(Fraction(0), min(*starts, first.pts * stream.time_base) // step * step)


def _frames_by_duration(
    container: av.container.InputContainer, stream: av.VideoStream
) -> int | None:
    if not stream.average_rate:
        return None
    if stream.duration:
        return round(stream.duration * stream.time_base * stream.average_rate)
    if container.duration:
        return round(container.duration / av.time_base * stream.average_rate)
    return None
