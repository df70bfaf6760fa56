"""What a whole faceset says of its faces, read bit by bit behind the page's back and kept."""

import json
from concurrent.futures import Future
from pathlib import Path
from threading import Lock

from odfs_jax.data import atomic
from odfs_jax.studio import heavy
from odfs_jax.studio.room import Room

PORTION = 250  # faces that the worker reads at a time

Row = list[float] | None  # yaw, pitch (degrees), score, number of the frame; None: no face


class PoseIndex:
    """What is known of a side's faces, by file name and version. The studio's folder keeps it."""

    def __init__(self, room: Room, side: str, worker: heavy.Worker) -> None:
        self._folder = room.faces(side)
        self._path = path = room.own / f"poses_{side}.json"
        self._worker = worker
        self._known: dict[str, tuple[str, Row]] = _load(path)
        self._portion: tuple[list[tuple[str, str]], Future] | None = None
        self._lock = Lock()

    def look(self) -> tuple[dict[str, list[float]], int]:
        """({name: row} of the faces that are known, number of files still to be read).

        Sees to it that the next portion is being read.
        """
        versions = {path: version_of(path) for path in pngs(self._folder)}
        with self._lock:
            read = self._collect()
            known = self._known
            missing = [
                p for p, version in versions.items() if known.get(p.name, ("",))[0] != version
            ]
            if missing and self._portion is None:
                files = missing[:PORTION]
                names = [(path.name, versions[path]) for path in files]
                self._portion = (names, self._worker.submit(heavy.poses, files))
            if read and not missing:
                atomic.write_text(self._path, json.dumps(known))
            found = {p.name: known[p.name][1] for p in versions if p.name in known}
            return {name: row for name, row in found.items() if row is not None}, len(missing)

    def names(self, frame: int) -> list[str]:
        """The files that were faces of frame number `frame` when they were last read."""
        with self._lock:
            return [name for name, (_, row) in self._known.items() if row and row[3] == frame]

    def _collect(self) -> bool:
        """Takes over a portion that was read; False when there is none."""
        if self._portion is None or not self._portion[1].done():
            return False
        (names, future), self._portion = self._portion, None
        for (name, version), row in zip(names, future.result(), strict=True):
            self._known[name] = (version, None if row is None else list(row))
        return True


def pngs(folder: Path) -> list[Path]:
    """The PNGs in `folder` that are not hidden, in any order."""
    if not folder.is_dir():
        return []
    return [p for p in folder.glob("*.png") if not p.name.startswith(".")]


def version_of(path: Path) -> str:
    """What changes whenever the file does; as text, for JavaScript's numbers are too short."""
    try:
        return str(path.stat().st_mtime_ns)
    except OSError:  # it went meanwhile
        return "0"


def _load(path: Path) -> dict[str, tuple[str, Row]]:
    try:
        content = json.loads(path.read_text())
        return {
            str(name): (str(version), None if row is None else [float(v) for v in row][:4])
            for name, (version, row) in content.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
