"""Which frames a run reads and writes: the chosen ones that no earlier run has finished."""

import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odfs_jax.data.aligned_png import FaceData
from odfs_jax.data.media.frames import Frame, FrameSource
from odfs_jax.errors import UserError
from odfs_jax.extraction.journal import RUN, Done, ExtractionJournal, Key, frame_key, key_of
from odfs_jax.frame_ranges import FrameRanges


@dataclass
class ResumePlan:
    """What is left to do in one clip or folder, and which PNGs are there already.

    `count` frames are there, as far as known. `margin`: frames to either side of an unfinished one
    that must be read to find its faces and to smooth their points.
    """

    chosen: FrameRanges
    journal: ExtractionJournal
    is_folder: bool
    count: int | None
    margin: int
    stale: set[Path]  # faces that this run replaces: deleted when it has come to its end
    interrupted: dict[Key, set[Path]]  # faces of frames that an earlier run left half way
    used_names: frozenset[str]  # names of all PNGs but the stale ones

    def reads(self, file: str, index: int) -> bool:
        """True when the frame must be read."""
        if index not in self.chosen:
            return False
        if self.is_folder:
            return file not in self.journal.frames
        # the count is an estimate, so the clip may go on beyond it
        end = math.inf if self.count is None else max(index + 1, self.count)
        near = self.chosen.near(index, self.margin)
        return any(i < end and i not in self.journal.frames for i in near)

    def writes(self, frame: Frame) -> bool:
        """True when the faces of `frame` are to be written, False when it only helps others."""
        return frame_key(frame.file, frame.index, frame.pts) not in self.journal.frames

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
    again = None
    if overwrite:
        again = [done.key for done in journal.frames.values() if done.frame in chosen]
        if chosen.is_all:
            again = list(journal.frames)
    journal.start(settings, again)
    stale, interrupted, taken = set(), defaultdict(set), set()
    for path, face in faces.items():
        key, own = key_of(face), face.extra.get(RUN) == journal.run
        unfinished = key not in journal.frames
        if own and unfinished:
            interrupted[key].add(path)
        elif not own and journal.replacing and (unfinished or journal.runs[key] == journal.run):
            stale.add(path)
            continue
        taken.add(path.name)
    return ResumePlan(
        chosen,
        journal,
        source.is_folder,
        source.count,
        margin,
        stale,
        interrupted,
        frozenset(taken),
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
