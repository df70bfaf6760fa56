"""Which frames a run reads and writes: the chosen ones that no earlier run has finished."""

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odfs_jax.data.aligned_png import FaceData
from odfs_jax.data.media.frames import Frame, FrameSource
from odfs_jax.errors import UserError
from odfs_jax.extraction.journal import RUN, Done, ExtractionJournal, Key, frame_key, key_of


@dataclass(frozen=True)
class Selection:
    """Frames `first` to `last` (None: to the end), every `every`-th of them; numbers from 0."""

    first: int = 0
    last: int | None = None
    every: int = 1

    def __contains__(self, index: int) -> bool:
        if index < self.first or (self.last is not None and index > self.last):
            return False
        return (index - self.first) % self.every == 0

    def count(self, frames: int) -> int:
        """How many of `frames` frames are chosen."""
        end = frames if self.last is None else min(frames, self.last + 1)
        return len(range(self.first, end, self.every))

    @property
    def whole(self) -> bool:
        return self == Selection()


def parse_selection(frames: str | None, every: int) -> Selection:
    """The selection that `frames` ("100-200", "100-", "-200", "7", null) and `every` ask for.

    Raises UserError.
    """
    if every < 1:
        raise UserError(f"every={every}: expected 1 or more")
    if frames is None:
        return Selection(every=every)
    found = re.fullmatch(r"\s*(\d*)\s*(-?)\s*(\d*)\s*", frames)
    if not found or not (found[1] or found[3]):
        raise UserError(f"frames={frames}: expected FIRST-LAST, FIRST-, -LAST or one number")
    first = int(found[1] or 0)
    last = int(found[3]) if found[3] else None if found[2] else first
    if last is not None and last < first:
        raise UserError(f"frames={frames}: the last frame comes before the first")
    return Selection(first, last, every)


@dataclass
class ResumePlan:
    """What is left to do in one clip or folder, and the PNGs that are in the way of it.

    `count` frames are there, as far as known. `margin`: frames to either side of an unfinished one
    that must be read to find its faces and to smooth their points.
    """

    selection: Selection
    journal: ExtractionJournal
    is_folder: bool
    count: int | None
    margin: int
    stale: set[Path]  # faces that this run replaces: deleted when it has come to its end
    halves: dict[Key, set[Path]]  # faces of frames that were left half way, made again
    taken: frozenset[str]  # names of all PNGs but the stale ones

    def reads(self, file: str, index: int) -> bool:
        """True when the frame must be read."""
        if index not in self.selection:
            return False
        if self.is_folder:
            return file not in self.journal.frames
        step = self.selection.every
        last = index + self.margin * step
        if self.count is not None:  # an estimate, so a frame beyond it counts as well
            last = max(index, min(last, self.count - 1))
        near = range(index - self.margin * step, last + 1, step)
        return any(i in self.selection and i not in self.journal.frames for i in near)

    def writes(self, frame: Frame) -> bool:
        """True when the faces of `frame` are to be written, False when it only helps others."""
        return frame_key(frame.file, frame.index, frame.pts) not in self.journal.frames

    def avoid(self, frame: Frame) -> frozenset[str]:
        """Names that faces of `frame` must not get."""
        return self.taken - {path.name for path in self._halves(frame)}

    def finish(self, frame: Frame, written: list[Path]) -> None:
        """Deletes what an interrupted run left of `frame` under other names."""
        for path in self._halves(frame) - set(written):
            path.unlink(missing_ok=True)

    def _halves(self, frame: Frame) -> set[Path]:
        return self.halves.get(frame_key(frame.file, frame.index, frame.pts), set())


def prepare(
    journal: ExtractionJournal,
    faces: dict[Path, FaceData],
    settings: dict[str, Any],
    selection: Selection,
    source: FrameSource,
    margin: int,
    overwrite: bool,
) -> ResumePlan:
    """Brings the journal up to date with the `faces` in the folder and begins the run of `source`.

    Faces of frames that it does not know, from elsewhere or from before there was a journal, count
    as finished, unless this program was stopped while it wrote them.
    """
    if not journal.replacing:
        _adopt(journal, faces, settings["source"]["file"])
    chosen = None
    if overwrite:
        chosen = [done.key for done in journal.frames.values() if done.frame in selection]
        if selection.whole:
            chosen = list(journal.frames)
    journal.start(settings, chosen)
    stale, halves, taken = set(), defaultdict(set), set()
    for path, face in faces.items():
        key, own = key_of(face), face.extra.get(RUN) == journal.run
        unfinished = key not in journal.frames
        if own and unfinished:
            halves[key].add(path)
        elif not own and journal.replacing and (unfinished or journal.runs[key] == journal.run):
            stale.add(path)
            continue
        taken.add(path.name)
    return ResumePlan(
        selection, journal, source.is_folder, source.count, margin, stale, halves, frozenset(taken)
    )


def check_same(
    journal: ExtractionJournal, faces: dict[Path, FaceData], settings: dict[str, Any], side: str
) -> None:
    """Raises UserError when the folder was extracted with other settings, or from another clip."""
    what = f"overwrite=true replaces them all, data.{side}.aligned= keeps them"
    if journal.settings is not None:
        for key, old, new in _differences(journal.settings, settings):
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
    """Notes the frames of `faces`; those of other clips than `clip` do not count."""
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
