"""What the worker reads of a faceset: in portions, kept in a file, and again when files change."""

import json
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Lock
from typing import Any

from odfs_jax.data import atomic, foreign
from odfs_jax.errors import BadFileError
from odfs_jax.studio.worker import Worker, measure_doubt, read_points, read_poses
from odfs_jax.studio.workspace import StudioWorkspace

LARGEST = 1 << 28  # bytes of the file

Row = list[float] | None  # None: the file is no face


class FaceIndex:
    """A row of numbers for each of a side's faces, by file name and version of the file.

    Nothing is read while nobody looks, so that who does not want the rows any more stops looking.
    """

    width: int  # numbers of a row
    portion: int  # faces that the worker reads at a time

    def __init__(
        self,
        workspace: StudioWorkspace,
        side: str,
        path: Path,
        read: Callable[[list[Path]], Future],
        maker: str = "",
    ) -> None:
        """`read` gives the future rows of files. Rows of another `maker` are made again."""
        self._workspace, self._side = workspace, side
        self._path, self._read, self._maker = path, read, maker
        self._known: dict[str, tuple[str, Row]] = {
            name: (version, row)
            for name, (version, row) in read_index(path, self.width).items()
            if version.endswith(maker)
        }
        self._portion: tuple[list[tuple[str, str]], Future] | None = None
        self._lock = Lock()

    def look(self) -> tuple[dict[str, list[float]], int]:
        """({name: row} of the faces read so far, number of files still to be read).

        Starts the worker on the next portion when it is idle.
        """
        versions = {
            path: version_of(path) + self._maker for path in self._workspace.face_files(self._side)
        }
        with self._lock:
            read = self._collect()
            known = self._known
            # Of another version none: its name may have been another face's then.
            found = {
                path.name: known[path.name][1]
                for path, version in versions.items()
                if known.get(path.name, ("",))[0] == version
            }
            missing = [path for path in versions if path.name not in found]
            if missing and self._portion is None:
                files = missing[: self.portion]
                names = [(path.name, versions[path]) for path in files]
                self._portion = (names, self._read(files))
            if read:
                atomic.write_text(self._path, json.dumps(known))
            return {name: row for name, row in found.items() if row is not None}, len(missing)

    def _collect(self) -> bool:
        """Adds a portion that the worker has read; False when there is none."""
        if self._portion is None or not self._portion[1].done():
            return False
        (names, future), self._portion = self._portion, None
        for (name, version), row in zip(names, future.result(), strict=True):
            self._known[name] = (version, None if row is None else list(row))
        return True


class PoseIndex(FaceIndex):
    """Yaw and pitch (degrees), score and number of the frame of a side's faces."""

    width, portion = 4, 250

    def __init__(self, workspace: StudioWorkspace, side: str, worker: Worker) -> None:
        path = workspace.own / f"poses_{side}.json"
        super().__init__(workspace, side, path, lambda files: worker.submit(read_poses, files))
        for name, (_, row) in list(self._known.items()):
            if row and not float(row[3]).is_integer():
                del self._known[name]

    def names(self, frame: int) -> list[str]:
        """The files that were faces of frame number `frame` when they were last read."""
        with self._lock:
            return [name for name, (_, row) in self._known.items() if row and row[3] == frame]


class PointIndex(FaceIndex):
    """Where the parts of a side's faces are in their frames: see `read_points`."""

    width, portion = 10, 250

    def __init__(self, workspace: StudioWorkspace, side: str, worker: Worker) -> None:
        path = workspace.own / f"points_{side}.json"
        super().__init__(workspace, side, path, lambda files: worker.submit(read_points, files))

    def by_frame(self) -> tuple[dict[int, list[float]], int]:
        """({frame: row of its largest face} of the faces read so far, files still to be read)."""
        rows, missing = self.look()
        largest: dict[int, list[float]] = {}
        for row in sorted(rows.values(), key=lambda row: row[1]):
            largest[int(row[0])] = row
        return largest, missing


class DoubtIndex(FaceIndex):
    """How much of each face a mask network sees in another way than it is stored: see `doubt`."""

    width, portion = 1, 32

    def __init__(
        self, workspace: StudioWorkspace, side: str, worker: Worker, model: Path, step: int
    ) -> None:
        path = workspace.own / f"doubt_{side}.json"

        def read(files: list[Path]) -> Future:
            return worker.submit(measure_doubt, model, step, files)

        super().__init__(workspace, side, path, read, f" {model.name} {step}")


def version_of(path: Path) -> str:
    """A version of the file that changes when it does; text, as JavaScript's numbers are short."""
    try:
        return str(path.stat().st_mtime_ns)
    except OSError:  # it was deleted meanwhile
        return "0"


def read_index(path: Path, width: int) -> dict[str, tuple[str, Row]]:
    """Rows of `width` numbers that an earlier studio kept; nothing when there is something else."""
    try:
        content = foreign.mapping(foreign.read_json(path, LARGEST), "index")
        return {name: _read_entry(entry, width) for name, entry in content.items()}
    except (BadFileError, ValueError):
        return {}


def _read_entry(entry: Any, width: int) -> tuple[str, Row]:
    version, row = foreign.listing(entry, "entry", 2)
    if row is not None:
        numbers = foreign.listing(row, "row", width)
        row = [foreign.number(value, "number", -1e12, 1e12) for value in numbers]
    return foreign.text(version, "version", 1000), row
