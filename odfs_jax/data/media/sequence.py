"""Writing frames as a folder of pictures: 8-bit PNG or 16-bit TIFF, resumable.

The pictures are collected in `<folder>.partial`, which takes the place of `<folder>` when it is
complete. A run that was stopped goes on there, if it has the same settings.
"""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tifffile

from odfs_jax.config import OutputConfig
from odfs_jax.data.media import matte, png, xmp, yuv
from odfs_jax.data.media.frames import Frame, FrameSource, FrameWriter
from odfs_jax.data.workspace import image_files
from odfs_jax.errors import UserError
from odfs_jax.provenance.marking import Marking

log = logging.getLogger(__name__)

SUFFIXES = {"png": ".png", "tiff": ".tif"}
COMMENT = "Comment"  # the PNG specification's keyword for it
SETTINGS = ".settings"  # in a partial folder: what its pictures were made with
PARTIAL, OLD = ".partial", ".old.partial"


@contextmanager
def sequence_writer(
    path: Path,
    source: FrameSource,
    output: OutputConfig,
    marking: Marking,
    settings: str,
    is_mask: bool = False,
) -> Iterator[FrameWriter]:
    """A writer of pictures into the folder `path`, which appears only when the block ends well.

    `settings` say all that a picture depends on: those in the partial folder are kept if they were
    made with the same. Raises UserError.
    """
    if output.pictures not in SUFFIXES:
        raise UserError(f"output.pictures={output.pictures}: expected {' or '.join(SUFFIXES)}")
    partial = path.with_name(path.name + PARTIAL)
    _prepare(partial, settings)
    try:
        yield PictureWriter(partial, source, output, marking, is_mask)
    finally:
        if not image_files(partial):  # nothing to go on with
            shutil.rmtree(partial)
    _finish(partial, path, marking)


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
        self._colour = source.clip.colour if source.clip else yuv.ColourTags()
        self._earlier = {file.name for file in image_files(folder)}
        self._owners: dict[str, str] = {}  # of the names, to notice when two pictures want one

    def has(self, frame: Frame) -> bool:
        return self._name(frame) in self._earlier

    def write(self, frame: Frame) -> None:
        name = self._name(frame)
        temporary = self._folder / f".{name}"
        if self._suffix == ".png":
            temporary.write_bytes(self._png(frame))
        else:
            self._write_tiff(temporary, self._deep(frame))
        temporary.replace(self._folder / name)

    def _name(self, frame: Frame) -> str:
        stem = Path(frame.file).stem
        name = (stem if frame.pts is None else f"{stem}_{frame.index:06d}") + self._suffix
        if self._owners.setdefault(name, frame.file) != frame.file:
            raise UserError(f"{frame.file}: a second picture would be written as {name}; rename it")
        return name

    def _png(self, frame: Frame) -> bytes:
        image = matte.cut_out(frame) if self._alpha else frame.image
        content = png.encode(image[..., 0] if self._is_mask else image)
        if self._marking.xmp:
            content = xmp.add_to_png(content, self._marking.xmp)
        if self._marking.comment:
            content = png.with_text(content, COMMENT, self._marking.comment)
        return content

    def _deep(self, frame: Frame) -> np.ndarray:
        """uint16 [H, W] or [H, W, C]; what conversion left alone with all the source's bits."""
        if self._is_mask:
            return frame.image[..., 0].astype(np.uint16) * 257
        if self._alpha:
            return matte.cut_out(frame).astype(np.uint16) * 257
        image = frame.image.astype(np.uint16) * 257
        if frame.stored is None:
            return image
        stored = yuv.to_rgb16(frame.stored, self._colour)
        untouched = frame.untouched()
        return stored if untouched is None else np.where(untouched[..., None], stored, image)

    def _write_tiff(self, path: Path, image: np.ndarray) -> None:
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
            extratags=marks if self._marking.xmp else None,
        )


def _finish(partial: Path, path: Path, marking: Marking) -> None:
    """Signs what is in `partial` and puts it in the place of an older result at `path`."""
    for file in partial.iterdir():
        if file.name.startswith(".") and file.name != SETTINGS:
            file.unlink()  # half a picture of a killed run
    marking.seal_folder(partial)
    old = path.with_name(path.name + OLD)
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        os.replace(path, old)
    (partial / SETTINGS).unlink()
    os.replace(partial, path)
    shutil.rmtree(old, ignore_errors=True)


def is_marked_picture(path: Path, mark: str) -> bool:
    """True for a picture of ours whose comment begins with `mark`."""
    if path.suffix == ".png":
        with path.open("rb") as file:
            head = file.read(1 << 16)  # the comment stands right after the header
        return head.startswith(png.SIGNATURE) and f"{COMMENT}\0{mark}".encode("latin-1") in head
    try:
        with tifffile.TiffFile(path) as tiff:
            return tiff.pages.first.description.startswith(mark)
    except (ValueError, OSError):
        return False


def _prepare(partial: Path, settings: str) -> None:
    """Has `partial` hold pictures made with `settings`, or none."""
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
