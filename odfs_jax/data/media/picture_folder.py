"""A folder of pictures, read as frames and written: 8-bit PNG or 16-bit TIFF, resumable.

What is written is collected in `<folder>.partial`, which takes the place of `<folder>` when it is
complete. The next run with the same settings resumes one that was stopped.
"""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np

from odfs_jax.config import OutputConfig
from odfs_jax.data import foreign
from odfs_jax.data.media import picture, png, xmp, yuv
from odfs_jax.data.media.frames import Frame, FrameSource, FrameWriter
from odfs_jax.data.media.marking import Marking
from odfs_jax.data.media.parts import MARK, SETTINGS, Part, partial_of
from odfs_jax.data.parallel import cores, parallel_map
from odfs_jax.data.workspace import IMAGE_SUFFIXES, image_files, log_passed_over
from odfs_jax.errors import BadFileError, UserError

log = logging.getLogger(__name__)

READ_AT_ONCE = 4  # pictures, where there are as many cores

SUFFIXES = {"png": ".png", "tiff": ".tif"}
COMMENT = "Comment"  # the PNG specification's keyword for it
OLD = ".old.partial"


# Reading


class PictureSource(FrameSource):
    """The pictures of a folder, by name. Raises UserError when none can be read.

    With `plates` the frames keep all 16 bits of pictures that have them.
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
        log_passed_over(path, IMAGE_SUFFIXES)
        self.count = len(self._files)
        self.height, self.width = _first_readable(self._files, path).shape[:2]

    def exact_count(self) -> int:
        return self.count

    def close(self) -> None:
        """Does nothing: each picture is closed as soon as it is read."""

    def __iter__(self) -> Iterator[Frame]:
        if self._files is None:
            raise RuntimeError(f"{self.path} was iterated before; open it again")
        files, self._files = self._files, None
        chosen = (
            (index, file)
            for index, file in enumerate(files[: self._stop])
            if not self._is_skipped(file.name, index)
        )
        for frame in parallel_map(self._frame, chosen, min(cores(), READ_AT_ONCE)):
            if isinstance(frame, BadFileError):
                self.bad.append(frame)
            else:
                yield frame

    def _frame(self, numbered: tuple[int, Path]) -> Frame | BadFileError:
        index, file = numbered
        try:
            read = picture.read(file)
        except BadFileError as error:
            return error
        image, stored = _eight_bits(read.image), None
        if self._plates and read.image.dtype == np.uint16:
            stored = av.VideoFrame.from_ndarray(read.image, format="rgb48le")
        return Frame(
            file.name, index, None, image, plate=image, stored=stored, profile=read.profile
        )


def read_picture(path: Path) -> np.ndarray:
    """uint8 RGB [H, W, 3], upright (EXIF), 16 bits reduced to 8. Raises BadFileError."""
    return _eight_bits(picture.read(path).image)


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


# Writing


@contextmanager
def picture_writer(
    path: Path,
    source: FrameSource,
    output: OutputConfig,
    marking: Marking,
    settings: str,
    is_mask: bool = False,
    part: Part | None = None,
) -> Iterator[FrameWriter]:
    """A writer of pictures into the folder `path`, which appears once the block ends without error.

    `settings` describe all that a picture depends on: pictures in the partial folder are kept if
    they were made with the same. A `part` must have been begun; the folder then appears with
    `join_pictures`. Raises UserError.
    """
    if output.pictures not in SUFFIXES:
        raise UserError(f"output.pictures={output.pictures}: expected {' or '.join(SUFFIXES)}")
    if source.is_folder:
        _refuse_same_names(image_files(source.path))
    partial = partial_of(path)
    if part is not None:
        yield PictureWriter(partial, source, output, marking, is_mask)
        return
    _prepare(partial, settings)
    try:
        yield PictureWriter(partial, source, output, marking, is_mask)
    finally:
        if not image_files(partial):  # nothing to resume
            shutil.rmtree(partial)
    _finish(partial, path, marking)


def _refuse_same_names(files: list[Path]) -> None:
    """Raises UserError for a.jpg beside a.png: both would be written as a.png."""
    owners: dict[str, Path] = {}
    for file in files:
        other = owners.setdefault(file.stem, file)
        if other is not file:
            raise UserError(
                f"{file}: beside {other.name} a second picture would be written as {file.stem}; "
                "rename one"
            )


class PictureWriter(FrameWriter):
    """One picture a frame: <picture>.png for pictures, <clip>_000123.png for clips."""

    def __init__(
        self,
        folder: Path,
        source: FrameSource,
        output: OutputConfig,
        marking: Marking,
        is_mask: bool,
    ) -> None:
        self._folder, self._marking, self._is_mask = folder, marking, is_mask
        self._suffix, self._alpha = SUFFIXES[output.pictures], output.alpha and not is_mask
        self._color = source.clip.color if source.clip else yuv.ColorTags()
        self._earlier = {file.name for file in image_files(folder)}

    def has(self, frame: Frame) -> bool:
        return self._name(frame) in self._earlier

    def write(self, frame: Frame) -> None:
        name = self._name(frame)
        temporary = self._folder / f".{name}"
        if self._suffix == ".png":
            temporary.write_bytes(self._png(frame))
        else:
            self._write_tiff(temporary, self._deep(frame), frame.profile)
        temporary.replace(self._folder / name)

    def _name(self, frame: Frame) -> str:
        stem = Path(frame.file).stem
        return (stem if frame.pts is None else f"{stem}_{frame.index:06d}") + self._suffix

    def _png(self, frame: Frame) -> bytes:
        image = frame.cutout() if self._alpha else frame.image
        content = png.encode(image[..., 0] if self._is_mask else image)
        if frame.profile and not self._is_mask:
            content = png.with_profile(content, frame.profile)
        if self._marking.xmp:
            content = xmp.add_to_png(content, self._marking.xmp)
        if self._marking.comment:
            content = png.with_text(content, COMMENT, self._marking.comment)
        return content

    def _deep(self, frame: Frame) -> np.ndarray:
        """uint16 [H, W] or [H, W, C]; untouched pixels keep all the source's bits."""
        if self._is_mask:
            return frame.image[..., 0].astype(np.uint16) * 257
        if self._alpha:
            return frame.cutout().astype(np.uint16) * 257
        image = frame.image.astype(np.uint16) * 257
        if frame.stored is None:
            return image
        stored = yuv.to_rgb16(frame.stored, self._color)
        untouched = frame.untouched()
        return stored if untouched is None else np.where(untouched[..., None], stored, image)

    def _write_tiff(self, path: Path, image: np.ndarray, profile: bytes | None) -> None:
        import tifffile  # only where there are TIFFs, for it makes every command start later

        marks = [(xmp.TIFF_TAG, 1, len(self._marking.xmp), self._marking.xmp, True)]
        tifffile.imwrite(
            path,
            image,
            photometric="minisblack" if image.ndim == 2 else "rgb",
            extrasamples=["unassalpha"] if self._alpha else None,
            compression="zlib",
            predictor=2,  # horizontal differences
            description=self._marking.comment or None,
            metadata=None,
            iccprofile=None if self._is_mask else profile,
            extratags=marks if self._marking.xmp else None,
        )


def join_pictures(path: Path, marking: Marking) -> None:
    """Makes the folder `path` of its parts, which have all ended."""
    _finish(partial_of(path), path, marking)


def _finish(partial: Path, path: Path, marking: Marking) -> None:
    """Signs the pictures in `partial` and renames it to `path`, replacing an older result."""
    hidden = [file for file in partial.iterdir() if file.name.startswith(".")]
    marks = [file for file in hidden if file.name.startswith(MARK)]
    for file in hidden:
        if file.name != SETTINGS and file not in marks:
            file.unlink()  # half a picture of a killed run
    marking.seal_folder(partial)
    old = path.with_name(path.name + OLD)
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        os.replace(path, old)
    for file in (*marks, partial / SETTINGS):  # last: what is killed before can be gone on with
        file.unlink()
    os.replace(partial, path)
    shutil.rmtree(old, ignore_errors=True)


def is_marked_picture(path: Path, mark: str) -> bool:
    """True when the comment of the PNG or TIFF at `path` begins with `mark`."""
    if path.suffix == ".png":
        with foreign.open_regular(path) as file:
            head = file.read(1 << 16)  # the comment stands right after the header
        return head.startswith(png.SIGNATURE) and f"{COMMENT}\0{mark}".encode("latin-1") in head
    comment = xmp.tiff_tag(path, xmp.DESCRIPTION_TAG)
    return isinstance(comment, str) and comment.startswith(mark)


def _prepare(partial: Path, settings: str) -> None:
    """Makes the folder `partial`, or keeps its pictures if they were made with `settings`."""
    known = partial / SETTINGS
    if partial.exists():
        if not known.is_file():
            raise UserError(f"{partial}: not left by a run of ours; move it or set output.path=")
        if known.read_text() == settings:
            log.info("%s: going on where an earlier run was stopped", partial)
            return
        log.info("%s: made with other settings; starting again", partial)
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    known.write_text(settings)
