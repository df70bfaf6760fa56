"""A folder of pictures, read as frames."""

from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np

from odfs_jax.data.media import png
from odfs_jax.data.media.frames import Frame, FrameSource
from odfs_jax.data.prefetch import cores, side_by_side
from odfs_jax.data.workspace import IMAGE_SUFFIXES, image_files
from odfs_jax.errors import BadFileError, UserError

READ_AT_ONCE = 4  # pictures, where there are as many cores
JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"


class PictureSource(FrameSource):
    """The pictures of a folder by name. Raises UserError when none can be read.

    With `plates` its frames keep all 16 bits of pictures that have them.
    """

    is_folder = True
    clip = None

    def __init__(self, path: Path, plates: bool = False) -> None:
        self.path = path
        self._plates = plates
        self.bad: list[BadFileError] = []
        self._files: list[Path] | None = image_files(path)
        if not self._files:
            raise UserError(f"{path}: no pictures in this folder ({' '.join(IMAGE_SUFFIXES)})")
        self.count = len(self._files)
        self.height, self.width = _first_readable(self._files, path).shape[:2]

    def close(self) -> None:
        """Nothing to close: each picture is closed once read."""

    def __iter__(self) -> Iterator[Frame]:
        if self._files is None:
            raise RuntimeError(f"{self.path} was iterated before; open it again")
        files, self._files = self._files, None
        chosen = (
            (index, file)
            for index, file in enumerate(files[: self._stop])
            if not self._left_out(file.name, index)
        )
        for frame in side_by_side(self._frame, chosen, min(cores(), READ_AT_ONCE)):
            if isinstance(frame, BadFileError):
                self.bad.append(frame)
            else:
                yield frame

    def _frame(self, numbered: tuple[int, Path]) -> Frame | BadFileError:
        index, file = numbered
        try:
            deep = _read(file)
        except BadFileError as error:
            return error
        image, stored = _eight_bits(deep), None
        if self._plates and deep.dtype == np.uint16:
            stored = av.VideoFrame.from_ndarray(deep, format="rgb48le")
        return Frame(file.name, index, None, image, plate=image, stored=stored)


def read_picture(path: Path) -> np.ndarray:
    """uint8 RGB [H, W, 3], upright (EXIF), 16 bits reduced to 8. Raises BadFileError."""
    return _eight_bits(_read(path))


def _read(path: Path) -> np.ndarray:
    """RGB [H, W, 3], upright, uint8 or uint16 as the file has it. Raises BadFileError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadFileError(path, f"cannot be read ({error.strerror})") from error
    _check_whole(path, content)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:  # an empty file, or a size beyond OpenCV's limit
        raise BadFileError(path, "not a picture that can be read") from error
    if image is None:
        raise BadFileError(path, "not a picture that can be read")
    if image.dtype not in (np.uint8, np.uint16):
        raise BadFileError(path, f"{image.dtype} pixels; expected 8 or 16 bits")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _eight_bits(image: np.ndarray) -> np.ndarray:
    """uint8, the 16-bit values rounded."""
    if image.dtype == np.uint8:
        return image
    return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _first_readable(files: list[Path], path: Path) -> np.ndarray:
    for file in files:
        try:
            return read_picture(file)
        except BadFileError as error:
            last = error
    raise UserError(f"{path}: none of {len(files)} pictures can be read; the last: {last}")


def _check_whole(path: Path, content: bytes) -> None:
    """OpenCV fills what is missing from a cut file with grey; that must not pass for a frame."""
    if content.startswith(png.SIGNATURE):
        try:
            png.chunks(content)
        except ValueError as error:
            raise BadFileError(path, str(error)) from error
    elif content.startswith(JPEG_START) and content.rfind(JPEG_END) < content.rfind(JPEG_SCAN):
        raise BadFileError(path, "truncated JPEG (no end after its last scan)")
