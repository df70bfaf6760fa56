"""A cache of open clips: the frames of both sides, opened at the first request."""

from pathlib import Path
from threading import Lock

import cv2

from odfs_jax.data.media.frame_io import FrameReader
from odfs_jax.data.media.frames import Frame
from odfs_jax.errors import BadFileError
from odfs_jax.studio.workspace import StudioWorkspace

QUALITY = 90  # of a frame's JPEG, per cent


class FrameCache:
    """An open reader for each clip; a clip that was replaced is opened again."""

    def __init__(self, workspace: StudioWorkspace) -> None:
        self._workspace = workspace
        self._open: dict[Path, tuple[tuple, FrameReader]] = {}
        self._lock = Lock()

    def reader(self, side: str) -> FrameReader:
        """The reader of the clip of `side`. Raises UserError."""
        return self.open(self._workspace.clip(side))

    def open(self, path: Path) -> FrameReader:
        """The reader of a clip or folder at `path`. Raises UserError."""
        if not path.exists():
            raise BadFileError(path.name, "no such file or folder")
        found = path.stat()
        version = (found.st_mtime_ns, found.st_size)
        with self._lock:
            if path not in self._open or self._open[path][0] != version:
                self._open[path] = (version, FrameReader(path))
            return self._open[path][1]

    def frame(self, side: str, number: int) -> Frame:
        """Frame `number` of `side`. Raises UserError, BadFileError when there is none."""
        return self.reader(side).read(number)


def jpeg(frame: Frame) -> bytes:
    """`frame` as the content of a JPEG file, for a browser."""
    options = (cv2.IMWRITE_JPEG_QUALITY, QUALITY)
    return cv2.imencode(".jpg", frame.image[..., ::-1], options)[1].tobytes()
