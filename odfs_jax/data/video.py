"""Frames in and out: a clip or a folder of pictures, by what the path is.

with open_frames(path) as source, open_writer(result, source, output, comment) as writer:
    for frame in source:
        writer.write(dataclasses.replace(frame, image=changed(frame.image)))

A clip keeps its times, size, pixel shape, colour tags, chroma layout, bit depth (as far as the
encoder has them) and all its sound. Frames pass through 8-bit RGB. A rotated clip comes out
upright. Not kept: subtitles, timecode and other data tracks, chapters, alpha, HDR side data.
"""

import re
from contextlib import AbstractContextManager
from pathlib import Path

import av

from odfs_jax.config import OutputConfig
from odfs_jax.data import pictures, png
from odfs_jax.data.frames import Frame, FrameSource, FrameWriter
from odfs_jax.data.video_read import ClipSource
from odfs_jax.data.video_write import clip_writer
from odfs_jax.data.workspace import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from odfs_jax.errors import UserError

__all__ = ["Frame", "FrameSource", "FrameWriter", "open_frames", "open_writer"]

PNG_HEAD = 4096  # bytes; a comment of ours stands right after the header


def open_frames(path: Path) -> FrameSource:
    """The frames of the clip or folder of pictures at `path`. Raises UserError."""
    if path.is_dir():
        return pictures.PictureSource(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise UserError(f"{path}: a single picture; give a clip or a folder of pictures")
    return ClipSource(path)


def open_writer(
    path: Path, source: FrameSource, output: OutputConfig, comment: str
) -> AbstractContextManager[FrameWriter]:
    """A writer of the frames of `source` to `path`: a clip by its suffix, without one a folder.

    The result carries `comment` and appears whole when the context ends without an exception;
    until then an older result stays. It replaces nothing but an older result, known by its comment
    up to the first bracket or semicolon. Raises UserError before anything is written when
    encoder, container, sound or path do not go together.
    """
    if path.resolve() == source.path.resolve():
        raise UserError(f"output.path={path}: that is the input")
    suffix = path.suffix.lower()
    if suffix and suffix not in VIDEO_SUFFIXES:
        raise UserError(
            f"output.path={path}: expected one of {' '.join(VIDEO_SUFFIXES)}, or a folder for PNGs"
        )
    if path.exists():
        mark = re.split(r"[(;]", comment)[0]  # before the version
        _refuse_foreign(path, mark, is_folder=not suffix)
    if not suffix:
        return pictures.picture_writer(path, comment)
    return clip_writer(path, source, output, comment)


def _refuse_foreign(path: Path, mark: str, is_folder: bool) -> None:
    if path.is_dir() != is_folder:
        kind = "file" if is_folder else "folder"
        raise UserError(f"output.path={path}: a {kind} of that name exists")
    files = sorted(path.iterdir()) if is_folder else [path]
    ours = _is_our_picture if is_folder else _is_our_clip
    for file in files:
        if not ours(file, mark):
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


def _is_our_picture(path: Path, mark: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(PNG_HEAD)
    text = f"{pictures.COMMENT}\0{mark}".encode("latin-1")
    return head.startswith(png.SIGNATURE) and text in head
