"""What extraction has done to an aligned folder, frame by frame: `.odfs_extract.jsonl` in it.

A line of JSON for every start of a run (with its settings) and for every finished frame, written
after the frame's faces. So the next run knows which frames are finished whatever their PNGs are
called by now, and a face that the user deleted stays deleted. Every PNG carries the `run` that made
it: one of this run whose frame is not in the journal was left half way and is made again.
"""

import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from odfs_jax.data import atomic
from odfs_jax.data.aligned_png import FaceData
from odfs_jax.errors import BadFileError

JOURNAL = ".odfs_extract.jsonl"
VERSION = 1
RUN = "extraction"  # the key in a PNG's data that holds the run

Key = str | int


@dataclass(frozen=True)
class Dropped:
    """A face that was found and left out: why, and its box (left, top, right, bottom)."""

    reason: str
    rect: tuple[float, float, float, float]
    score: float


@dataclass(frozen=True)
class Done:
    """A finished frame: how many faces of it were written, and which were left out.

    `seen`: a person looked at it, and what they accepted is written.
    """

    file: str
    frame: int
    pts: int | None
    faces: int
    dropped: tuple[Dropped, ...] = ()
    seen: bool = False

    @property
    def key(self) -> Key:
        return frame_key(self.file, self.frame, self.pts)

    @property
    def doubtful(self) -> bool:
        """True when a person should look: no face was written, or one was left out."""
        return not self.seen and (not self.faces or bool(self.dropped))


def frame_key(file: str, frame: int, pts: int | None) -> Key:
    """The key of a frame: the name of a picture, the number of a frame of a clip (`pts` given)."""
    return file if pts is None else frame


def key_of(face: FaceData) -> Key:
    """The key of the frame that `face` came from: a name or a number, see `frame_key`."""
    return frame_key(face.source.file, face.source.frame, face.source.pts)


@dataclass
class ExtractionJournal:
    """The journal of `folder`. `settings` are those of the last start, None before the first.

    `replacing`: the last start was to replace older faces and has not come to its end.
    """

    folder: Path
    run: str | None = None
    settings: dict[str, Any] | None = None
    replacing: bool = False
    frames: dict[Key, Done] = field(default_factory=dict)
    runs: dict[Key, str | None] = field(default_factory=dict)  # which run finished a frame

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The journal of `folder`, an empty one when there is none. Raises BadFileError."""
        journal, path = cls(folder), folder / JOURNAL
        if not path.exists():
            return journal
        *lines, _ = path.read_bytes().split(b"\n")  # what follows the last end is half a line
        try:
            for line in lines:
                journal._replay(json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            reason = f"not a journal of this program ({error}); delete it, no face depends on it"
            raise BadFileError(path, reason) from error
        return journal

    def start(self, settings: dict[str, Any], again: Iterable[Key] | None = None) -> None:
        """Begins a run with `settings`; without `again` the last run, if there is one, goes on.

        `again` are the keys of the frames whose faces the new run replaces.
        """
        if again is None and self.run is not None:
            return
        self.run, self.settings = secrets.token_hex(4), settings
        self.replacing = again is not None
        for key in again or ():
            self.frames.pop(key, None)
        self._rewrite()

    def add(self, done: Done) -> None:
        """Writes down a finished frame; if it was known, its faces are added to the known ones."""
        known = self.frames.get(done.key)
        if known is not None:
            done = replace(
                done,
                faces=known.faces + done.faces,
                dropped=known.dropped + done.dropped,
                seen=known.seen or done.seen,
            )
        self._append(asdict(done))
        self.frames[done.key], self.runs[done.key] = done, self.run

    def end_replacing(self) -> None:
        """Writes down that the faces to be replaced are deleted."""
        self.replacing = False
        self._append({"replaced": True})

    def doubtful(self) -> list[Done]:
        """The frames that somebody should look at, in their order."""
        return sorted((d for d in self.frames.values() if d.doubtful), key=lambda d: d.frame)

    def sync(self) -> None:
        """Waits until the journal is on the disk."""
        atomic.sync(self.folder / JOURNAL)

    def _replay(self, line: dict[str, Any]) -> None:
        if "run" in line:
            if line["version"] != VERSION:
                raise ValueError(f"version {line['version']}")
            self.run, self.settings = str(line["run"]), dict(line["settings"])
            self.replacing = bool(line["replacing"])
        elif "replaced" in line:
            self.replacing = False
        else:
            done = _done(line)
            self.frames[done.key], self.runs[done.key] = done, line.get("by", self.run)

    def _append(self, line: dict[str, Any]) -> None:
        path = self.folder / JOURNAL
        self.folder.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            _drop_half_line(file)
            file.write(_packed(line))

    def _rewrite(self) -> None:
        head = {"version": VERSION, "run": self.run, "settings": self.settings}
        lines = [asdict(done) | {"by": self.runs[key]} for key, done in self.frames.items()]
        lines.append(head | {"replacing": self.replacing})
        atomic.write_bytes(self.folder / JOURNAL, b"".join(map(_packed, lines)))


def _packed(line: dict[str, Any]) -> bytes:
    return json.dumps(line, allow_nan=False).encode() + b"\n"


def _done(line: dict[str, Any]) -> Done:
    dropped = (Dropped(d["reason"], tuple(d["rect"]), d["score"]) for d in line["dropped"])
    head = (line[key] for key in ("file", "frame", "pts", "faces"))
    done = Done(*head, tuple(dropped), bool(line["seen"]))
    if not isinstance(done.file, str) or not all(
        type(number) is int for number in (done.frame, done.faces, done.pts or 0)
    ):
        raise ValueError("a line with other values")
    return done


def _drop_half_line(file: Any) -> None:
    """Removes an incomplete last line, which a run that was killed while it wrote may leave."""
    size = file.seek(0, os.SEEK_END)
    if not size:
        return
    file.seek(size - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
