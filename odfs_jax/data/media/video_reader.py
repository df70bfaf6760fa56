"""Reading a clip: decoded on several threads, upright, RGB, with the stream's own times."""

import dataclasses
import logging
import math
import re
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from odfs_jax.data.media import yuv
from odfs_jax.data.media.container import open_clip, packet_times, packets, picture_stream
from odfs_jax.data.media.cut_off import cut_off
from odfs_jax.data.media.fields import field_order
from odfs_jax.data.media.frames import ClipFormat, Frame, FrameSource
from odfs_jax.data.media.yuv import tags_of, to_rgb
from odfs_jax.data.parallel import cores, parallel_map, prefetch
from odfs_jax.errors import BadFileError, UserError

log = logging.getLogger(__name__)

AHEAD = 4  # decoded pictures that wait to become RGB
CONVERSIONS = 4  # to RGB at once, where there are as many cores
THREADS = 0  # that decode a clip; 0: as many as libav thinks fit
HIDDEN_PACKETS = ("vp8", "mpeg4")  # codecs of which sound clips have packets without a picture
STEADY = 0.95  # share of equal steps in time, from which on a longer one is a gap
GAPLESS = ("matroska", "mpegts", "flv")  # containers that tell nothing of lost packets


class _Picture(NamedTuple):
    """A decoded picture, its number in the clip and its time."""

    index: int
    pts: int
    picture: av.VideoFrame


class _Entry(NamedTuple):
    """Where decoding may begin in the middle of a clip."""

    packet: int  # the number of a key packet, or 0: at the beginning
    since: int  # when the first frame that is wanted is shown
    numbers: dict[int, int]  # of all frames, by their times


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
        self._steps: Counter[int] = Counter()  # from picture to picture, in time
        self._first_step: dict[int, int] = {}  # when a step was first made
        self._given = -1  # the number of the last packet that the decoder was given
        self._entry: _Entry | None = None
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
            fields=None if self._orientation.moves_rows else field_order(first),
            start=_common_start(self._container, stream, first),
        )

    def __iter__(self) -> Iterator[Frame]:
        if self._first is None:
            raise RuntimeError(f"{self.path} was iterated before; open it again")
        first, self._first = self._first, None
        if self._start is not None:
            self._entry = self._entry_before(self._start)
        self._frames = parallel_map(self._frame, self._chosen(first), min(cores(), CONVERSIONS))
        yield from self._frames
        self._report()

    def exact_count(self) -> int:
        return sum(not packet.is_discard for packet in packet_times(self.path))

    def _entry_before(self, start: int) -> _Entry | None:
        """Where to begin decoding for frame `start`; None: frames cannot be told by their times.

        Key packets will do that are shown at the time of `start` or before, and after all packets
        before them. Of these it is the last but one, for the pictures after some keys are whole
        only a while later (a recovery point of H.264).
        """
        packets = packet_times(self.path)
        times = sorted(p.pts for p in packets if p.pts is not None and not p.is_discard)
        fair = self._stream.codec_context.name not in HIDDEN_PACKETS
        fair &= all(p.pts is not None for p in packets) and len(set(times)) == len(times)
        if not fair or start >= len(times):
            return None
        entries, latest = [], -math.inf
        for number, packet in enumerate(packets):
            if packet.is_key and latest < packet.pts <= times[start]:
                entries.append(number)
            latest = max(latest, packet.pts)
        place = entries[-2] if len(entries) > 1 and entries[-2] > self._given else 0
        numbers = {time: number for number, time in enumerate(times)}
        return _Entry(place, times[start], numbers)

    def _chosen(self, first: av.VideoFrame) -> Generator[_Picture]:
        """The pictures that are wanted, from the `first` up to a change of size."""
        with closing(prefetch(self._decoded, AHEAD)) as others:
            yield from self._numbered(chain([first], others))

    def _numbered(self, pictures: Iterable[av.VideoFrame]) -> Generator[_Picture]:
        step = max(1, round(1 / (self.clip.rate * self.clip.time_base)))
        last: int | None = None
        for index, picture in self._counted(pictures):
            if index == self._stop:
                return
            pts = picture.pts
            if pts is None or (last is not None and pts <= last):
                pts = 0 if last is None else last + step
                self._damage["frames without a usable time stamp"] += 1
            if last is not None:
                self._steps[pts - last] += 1
                self._first_step.setdefault(pts - last, last)
            last = pts
            if picture.interlaced_frame and not self._is_interlaced:
                self._is_interlaced = True
                log.warning(
                    "%s: interlaced (from frame %d on); whole frames are searched and swapped; "
                    "where faces move fast, deinterlace it first, with ffmpeg -vf bwdif say",
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

    def _counted(self, pictures: Iterable[av.VideoFrame]) -> Iterator[tuple[int, av.VideoFrame]]:
        """The pictures with their numbers; after an entry by their times, from `_start` on.

        Raises UserError when one is missing there: in a run from the beginning all that follow
        would have other numbers.
        """
        if self._entry is None:
            yield from enumerate(pictures)
            return
        expected = self._start
        for picture in pictures:
            index = self._entry.numbers.get(picture.pts, -1)
            if 0 <= index < expected:
                continue
            if index != expected:
                raise UserError(
                    f"{self.path}: frame {expected} cannot be decoded, so frames after it cannot "
                    "be told by their times; run without shard=, or repair the clip first"
                )
            yield index, picture
            expected += 1

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
        self._decoded.close()  # it holds this source, which would so keep its decoder's threads
        self._container.close()

    def _decode(self) -> Generator[av.VideoFrame]:
        self._stream.thread_type, self._stream.codec_context.thread_count = "AUTO", THREADS
        sent = received = errors = 0
        last: int | None = None  # time of a picture
        waiting: set[int] = set()  # times of packets whose picture has not come yet
        fair = self._stream.codec_context.name not in HIDDEN_PACKETS
        since = -math.inf  # pictures shown earlier are not missed: no one wants them
        for number, packet in enumerate(self._packets()):
            if self._entry is not None and packet is not None:
                if number < self._entry.packet:
                    continue
                if number == self._entry.packet:
                    self._stream.codec_context.flush_buffers()
                    sent = received = errors = 0
                    last, since = None, self._entry.since
                    waiting.clear()
            self._given = number
            is_due = packet is not None and (packet.pts is None or packet.pts >= since)
            if is_due and not packet.is_discard:
                sent += 1
                if packet.pts is not None:
                    waiting.add(packet.pts)
            try:
                pictures = self._stream.decode(packet)
            except av.FFmpegError:
                pictures, errors = [], errors + 1
            for picture in pictures:
                received += picture.pts is None or picture.pts >= since
                waiting.discard(picture.pts)
                last = picture.pts if last is None else max(last, picture.pts or last)
                fair &= not picture.interlaced_frame  # each field may be a packet
                yield picture
        # libav's threads hand out the last pictures when no packet is left, and PyAV drops all that
        # come after one that cannot be decoded.
        if received < sent and (last is None or any(time > last for time in waiting)):
            errors_at_end = 0
            for picture in self._tail(last, received):
                if picture is None:
                    errors_at_end += 1
                    continue
                received += 1
                waiting.discard(picture.pts)
                yield picture
            errors = max(errors, errors_at_end)
        if lost := max(errors, sent - received) if fair else errors:
            first = ""
            if waiting and fair:
                first = f", the first at {float(min(waiting) * self._stream.time_base):.2f} s"
            self._damage[f"packets that cannot be decoded{first}"] = lost

    def _tail(self, last: int | None, received: int) -> Iterator[av.VideoFrame | None]:
        """The pictures after the time `last`, decoded again, and each as soon as its packet is in.

        Of a clip without times: those after the first `received`. None stands for a packet that
        cannot be decoded.
        """
        with open_clip(self.path) as container:
            stream = container.streams[self._stream.index]
            stream.thread_type = "SLICE"
            if last is not None:
                with suppress(av.FFmpegError):  # else from the beginning
                    container.seek(last, stream=stream)  # to the key picture before
            again = packets(container, stream)
            while True:
                try:
                    packet = next(again, None)
                except av.FFmpegError:
                    packet = None
                is_last = packet is None or not packet.size
                try:
                    pictures = stream.decode(None if is_last else packet)
                except av.FFmpegError:
                    pictures = []
                    yield None
                for picture in pictures:
                    received -= 1
                    if received < 0 if last is None else (picture.pts or last) > last:
                        yield picture
                if is_last:
                    return

    def _packets(self) -> Iterator[av.Packet | None]:
        """The packets of the stream, then None, which drains the decoder."""
        read = 0
        ends: dict[int, float] = {}  # of streams: seconds
        try:
            for packet in packets(self._container):
                if not packet.size:
                    continue
                number = packet.stream_index
                if packet.pts is not None:
                    end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                    ends[number] = max(end, ends.get(number, 0.0))
                if number == self._stream.index:
                    read += 1
                    yield packet
        except av.FFmpegError as error:
            self._damage[f"an early end ({error.strerror})"] += 1
        yield None
        self._look_for_the_end(read, ends)

    def _look_for_the_end(self, read: int, ends: dict[int, float]) -> None:
        """Notes what is missing behind `read` packets; `ends` are the times at which streams end.

        libav ends without an error where a file is cut.
        """
        stream, container = self._stream, self._container
        is_mp4, is_avi = (name in container.format.name.split(",") for name in ("mp4", "avi"))
        indexed = len(stream.index_entries) if is_mp4 else stream.frames
        if is_avi:
            pass  # its count has empty chunks for the time between frames; its size is compared
        elif read < indexed:
            self._damage["packets missing at the end"] += indexed - read
        elif not is_mp4:  # the length of an MP4 has what an edit list leaves out
            length, spare = _own_length(stream), Fraction(1, 2)
            end = ends.get(stream.index, 0.0)
            if length is None:  # the longest stream's
                length, spare = (container.duration or 0) / av.time_base, Fraction(3)
                end = max(ends.values(), default=0.0)
            if length - end > spare / (stream.average_rate or 25):
                self._damage[f"it ends at {end:.2f} s of {length:.2f} s"] += 1
        if what := cut_off(self.path, container.format.name):
            self._damage[f"its end is missing: {what}"] += 1

    def _look_for_gaps(self) -> None:
        """Notes pictures that are not there, where nothing else tells and the others are steady."""
        if self._damage or not set(GAPLESS) & set(self._container.format.name.split(",")):
            return
        usual = max(self._steps, key=self._steps.__getitem__, default=0)
        spare = max(1, round(Fraction(3, 2000) / self.clip.time_base))  # Matroska rounds to 1 ms
        steady = sum(n for step, n in self._steps.items() if abs(step - usual) <= spare)
        gaps = [step for step in self._steps if step > 1.5 * usual + spare]
        if gaps and steady >= STEADY * self._steps.total():
            first = float(min(self._first_step[step] for step in gaps) * self.clip.time_base)
            count = sum(self._steps[step] for step in gaps)
            self._damage[f"gaps in its times, the first at {first:.2f} s"] = count

    def _report(self) -> None:
        self._look_for_gaps()
        for what, times in self._damage.items():
            self.bad.append(BadFileError(self.path, f"damaged clip: {what} ({times})"))


def _own_length(stream: av.VideoStream) -> float | None:
    """Seconds that the stream lasts by its own tag, which Matroska files have: 00:00:04.000."""
    found = re.fullmatch(r"(\d\d):(\d\d):(\d\d(\.\d+)?)0*", stream.metadata.get("DURATION", ""))
    if found is None:
        return None
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])


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

    @property
    def moves_rows(self) -> bool:
        """True when a row of the picture is elsewhere, or a column, once upright."""
        return self._swaps or self._mirrors[1]

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
