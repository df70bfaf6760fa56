"""Frames in and out, of a clip or a folder of pictures: in order, by number, and written.

with open_frames(path) as source, open_writer(result, source, output, marking) as writer:
    for frame in source:
        writer.write(dataclasses.replace(frame, image=changed(frame.image)))

A clip keeps its times, size, pixel shape, color tags, chroma layout, bit depth, fields (as far as
the encoder has them), all its sound, chapters, time code, and the subtitles that the container
takes; a start later than 0 is taken away. Faces are swapped in 8-bit RGB; pixels that are left
alone keep the samples of the source, bit for bit where the encoder is lossless. A rotated clip
comes out upright. Not kept: other data tracks, HDR side data.
"""

import contextlib
import dataclasses
import re
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain, pairwise
from pathlib import Path
from threading import Lock

import av

from odfs_jax.config import OutputConfig
from odfs_jax.data.lock import InUseError, beginning_result, locked_result
from odfs_jax.data.media import parts, picture_folder
from odfs_jax.data.media.container import (
    decode_leniently,
    open_clip,
    packet_times,
    picture_stream,
)
from odfs_jax.data.media.frames import Frame, FrameSource, FrameWriter
from odfs_jax.data.media.marking import FOLDER_SEALS, Marking, Unmarked
from odfs_jax.data.media.parts import Part, partial_of
from odfs_jax.data.media.video_reader import ClipSource, Orientation, clip_comment
from odfs_jax.data.media.video_writer import clip_part_writer, clip_writer, join_clip
from odfs_jax.data.media.yuv import ColorTags, to_rgb
from odfs_jax.data.workspace import CLIP_SUFFIXES, IMAGE_SUFFIXES, image_files
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.frame_ranges import FrameRanges

CACHED_FRAMES = 8  # that a `FrameReader` keeps in memory, of no more than
CACHED_BYTES = 1 << 28  # in all
OUTPUTS = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v")  # clips that are written
ANIMATED = (".webp", ".avif")  # pictures that may be clips
MASK_RATE = 25.0  # frames per second of a clip of masks of pictures
STEPS_BACK = (0, 32, 256, 2048)  # frames before the one that is sought
MAX_DECODE_AHEAD = 32  # frames; one further on is reached by seeking


# In order


def open_frames(path: Path, plates: bool = False) -> FrameSource:
    """The frames of the clip or folder of pictures at `path`. Raises UserError.

    With `plates` the frames carry what a writer needs for an exact copy of the pixels left alone.
    """
    if path.is_dir():
        return picture_folder.PictureSource(path, plates)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if path.suffix.lower() in set(IMAGE_SUFFIXES).difference(CLIP_SUFFIXES, ANIMATED):
        raise UserError(f"{path}: a single picture; give a clip or a folder of pictures")
    return ClipSource(path, plates)


# By number


class FrameReader:
    """The frames of a clip or folder, in any order, by the numbers that `open_frames` gives them.

    May be used from several threads. A clip is sought by the times of its packets; one whose
    packets have no usable times is decoded from its beginning for every frame that is not the next.
    Raises UserError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_folder = path.is_dir()
        self._lock = Lock()
        self._cache: OrderedDict[int, Frame] = OrderedDict()
        if self.is_folder:
            self.files = image_files(path)
            self.count = len(self.files)
            if not self.files:
                raise UserError(f"{path}: no pictures in this folder")
            self.rate: float | None = None  # frames a second, on average; of a folder: none
            return
        with open_frames(path) as source:  # raises UserError for a clip that cannot be read
            self._color, self.rate = source.clip.color, float(source.clip.rate)
        self._times = _packet_times(path)
        self.count = len(self._times)
        self._decoded: Iterator[Frame] = iter(())
        self._next = -1  # the number of the frame that `_decoded` gives next

    def read(self, number: int) -> Frame:
        """Frame `number`, from 0. Raises BadFileError when it is missing or broken."""
        if not 0 <= number < self.count:
            raise BadFileError(self.path, f"no frame {number}, there are {self.count}")
        with self._lock:
            if number not in self._cache:
                read = self._read_picture if self.is_folder else self._seek
                frame = self._cache[number] = read(number)
                room = min(CACHED_FRAMES, max(1, CACHED_BYTES // frame.image.nbytes))
                while len(self._cache) > room:
                    self._cache.popitem(last=False)
            self._cache.move_to_end(number)
            return self._cache[number]

    def _read_picture(self, number: int) -> Frame:
        file = self.files[number]
        return Frame(file.name, number, None, picture_folder.read_picture(file))

    def _seek(self, number: int) -> Frame:
        if self._next < 0 or not self._next <= number <= self._next + MAX_DECODE_AHEAD:
            self._start_decoding(number)
        for frame in self._decoded:
            self._next = frame.index + 1
            if frame.index == number:
                return frame
            if frame.index > number:
                break
        self._next = -1
        raise BadFileError(self.path, f"frame {number} cannot be decoded")

    def _start_decoding(self, number: int) -> None:
        """Makes `_decoded` yield the frames from `number` or the clip's beginning on."""
        sound = all(time is not None for time in self._times) and _is_increasing(self._times)
        if number and sound:
            self._decoded = _decode_from(self.path, self._times, number, self._color)
            self._next = number
        else:
            self._decoded = _decode_all(self.path)
            self._next = 0


def _packet_times(path: Path) -> list[int | None]:
    """The times of all pictures, in presentation order; nothing is decoded."""
    times = [packet.pts for packet in packet_times(path) if not packet.is_discard]
    return sorted(times, key=lambda time: -1 if time is None else time)


def _is_increasing(times: list[int]) -> bool:
    return all(a < b for a, b in pairwise(times))


def _decode_all(path: Path) -> Iterator[Frame]:
    """All frames; what decodes them ends with this generator."""
    with open_frames(path) as source:
        yield from source


def _decode_from(path: Path, times: list[int], number: int, color: ColorTags) -> Iterator[Frame]:
    """The frames from `number` on."""
    numbers = {time: index for index, time in enumerate(times)}
    with open_clip(path) as container:
        stream = picture_stream(container, path)
        stream.thread_type = "AUTO"
        for back in STEPS_BACK:  # some containers seek to a place behind the one asked for
            time = times[number - back] if number > back else min(0, times[0])
            with contextlib.suppress(av.FFmpegError):  # else it is decoded from where it is
                container.seek(time, stream=stream, backward=True)
            pictures = decode_leniently(container, stream)
            first = next(pictures, None)
            if first is not None and numbers.get(first.pts, number + 1) <= number:
                break
        if first is None:
            return
        orientation = Orientation(first, path)
        for picture in chain([first], pictures):
            index = numbers.get(picture.pts)
            if index is None or index < number:
                continue
            image = orientation.upright(to_rgb(picture, color))
            yield Frame(path.name, index, picture.pts, image, picture.duration or None)


# Written


@contextmanager
def open_writer(
    path: Path,
    source: FrameSource,
    output: OutputConfig,
    marking: Marking,
    settings: str = "",
    part: Part | None = None,
) -> Iterator[FrameWriter]:
    """A writer of the frames of `source` to `path`: a clip by its suffix, without one a folder.

    The result is marked by `marking` and appears whole when the context ends without an exception;
    until then an older result stays. It replaces nothing but an older result, recognized by its
    comment up to the first bracket or semicolon. With `output.mask` the mask is written `beside`
    it. An unfinished folder is resumed when `settings`, all that it was made with, are the same.
    With `part` the frames of that part alone are written, and `join_parts` makes the result.
    `settings`, then JSON of an object, must be those of the other parts. Raises UserError before
    anything is written when encoder, container, sound or path do not fit together, or another
    process writes the same result.
    """
    with _writer(path, source, output, marking, settings, part) as result:
        # The mask's part ends before the result's.
        if not output.mask or (part is not None and result.is_complete):
            yield result
            return
        mask_path, plain = beside(path, "mask"), _of_mask(output)
        with _writer(mask_path, source, plain, marking, settings, part, is_mask=True) as mask:
            yield _WriterWithMask(result, mask)


def join_parts(
    path: Path, source: FrameSource, output: OutputConfig, marking: Marking, count: int
) -> str | None:
    """Makes the result `path` of its `count` parts, once all have ended; nothing is encoded again.

    Returns why it was not made, where other workers are still to end, or another one makes it.
    Raises UserError.
    """
    partial = partial_of(path)
    if partial.exists() and (left := parts.missing(partial, count)):
        return f"{len(left)} of {count} shards have not ended"
    try:
        with locked_result(path, "joining shards"):
            if not partial.exists():
                return "another worker has joined the shards"
            results = [(path, output, False)]
            if output.mask:  # comes first: while the result's parts are there, joining goes on
                results.insert(0, (beside(path, "mask"), _of_mask(output), True))
            for file, settings, is_mask in results:
                check_output(file, marking)
                if not partial_of(file).exists():
                    continue  # it was joined by a worker that was killed then
                if file.suffix:
                    join_clip(file, source, settings, marking, count, is_mask)
                else:
                    picture_folder.join_pictures(file, marking)
    except InUseError as error:
        return f"{error}; that one joins the shards"
    return None


@contextmanager
def open_mask_writer(path: Path, source: FrameSource) -> Iterator[FrameWriter]:
    """A writer of masks, gray frames of `source`, to the clip at `path`: lossless, without sound.

    The clip appears whole when the context ends without an exception. Raises UserError before
    anything is written when the container cannot hold FFV1, or something is there already.
    """
    output = OutputConfig(codec="ffv1", pixel_format="gray", fps=MASK_RATE)
    with _writer(path, source, output, Unmarked(), "", None, is_mask=True) as mask:
        yield mask


def _of_mask(output: OutputConfig) -> OutputConfig:
    return dataclasses.replace(output, alpha=False, pixel_format=None)


def beside(path: Path, what: str) -> Path:
    """The path of a companion of the result `path`: mask of result.mp4 is result_mask.mp4."""
    return path.with_name(f"{path.stem}_{what}{path.suffix}")


class _WriterWithMask(FrameWriter):
    """Writes the frames of a result to one writer and their masks to another."""

    def __init__(self, result: FrameWriter, mask: FrameWriter) -> None:
        self._result, self._mask = result, mask

    def write(self, frame: Frame) -> None:
        self._result.write(frame)
        self._mask.write(frame.mask())

    def has(self, frame: Frame) -> bool:
        return self._result.has(frame) and self._mask.has(frame)

    @property
    def is_complete(self) -> bool:
        return self._result.is_complete and self._mask.is_complete


class _WriterOfPart(FrameWriter):
    """Leaves out the frames of other parts."""

    def __init__(self, writer: FrameWriter, own: FrameRanges) -> None:
        self._writer, self._own = writer, own

    def write(self, frame: Frame) -> None:
        self._writer.write(frame)

    def has(self, frame: Frame) -> bool:
        return frame.index not in self._own or self._writer.has(frame)


class _EndedPart(FrameWriter):
    """Wants no frame any more."""

    is_complete = True

    def write(self, frame: Frame) -> None: ...

    def has(self, frame: Frame) -> bool:
        return True


@contextmanager
def _writer(
    path: Path,
    source: FrameSource,
    output: OutputConfig,
    marking: Marking,
    settings: str,
    part: Part | None,
    is_mask: bool = False,
) -> Iterator[FrameWriter]:
    if path.resolve() == source.path.resolve():
        raise UserError(f"output.path={path}: that is the input")
    is_folder = not path.suffix
    with ExitStack() as stack:
        stack.enter_context(locked_result(path, "converting", part and str(part.shard)))
        check_output(path, marking)
        if part is not None:
            with beginning_result(path):
                parts.begin(partial_of(path), settings, part.shard)
            if parts.has_ended(partial_of(path), part.shard):
                yield _EndedPart()
                return
        if is_folder:
            writer = picture_folder.picture_writer(
                path, source, output, marking, settings, is_mask, part
            )
        elif part is None:
            writer = clip_writer(path, source, output, marking, is_mask)
        else:
            writer = clip_part_writer(path, source, output, part, is_mask)
        with writer as result:
            yield result if part is None else _WriterOfPart(result, part.own)
        if part is not None:
            parts.end(partial_of(path), part.shard)


def check_output(path: Path, marking: Marking, setting: str = "output.path") -> None:
    """Raises UserError unless `path` is a clip or folder to come, or an older result.

    `setting` is what the user names it with.
    """
    suffix, is_folder = path.suffix.lower(), not path.suffix
    if suffix and suffix not in OUTPUTS:
        raise UserError(
            f"{setting}={path}: expected one of {' '.join(OUTPUTS)}, or a folder for pictures"
        )
    if not path.exists():
        return
    if path.is_dir() != is_folder:
        kind = "file" if is_folder else "folder"
        raise UserError(f"{setting}={path}: a {kind} of that name exists")
    mark = re.split(r"[(;]", marking.comment)[0]  # before the version
    files = sorted(path.iterdir()) if is_folder else [path]
    ours = _is_ours_in_folder if is_folder else _is_our_clip
    for file in files:
        if not mark or not ours(file, mark):
            raise UserError(
                f"{file}: not an earlier result, so it is not replaced; move it or set {setting}="
            )


def _is_our_clip(path: Path, mark: str) -> bool:
    return clip_comment(path).startswith(mark)


def _is_ours_in_folder(path: Path, mark: str) -> bool:
    if not path.is_file():
        return False
    return path.name in FOLDER_SEALS or picture_folder.is_marked_picture(path, mark)
