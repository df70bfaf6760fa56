"""Single frames of a clip or folder, in any order, by the numbers that `open_frames` gives."""

from collections import OrderedDict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from threading import Lock

import av

from odfs_jax.data.media.frames import Frame
from odfs_jax.data.media.pictures import read_picture
from odfs_jax.data.media.video import open_frames
from odfs_jax.data.media.video_read import ClipSource, Turn
from odfs_jax.data.media.yuv import ColourTags, to_rgb
from odfs_jax.data.workspace import image_files
from odfs_jax.errors import BadFileError, UserError

KEPT = 8  # frames in memory
NEAR = 32  # frames ahead that are reached by decoding on rather than by seeking


class FrameReader:
    """The frames of `path` by number. May be used from several threads. Raises UserError.

    A clip is sought by the times of its packets; one whose packets have no usable times is decoded
    from its beginning for every frame that is not the next.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_folder = path.is_dir()
        self._lock = Lock()
        self._kept: OrderedDict[int, Frame] = OrderedDict()
        if self.is_folder:
            self.files = image_files(path)
            self.count = len(self.files)
            if not self.files:
                raise UserError(f"{path}: no pictures in this folder")
            return
        with open_frames(path) as source:  # which says what is wrong with a clip
            self._colour = source.clip.colour
        self._times = _packet_times(path)
        self.count = len(self._times)
        self._coming: Iterator[Frame] = iter(())
        self._next = -1  # the number of the frame that `_coming` gives next

    def read(self, number: int) -> Frame:
        """Frame `number`, from 0. Raises BadFileError when there is none, or a broken one."""
        if not 0 <= number < self.count:
            raise BadFileError(self.path, f"no frame {number}, there are {self.count}")
        with self._lock:
            if number not in self._kept:
                self._kept[number] = self._picture(number) if self.is_folder else self._seek(number)
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(number)
            return self._kept[number]

    def _picture(self, number: int) -> Frame:
        file = self.files[number]
        return Frame(file.name, number, None, read_picture(file))

    def _seek(self, number: int) -> Frame:
        if self._next < 0 or not self._next <= number <= self._next + NEAR:
            self._start(number)
        for frame in self._coming:
            self._next = frame.index + 1
            if frame.index == number:
                return frame
            if frame.index > number:
                break
        self._next = -1
        raise BadFileError(self.path, f"frame {number} cannot be decoded")

    def _start(self, number: int) -> None:
        """Has `_coming` give frames from `number`, or one before it, on."""
        sound = all(time is not None for time in self._times) and _rises(self._times)
        if number and sound:
            self._coming = _from(self.path, self._times, number, self._colour)
            self._next = number
        else:
            self._coming = iter(ClipSource(self.path))
            self._next = 0


def _packet_times(path: Path) -> list[int | None]:
    """The times of all pictures, in order of presentation; nothing is decoded."""
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        times = [
            packet.pts
            for packet in container.demux(stream)
            if packet.size and not packet.is_discard
        ]
    return sorted(times, key=lambda time: -1 if time is None else time)


def _rises(times: list[int]) -> bool:
    return all(a < b for a, b in pairwise(times))


def _from(path: Path, times: list[int], number: int, colour: ColourTags) -> Iterator[Frame]:
    """The frames from `number` on."""
    numbers = {time: index for index, time in enumerate(times)}
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        stream.thread_type = "AUTO"
        container.seek(times[number], stream=stream, backward=True)
        turn = None
        for picture in container.decode(stream):
            if turn is None:
                turn = Turn(picture, path)
            index = numbers.get(picture.pts)
            if index is None or index < number:
                continue
            image = turn.upright(to_rgb(picture, colour))
            yield Frame(path.name, index, picture.pts, image, picture.duration or None)
