"""An index of the poses of a faceset, which the worker reads in portions, kept in a file."""

import json
from concurrent.futures import Future
from pathlib import Path
from threading import Lock
from typing import Any

from odfs_jax.data import atomic, foreign
from odfs_jax.errors import BadFileError
from odfs_jax.studio.worker import Worker, read_poses
from odfs_jax.studio.workspace import StudioWorkspace

LARGEST = 1 << 28  # bytes of the file
PORTION = 250  # faces that the worker reads at a time

Row = list[float] | None  # yaw, pitch (degrees), score, number of the frame; None: no face


class PoseIndex:
    """Pose, score and frame of a side's faces, by file name and version of the file."""

    def __init__(self, workspace: StudioWorkspace, side: str, worker: Worker) -> None:
        self._workspace, self._side = workspace, side
        self._path = path = workspace.own / f"poses_{side}.json"
        self._worker = worker
        self._known: dict[str, tuple[str, Row]] = read_index(path)
        self._portion: tuple[list[tuple[str, str]], Future] | None = None
        self._lock = Lock()

    def look(self) -> tuple[dict[str, list[float]], int]:
        """({name: row} of the faces read so far, number of files still to be read).

        Starts the worker on the next portion when it is idle.
        """
        versions = {path: version_of(path) for path in self._workspace.face_files(self._side)}
        with self._lock:
            read = self._collect()
            known = self._known
            missing = [
                p for p, version in versions.items() if known.get(p.name, ("",))[0] != version
            ]
            if missing and self._portion is None:
                files = missing[:PORTION]
                names = [(path.name, versions[path]) for path in files]
                self._portion = (names, self._worker.submit(read_poses, files))
            if read and not missing:
                atomic.write_text(self._path, json.dumps(known))
            found = {p.name: known[p.name][1] for p in versions if p.name in known}
            return {name: row for name, row in found.items() if row is not None}, len(missing)

    def names(self, frame: int) -> list[str]:
        """The files that were faces of frame number `frame` when they were last read."""
        with self._lock:
            return [name for name, (_, row) in self._known.items() if row and row[3] == frame]

    def _collect(self) -> bool:
        """Adds a portion that the worker has read; False when there is none."""
        if self._portion is None or not self._portion[1].done():
            return False
        (names, future), self._portion = self._portion, None
        for (name, version), row in zip(names, future.result(), strict=True):
            self._known[name] = (version, None if row is None else list(row))
        return True


def version_of(path: Path) -> str:
    """A version of the file that changes when it does; text, as JavaScript's numbers are short."""
    try:
        return str(path.stat().st_mtime_ns)
    except OSError:  # it was deleted meanwhile
        return "0"


def read_index(path: Path) -> dict[str, tuple[str, Row]]:
    """What an earlier studio kept at `path`; nothing when there is none, or something else."""
    try:
        content = foreign.mapping(foreign.read_json(path, LARGEST), "poses")
        return dict(_read_entry(*entry) for entry in content.items())
    except (BadFileError, ValueError):
        return {}


def _read_entry(name: str, entry: Any) -> tuple[str, tuple[str, Row]]:
    version, row = foreign.listing(entry, "entry", 2)
    if row is not None:
        row = [
            foreign.number(value, "pose", -1e12, 1e12) for value in foreign.listing(row, "row", 4)
        ]
        if not float(row[3]).is_integer():
            raise ValueError("row: expected a whole number of a frame")
    return name, (foreign.text(version, "version", 100), row)
