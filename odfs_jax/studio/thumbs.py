"""Small pictures of faces, kept in the studio's own folder."""

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

import cv2
import numpy as np

from odfs_jax.data.aligned_png import MAX_SIZE
from odfs_jax.data.media import png
from odfs_jax.errors import BadFileError

SIDE = 128  # pixels
QUALITY = 85  # of the JPEG, per cent


def thumbnail(path: Path, cache: Path) -> bytes:
    """A JPEG of SIDE x SIDE pixels of the PNG at `path`. Raises BadFileError.

    `cache` keeps it by the path, the time and the size of the file, so a changed file gets another.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise BadFileError(path, f"cannot be read ({error.strerror})") from error
    what = f"{path.name}\0{found.st_ino}\0{found.st_mtime_ns}\0{found.st_size}"
    key = hashlib.sha256(what.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    kept = cache / key[:2] / f"{key}.jpg"
    try:
        return kept.read_bytes()
    except OSError:
        made = _make(path)
        with contextlib.suppress(OSError):  # a cache that cannot be written is no cache
            _keep(kept, made)
        return made


def _make(path: Path) -> bytes:
    content = path.read_bytes()
    try:
        width, height = png.image_size(content)
    except ValueError as error:
        raise BadFileError(path, str(error)) from error
    if max(width, height) > MAX_SIZE:
        raise BadFileError(path, f"{width}x{height} pixels")
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise BadFileError(path, "the picture in this PNG cannot be decoded")
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", small, (cv2.IMWRITE_JPEG_QUALITY, QUALITY))[1].tobytes()


def _keep(path: Path, content: bytes) -> None:
    """Whole or not at all, but not synced: it can be made again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.replace(name, path)
