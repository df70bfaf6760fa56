"""A clip or a folder of pictures as the rest of the program sees it: a sequence of RGB frames."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
import numpy as np

from odfs_jax.data.media.yuv import ColourTags
from odfs_jax.errors import BadFileError


@dataclass(frozen=True)
class Frame:
    """One frame, upright.

    `file` is the plain name of the clip or of the picture; `index` the running number from 0 (for
    a folder the position in name order, unreadable pictures counted); `pts` and `duration` are in
    the time base of the source and None for pictures; `image` is uint8 RGB [H, W, 3].

    `plate` is `image` as it was read and `stored` the same picture as the source holds it (planes
    of a clip, 16 bits of a picture; None: `image` is all there is): with both, a writer keeps every
    pixel that conversion left alone as it was, at any depth. Conversion fills in `weights`, uint8
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

    def untouched(self) -> np.ndarray | None:
        """bool [H, W]: the pixels that still are the source's; None: all of them."""
        if self.plate is None or self.image is self.plate:
            return None
        return (self.image == self.plate).all(axis=2)


@dataclass(frozen=True)
class ClipFormat:
    """What a result must share with its clip, besides the size, the times and the sound."""

    time_base: Fraction  # seconds
    rate: Fraction  # frames per second, on average
    pixel_aspect: Fraction | None  # width / height of a pixel, upright
    pixel_format: str | None  # libav's name, such as yuv420p; None: whatever suits pictures
    colour: ColourTags


class FrameSource(ABC):
    """Frames in presentation order. A context manager, to be iterated once."""

    path: Path
    width: int  # of an upright frame; for a folder, of its first readable picture
    height: int
    count: int | None  # an estimate, for progress
    is_folder: bool
    clip: ClipFormat | None  # None for a folder
    bad: list[BadFileError]  # filled while iterating: unreadable pictures, damage in a clip

    _wanted: Callable[[str, int], bool] | None = None
    _stop: int | None = None

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]: ...

    def choose(self, wanted: Callable[[str, int], bool], stop: int | None = None) -> None:
        """Only frames with `wanted(file, index)` come, none from number `stop` on.

        To be called before iterating. What is left out costs little: a clip still decodes it.
        """
        self._wanted, self._stop = wanted, stop

    def _left_out(self, file: str, index: int) -> bool:
        return self._wanted is not None and not self._wanted(file, index)

    @abstractmethod
    def close(self) -> None:
        """Lets go of what the source holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FrameWriter(ABC):
    """Takes the frames of a result, in presentation order."""

    @abstractmethod
    def write(self, frame: Frame) -> None:
        """Adds `frame`: its image may be changed, everything else as the source gave it."""

    def has(self, frame: Frame) -> bool:
        """True when an interrupted run wrote `frame` already, with the same settings."""
        return False
