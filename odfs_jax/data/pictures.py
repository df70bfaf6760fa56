"""A folder of pictures, read as frames and written as PNGs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from odfs_jax.data import atomic, png
from odfs_jax.data.frames import Frame, FrameSource, FrameWriter
from odfs_jax.data.workspace import IMAGE_SUFFIXES, image_files
from odfs_jax.errors import BadFileError, UserError

JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
COMMENT = "Comment"  # the PNG specification's keyword for it


class PictureSource(FrameSource):
    """The pictures of a folder by name. Raises UserError when none can be read."""

    is_folder = True
    clip = None

    def __init__(self, path: Path) -> None:
        self.path = path
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
        for index, file in enumerate(files):
            try:
                image = read_picture(file)
            except BadFileError as error:
                self.bad.append(error)
                continue
            yield Frame(file.name, index, None, image)


def read_picture(path: Path) -> np.ndarray:
    """uint8 RGB [H, W, 3], upright (EXIF), 16 bits reduced to 8. Raises BadFileError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadFileError(path, f"cannot be read ({error.strerror})") from error
    _check_whole(path, content)
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:  # an empty file, or a size beyond OpenCV's limit
        raise BadFileError(path, "not a picture that can be read") from error
    if image is None:
        raise BadFileError(path, "not a picture that can be read")
    return np.ascontiguousarray(image[..., ::-1])


@contextmanager
def picture_writer(path: Path, comment: str) -> Iterator[FrameWriter]:
    """A writer of PNGs into the folder `path`, which appears only when the block ends well."""
    with atomic.replacing_folder(path) as temporary:
        yield PictureWriter(temporary, comment)


class PictureWriter(FrameWriter):
    """One PNG a frame: <picture>.png for pictures, <clip>_000123.png for clips."""

    def __init__(self, folder: Path, comment: str) -> None:
        self._folder, self._comment = folder, comment

    def write(self, frame: Frame) -> None:
        stem = Path(frame.file).stem
        name = f"{stem}.png" if frame.pts is None else f"{stem}_{frame.index:06d}.png"
        target = self._folder / name
        if target.exists():
            raise UserError(f"{frame.file}: a second picture would be written as {name}; rename it")
        target.write_bytes(png.with_text(png.encode(frame.image), COMMENT, self._comment))


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
