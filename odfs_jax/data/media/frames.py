"""A clip or a folder of pictures as the rest of the program sees it: a sequence of RGB frames."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
import numpy as np

from odfs_jax.data.media.yuv import ColorTags
from odfs_jax.errors import BadFileError

CUT_THRESHOLD = 32.0  # mean difference of the pixels of two frames, of 255, that means a cut
SAMPLES = 32  # rows and columns of a frame that are compared, about


@dataclass(frozen=True)
class Frame:
    """One frame, upright.

    `file` is the plain name of the clip or of the picture; `index` the running number from 0 (for
    a folder the position in name order, unreadable pictures counted); `pts` and `duration` are in
    the time base of the source and None for pictures; `image` is uint8 RGB [H, W, 3].

    `plate` is `image` as it was read and `stored` the same picture as the source holds it (planes
    of a clip, 16 bits of a picture; None: `image` is all there is): with both, a writer keeps every
    pixel that conversion left alone as it was, at any depth. `profile` is the ICC profile of an RGB
    picture: what its numbers mean. Conversion fills in `weights`, uint8
    [H, W]: the share of the new face in each pixel, 255 for all; None where no face is swapped.
    """

    file: str
    index: int
    pts: int | None
    image: np.ndarray
    duration: int | None = None
    plate: np.ndarray | None = None
    stored: av.VideoFrame | None = None
    weights: np.ndarray | None = None
    profile: bytes | None = None

    def untouched(self) -> np.ndarray | None:
        """bool [H, W]: the pixels that still are the source's; None: all of them."""
        if self.plate is None or self.image is self.plate:
            return None
        return (self.image == self.plate).all(axis=2)

    def cutout(self) -> np.ndarray:
        """The new face alone, uint8 RGBA [H, W, 4]: `weights` as straight alpha, 0 elsewhere.

        Its color is the one that gives `image` again when it is composited over the source.
        """
        height, width, _ = self.image.shape
        result = np.zeros((height, width, 4), np.uint8)
        if self.weights is None:
            return result
        rows, cols = np.nonzero(self.weights)
        weights = self.weights[rows, cols]
        below, merged = (p[rows, cols].astype(np.float32) for p in (self.plate, self.image))
        alpha = weights[:, None].astype(np.float32) / 255
        color = np.rint(below + (merged - below) / alpha).clip(0, 255)
        result[rows, cols, :3], result[rows, cols, 3] = color, weights
        return result

    def mask(self) -> "Frame":
        """This frame with `weights` for a picture: gray, black where no face is swapped."""
        weights = self.weights
        if weights is None:
            weights = np.zeros(self.image.shape[:2], np.uint8)
        image = np.repeat(weights[..., None], 3, axis=2)
        return dataclasses.replace(self, image=image, plate=None, stored=None)


@dataclass(frozen=True)
class ClipFormat:
    """The properties that a result shares with its clip, besides size, times and sound."""

    time_base: Fraction  # seconds
    rate: Fraction  # frames per second, on average
    pixel_aspect: Fraction | None  # width / height of a pixel, upright
    pixel_format: str | None  # libav's name, such as yuv420p; None: whatever suits pictures
    color: ColorTags
    fields: str | None = None  # of an interlaced clip their order, see `fields`
    start: Fraction = Fraction(0)  # seconds that pass before the clip begins; a result has none


class FrameSource(ABC):
    """Frames in presentation order. A context manager, to be iterated once."""

    path: Path
    width: int  # of an upright frame; for a folder, of its first readable picture
    height: int
    count: int | None  # an estimate, for progress
    is_folder: bool
    clip: ClipFormat | None  # None for a folder
    bad: list[BadFileError]  # filled while iterating: unreadable pictures, damage in a clip

    _predicate: Callable[[str, int], bool] | None = None
    _stop: int | None = None
    _start: int | None = None

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]: ...

    @abstractmethod
    def exact_count(self) -> int:
        """How many frames there are. All of a clip's file is read for that, nothing is decoded."""

    def select(
        self,
        predicate: Callable[[str, int], bool] | None,
        stop: int | None = None,
        start: int | None = None,
    ) -> None:
        """Restricts the iteration to frames with `predicate(file, index)`, of numbers below `stop`.

        To be called before iterating. A frame that is left out costs little, but a clip still
        decodes it. With `start` all before it is left out, and passed over as far as the clip's key
        frames and times allow; frames then have the numbers of their packets, and one that is
        missing raises UserError, for by counting all after it would have other numbers.
        """
        self._predicate, self._stop, self._start = predicate, stop, start

    def _is_skipped(self, file: str, index: int) -> bool:
        if self._start is not None and index < self._start:
            return True
        return self._predicate is not None and not self._predicate(file, index)

    @abstractmethod
    def close(self) -> None:
        """Releases the files and threads that the source holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FrameWriter(ABC):
    """Takes the frames of a result, in presentation order.

    `is_complete`: an interrupted run has written all frames that this one would.
    """

    is_complete = False

    @abstractmethod
    def write(self, frame: Frame) -> None:
        """Adds `frame`: its image may be changed, everything else as the source gave it."""

    def has(self, frame: Frame) -> bool:
        """True when an interrupted run with the same settings has written `frame` already."""
        return False


def subsampled(image: np.ndarray) -> np.ndarray:
    """Every n-th pixel of `image` uint8 [H, W, 3] as float32 [h, w, 3], for `is_scene_cut`.

    h and w are between SAMPLES and 2 SAMPLES where the image has that many pixels.
    """
    steps = (max(1, size // SAMPLES) for size in image.shape[:2])
    return image[tuple(slice(None, None, step) for step in steps)].astype(np.float32)


def is_scene_cut(before: np.ndarray, after: np.ndarray) -> bool:
    """True when two `subsampled` frames, float32 [h, w, 3], are of different shots."""
    return before.shape != after.shape or float(np.abs(after - before).mean()) > CUT_THRESHOLD
