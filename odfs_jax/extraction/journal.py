"""What extraction has done to an aligned folder, frame by frame: `.odfs_extract.jsonl` in it.

A line of JSON for every start of a run (with its settings) and for every finished frame, written
after the frame's faces. So the next run knows which frames are finished whatever their PNGs are
called by now, and a face that the user deleted stays deleted. Every PNG carries the `run` that made
it: one of this run whose frame is not in the journal was left half way and is made again.

`prepare` makes the plan of a run from it: the chosen frames that no earlier run has finished.

Workers that do a part of the clip each note their frames in a journal of their own beside it,
`.odfs_extract.2-of-4.jsonl`, which begins with the frames that it is for. Who reads the journal
reads these too; the first who has the folder for itself takes them into the one journal.
"""

import json
import math
import os
import secrets
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from odfs_jax.data import atomic, foreign
from odfs_jax.data.aligned_png import FaceData
from odfs_jax.data.lock import beginning
from odfs_jax.data.media.frames import Frame, FrameSource
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.frame_ranges import FrameRanges, Shard

JOURNAL = ".odfs_extract.jsonl"
PARTS = ".odfs_extract.*-of-*.jsonl"
VERSION = 1
LARGEST = 1 << 30  # bytes of a journal that is read: a million frames have a fifth of it
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
    shard: Shard | None = None  # the part that `add` notes in a journal of its own
    ended: list[str] = field(default_factory=list)  # parts that have come to their end

    @classmethod
    def read(cls, folder: Path, shard: Shard | None = None) -> Self:
        """The journal of `folder`, an empty one when there is none. Raises BadFileError.

        May be called while another worker joins the journals of parts: no frame is missed.
        """
        path = folder / JOURNAL
        while True:
            journal, parts = cls(folder, shard=shard), sorted(folder.glob(PARTS))
            if path.is_symlink() or path.exists():
                journal._replay_file(path)
            try:
                journal._add_parts(parts)
            except BadFileError as error:
                if error.path.is_symlink() or error.path.exists():
                    raise
                continue  # another worker has just taken it into the one journal, read before
            return journal

    def _add_parts(self, parts: Sequence[Path]) -> None:
        """Adds the frames that only `parts` have, journals of parts of the clip."""
        for part in parts:
            one = type(self)(self.folder, self.run)
            one._replay_file(part)
            self.ended += one.ended
            new = [key for key in one.frames if key not in self.frames]
            self.frames |= {key: one.frames[key] for key in new}
            self.runs |= {key: one.runs[key] for key in new}

    def _replay_file(self, path: Path) -> None:
        # What follows the last end of a line is half a line.
        *lines, _ = foreign.read_bytes(path, LARGEST).split(b"\n")
        try:
            for line in lines:
                self._replay(foreign.parse_json(line))
        except ValueError as error:
            reason = f"not a journal of this program ({error}); delete it, no face depends on it"
            raise BadFileError(path, reason) from error

    @property
    def path(self) -> Path:
        """The file that `add` writes to."""
        name = JOURNAL if self.shard is None else PARTS.replace("*-of-*", str(self.shard))
        return self.folder / name

    @property
    def parts(self) -> list[Path]:
        """The journals of parts of the clip."""
        return sorted(self.folder.glob(PARTS))

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

    def start_part(self, cut: dict[str, str | int]) -> None:
        """Begins the journal of a part, or goes on with it.

        `cut` is how the clip is cut into parts, and all else that every part must have alike beside
        the run's settings. Raises UserError when a part of the folder was begun with another.
        """
        for path in self.parts:
            begun = _first_line(path)
            for key, now in cut.items():
                if begun.get(key) != now:
                    raise UserError(
                        f"{self.folder}: its shards were begun with {key}={begun.get(key)}, now "
                        f"{now}; give the same, or run once without shard=, which goes on with all "
                        "that is done"
                    )
        if not self.path.exists():
            atomic.write_bytes(self.path, _packed({"shard": str(self.shard)} | cut))

    def end_part(self) -> None:
        """Writes down that the part has come to its end."""
        self._append({"ended": str(self.shard)})
        self.sync()

    def absorb_parts(self) -> None:
        """Takes the journals of parts into the one; nobody else may be at work in the folder."""
        if self.parts:
            self._rewrite()
        for path in self.parts:
            path.unlink()

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
        atomic.sync(self.path)

    def _replay(self, line: Any) -> None:
        """Takes over a line that was read. Raises ValueError."""
        if "run" in foreign.mapping(line, "line"):
            foreign.mapping(line, "start", ("version", "settings", "replacing"))
            if line["version"] != VERSION:
                raise ValueError(f"version {foreign.shown(line['version'])}")
            self.run = foreign.text(line["run"], "run", 64)
            self.settings = foreign.mapping(line["settings"], "settings")
            self.replacing = _boolean(line["replacing"], "replacing")
        elif "replaced" in line:
            self.replacing = False
        elif "ended" in line:
            self.ended.append(foreign.text(line["ended"], "ended", 64))
        elif "shard" in line:
            pass  # the frames that a part is for
        else:
            done, by = _done(line), line.get("by", self.run)
            by = by if by is None else foreign.text(by, "by", 64)
            self.frames[done.key], self.runs[done.key] = done, by

    def _append(self, line: dict[str, Any]) -> None:
        with atomic.appending(self.path) as file:
            _drop_half_line(file)
            file.write(_packed(line))

    def _rewrite(self) -> None:
        head = {"version": VERSION, "run": self.run, "settings": self.settings}
        lines = [asdict(done) | {"by": self.runs[key]} for key, done in self.frames.items()]
        lines.append(head | {"replacing": self.replacing})
        atomic.write_bytes(self.folder / JOURNAL, b"".join(map(_packed, lines)))


def _first_line(path: Path) -> dict[str, Any]:
    """The first line of a journal. Raises BadFileError."""
    head, _, _ = foreign.read_bytes(path, LARGEST).partition(b"\n")
    try:
        return foreign.mapping(foreign.parse_json(head), "first line")
    except ValueError as error:
        raise BadFileError(path, f"not a journal of this program ({error}); delete it") from error


def _packed(line: dict[str, Any]) -> bytes:
    return json.dumps(line, allow_nan=False).encode() + b"\n"


def _done(line: dict[str, Any]) -> Done:
    """The finished frame of a line. Raises ValueError."""
    foreign.mapping(line, "frame", ("file", "frame", "pts", "faces", "dropped", "seen"))
    pts = line["pts"]
    return Done(
        file=foreign.text(line["file"], "file"),
        frame=foreign.integer(line["frame"], "frame", 0, 1 << 40),
        pts=pts if pts is None else foreign.integer(pts, "pts", -(1 << 62), 1 << 62),
        faces=foreign.integer(line["faces"], "faces", 0, 1 << 20),
        dropped=tuple(_dropped(face) for face in foreign.listing(line["dropped"], "dropped")),
        seen=_boolean(line["seen"], "seen"),
    )


def _dropped(face: Any) -> Dropped:
    foreign.mapping(face, "dropped face", ("reason", "rect", "score"))
    rect = foreign.listing(face["rect"], "rect", 4)
    return Dropped(
        foreign.text(face["reason"], "reason"),
        tuple(foreign.number(edge, "rect") for edge in rect),
        foreign.number(face["score"], "score"),
    )


def _boolean(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} {foreign.shown(value)} is not true or false")
    return value


def _drop_half_line(file: Any) -> None:
    """Removes an incomplete last line, which a run that was killed while it wrote may leave."""
    size = file.seek(0, os.SEEK_END)
    if not size:
        return
    file.seek(size - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


@dataclass
class ResumePlan:
    """What is left to do in one clip or folder, and which PNGs are there already.

    `own` are those of the `chosen` frames that this run does. `count` frames are there, as far as
    known. `margin`: frames to either side of an unfinished one that must be read to find its faces
    and to smooth their points.
    """

    chosen: FrameRanges
    own: FrameRanges
    journal: ExtractionJournal
    is_folder: bool
    count: int | None
    margin: int
    stale: set[Path]  # faces that this run replaces: deleted when it has come to its end
    interrupted: dict[Key, set[Path]]  # faces of frames that an earlier run left half way
    used_names: frozenset[str]  # names of all PNGs but the stale ones
    batches: set[int] | None = None  # the frames to be read, where that is known beforehand

    def reads(self, file: str, index: int) -> bool:
        """True when the frame must be read."""
        if index not in self.chosen:
            return False
        if self.batches is not None:
            return index in self.batches or (index >= self.count and index in self.own)
        if self.is_folder:
            return file not in self.journal.frames
        # the count is an estimate, so the clip may go on beyond it
        end = math.inf if self.count is None else max(index + 1, self.count)
        near = self.chosen.near(index, self.margin)
        return any(i < end and i not in self.journal.frames for i in near)

    def writes(self, frame: Frame) -> bool:
        """True when the faces of `frame` are to be written, False when it only helps others."""
        key = frame_key(frame.file, frame.index, frame.pts)
        return frame.index in self.own and key not in self.journal.frames

    def read_whole_batches(self, starts: Sequence[int], frames: int) -> tuple[int, int | None]:
        """Has the batches read that one worker would read, of which `starts` are the first frames.

        What is found in a frame may depend on its batch, in the last digit. `frames` are in the
        clip. Returns the first frame to be read and the number behind the last; None: to the end.
        """
        margin = 0 if self.is_folder else self.margin
        done = {one.frame for one in self.journal.frames.values()}
        chosen = [number for number in range(frames) if number in self.chosen]
        wanted = [number in self.own and number not in done for number in chosen]
        places = [bisect_left(chosen, start) for start in starts]
        self.batches, self.count = set(), frames
        batches = list(pairwise([*places, len(chosen)]))
        needed = [any(wanted[max(0, a - margin) : b + 1 + margin]) for a, b in batches]
        # A batch may share its last frame, whose points then are not found with the next one. So a
        # batch calls the networks as one worker's does only if the one before it is read too.
        for (first, after), *either in zip(batches, needed, [*needed[1:], False], strict=True):
            if any(either):
                self.batches.update(chosen[first : after + 1])
        if not self.batches:
            return 0, 0
        is_last = self.own.stop == self.chosen.stop
        return min(self.batches), self.chosen.stop if is_last else max(self.batches) + 1

    def avoid(self, frame: Frame) -> frozenset[str]:
        """File names that new faces of `frame` must not get."""
        return self.used_names - {path.name for path in self._interrupted_faces(frame)}

    def finish(self, frame: Frame, written: list[Path]) -> None:
        """Accepts `written` as the faces of `frame`, deletes others from an interrupted run."""
        self.stale.difference_update(written)
        for path in self._interrupted_faces(frame) - set(written):
            path.unlink(missing_ok=True)

    def end(self) -> None:
        """Deletes the faces that this run replaced, and waits until the journal is on the disk."""
        for path in self.stale:
            path.unlink(missing_ok=True)
        if self.journal.replacing:
            self.journal.end_replacing()
        self.journal.sync()

    def _interrupted_faces(self, frame: Frame) -> set[Path]:
        return self.interrupted.get(frame_key(frame.file, frame.index, frame.pts), set())


def prepare(
    journal: ExtractionJournal,
    faces: dict[Path, FaceData],
    settings: dict[str, Any],
    chosen: FrameRanges,
    own: FrameRanges,
    source: FrameSource,
    margin: int,
    overwrite: bool,
) -> ResumePlan:
    """Brings the journal up to date with the `faces` in the folder and begins the run of `source`.

    Faces of frames that it does not know, from elsewhere or from before there was a journal, count
    as finished, unless this program was stopped while it wrote them. With a journal of a part, all
    this goes for its `own` frames alone.
    """
    if journal.shard is None:
        journal.absorb_parts()
    else:
        faces = {path: face for path, face in faces.items() if face.source.frame in own}
    if not journal.replacing:
        _adopt(journal, faces, settings["source"]["file"])
    again = None
    if overwrite:
        again = [done.key for done in journal.frames.values() if done.frame in chosen]
        if chosen.is_all:
            again = list(journal.frames)
    journal.start(settings, again)
    stale, interrupted, taken = set(), defaultdict(set), set()
    for path, face in faces.items():
        key, is_ours = key_of(face), face.extra.get(RUN) == journal.run
        unfinished = key not in journal.frames
        if is_ours and unfinished:
            interrupted[key].add(path)
        elif not is_ours and journal.replacing and (unfinished or journal.runs[key] == journal.run):
            stale.add(path)
            continue
        taken.add(path.name)
    return ResumePlan(
        chosen,
        own,
        journal,
        source.is_folder,
        source.count,
        margin,
        stale,
        interrupted,
        frozenset(taken),
    )


def begin_part(
    folder: Path,
    shard: Shard,
    faces: dict[Path, FaceData],
    settings: dict[str, Any],
    cut: dict[str, str | int],
    side: str,
) -> ExtractionJournal:
    """The journal of a part: all parts go on with one run, which the first to come begins.

    Raises UserError when the folder was extracted with other `settings`, or other parts of it were
    begun with another `cut`: see `ExtractionJournal.start_part`.
    """
    with beginning(folder):
        journal = ExtractionJournal.read(folder)
        check_same(journal, faces, settings, side)
        if journal.replacing:
            raise UserError(
                f"{folder}: a run with overwrite=true was stopped here; run it to its end first, "
                "without shard="
            )
        journal.start(settings)
        journal = ExtractionJournal.read(folder, shard)
        journal.start_part(cut)
    return journal


def check_same(
    journal: ExtractionJournal, faces: dict[Path, FaceData], settings: dict[str, Any], side: str
) -> None:
    """Raises UserError when the folder was extracted with other settings, or from another clip."""
    what = f"overwrite=true replaces them all, data.{side}.aligned= keeps them"
    if journal.settings is not None:
        differences = list(_differences(journal.settings, settings))
        if [key for key, _, _ in differences] == ["source.file"]:  # of the same size
            _, old, new = differences[0]
            raise UserError(
                f"{journal.folder}: its faces are of {old}, which is as large as {new}; if that is "
                f"the same clip, rename it back to {old}, or link it and set data.{side}.input="
            )
        for key, old, new in differences:
            raise UserError(f"{journal.folder}: extracted with {key}={old}, now {new}; {what}")
        return
    for path, face in faces.items():
        clip = settings["source"]["file"]
        if (face.source.pts is None) != (clip is None) or (clip and face.source.file != clip):
            raise UserError(f"{path}: a face of {face.source.file}, not of {clip}; {what}")
        kind = settings["face_type"]
        if face.face_type != kind or (kind != "mark_only" and face.size != settings["size"]):
            found = f"a {face.face_type} face of {face.size} pixels"
            raise UserError(f"{path}: {found}, now {kind} of {settings['size']}; {what}")


def _adopt(journal: ExtractionJournal, faces: dict[Path, FaceData], clip: str | None) -> None:
    """Writes the frames of `faces` into the journal as finished, but for those of other clips."""
    found: dict[Key, list[FaceData]] = defaultdict(list)
    for face in faces.values():
        if face.source.pts is not None and face.source.file != clip:
            continue
        if face.extra.get(RUN) != journal.run or journal.run is None:
            found[key_of(face)].append(face)
    for key, group in found.items():
        if key not in journal.frames:
            source = group[0].source
            journal.add(Done(source.file, source.frame, source.pts, len(group)))


def _differences(old: Any, new: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """(key, old value, new value) of settings that differ."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [(prefix.removesuffix("."), old, new)]
    return [
        difference
        for key in sorted(old.keys() | new.keys())
        for difference in _differences(old.get(key), new.get(key), f"{prefix}{key}.")
    ]
