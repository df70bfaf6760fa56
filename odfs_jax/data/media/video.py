"""Frames in and out: a clip or a folder of pictures, by what the path is.

with open_frames(path) as source, open_writer(result, source, output, marking) as writer:
    for frame in source:
        writer.write(dataclasses.replace(frame, image=changed(frame.image)))

A clip keeps its times, size, pixel shape, colour tags, chroma layout, bit depth (as far as the
encoder has them) and all its sound. Faces are swapped in 8-bit RGB; what is left alone keeps the
samples of the source, bit for bit where the encoder loses nothing. A rotated clip comes out
upright. Not kept: subtitles, timecode and other data tracks, chapters, HDR side data.
"""

import dataclasses
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import av

from odfs_jax.config import OutputConfig
from odfs_jax.data.media import matte, pictures, sequence
from odfs_jax.data.media.frames import Frame, FrameSource, FrameWriter
from odfs_jax.data.media.video_read import ClipSource
from odfs_jax.data.media.video_write import clip_writer
from odfs_jax.data.workspace import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from odfs_jax.errors import UserError
from odfs_jax.provenance.marking import FOLDER_SEALS, Marking

__all__ = ["Frame", "FrameSource", "FrameWriter", "beside", "open_frames", "open_writer"]


def open_frames(path: Path, plates: bool = False) -> FrameSource:
    """The frames of the clip or folder of pictures at `path`. Raises UserError.

    With `plates` the frames carry what a writer needs for an exact copy.
    """
    if path.is_dir():
        return pictures.PictureSource(path, plates)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise UserError(f"{path}: a single picture; give a clip or a folder of pictures")
    return ClipSource(path, plates)


@contextmanager
def open_writer(
    path: Path,
    source: FrameSource,
    output: OutputConfig,
    marking: Marking,
    settings: str = "",
) -> Iterator[FrameWriter]:
    """A writer of the frames of `source` to `path`: a clip by its suffix, without one a folder.

    The result is marked by `marking` and appears whole when the context ends without an exception;
    until then an older result stays. It replaces nothing but an older result, known by its comment
    up to the first bracket or semicolon. With `output.mask` the mask is written `beside` it. A
    folder that was not finished is gone on with when all that made it, `settings`, is the same.
    Raises UserError before anything is written when encoder, container, sound or path do not go
    together.
    """
    suffix = path.suffix.lower()
    if suffix and suffix not in VIDEO_SUFFIXES:
        raise UserError(
            f"output.path={path}: expected one of {' '.join(VIDEO_SUFFIXES)}, or a folder for "
            "pictures"
        )
    with _writer(path, source, output, marking, settings) as result:
        if not output.mask:
            yield result
            return
        plain = dataclasses.replace(output, alpha=False, pixel_format=None)
        with _writer(beside(path, "mask"), source, plain, marking, settings, True) as mask:
            yield WithMask(result, mask)


class WithMask(FrameWriter):
    """Writes the frames of a result and, apart, their masks."""

    def __init__(self, result: FrameWriter, mask: FrameWriter) -> None:
        self._result, self._mask = result, mask

    def write(self, frame: Frame) -> None:
        self._result.write(frame)
        self._mask.write(matte.mask_of(frame))

    def has(self, frame: Frame) -> bool:
        return self._result.has(frame) and self._mask.has(frame)


def beside(path: Path, what: str) -> Path:
    """Where `what` goes that belongs to the result `path`: result.mp4 has result_mask.mp4."""
    return path.with_name(f"{path.stem}_{what}{path.suffix}")


def _writer(
    path: Path,
    source: FrameSource,
    output: OutputConfig,
    marking: Marking,
    settings: str,
    is_mask: bool = False,
) -> AbstractContextManager[FrameWriter]:
    if path.resolve() == source.path.resolve():
        raise UserError(f"output.path={path}: that is the input")
    is_folder = not path.suffix
    if path.exists():
        mark = re.split(r"[(;]", marking.comment)[0]  # before the version
        _refuse_foreign(path, mark, is_folder)
    if is_folder:
        return sequence.sequence_writer(path, source, output, marking, settings, is_mask)
    return clip_writer(path, source, output, marking, is_mask)


def _refuse_foreign(path: Path, mark: str, is_folder: bool) -> None:
    if path.is_dir() != is_folder:
        kind = "file" if is_folder else "folder"
        raise UserError(f"output.path={path}: a {kind} of that name exists")
    files = sorted(path.iterdir()) if is_folder else [path]
    ours = _is_ours_in_folder if is_folder else _is_our_clip
    for file in files:
        if not mark or not ours(file, mark):
            raise UserError(
                f"{file}: not an earlier result, so it is not replaced; move it or set output.path="
            )


def _is_our_clip(path: Path, mark: str) -> bool:
    try:
        with av.open(str(path)) as container:
            tags = {key.lower(): value for key, value in container.metadata.items()}
            return tags.get("comment", "").startswith(mark)
    except (av.FFmpegError, OSError):
        return False


def _is_ours_in_folder(path: Path, mark: str) -> bool:
    if not path.is_file():
        return False
    return path.name in FOLDER_SEALS or sequence.is_marked_picture(path, mark)
