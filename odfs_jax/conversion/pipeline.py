"""Frames in, swapped frames out: faces of several frames share a batch on the device.

The network sees dst's own frames. Frames wait until those after them are seen too, as far as
colours are averaged along a face's track; then their faces are merged, far ones first.
"""

import dataclasses
from bisect import bisect_right
from collections import deque
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby, islice, zip_longest
from pathlib import Path

import cv2
import jax
import numpy as np

from odfs_jax.conversion.face_region import SIDES, Region, read_region, write_region
from odfs_jax.conversion.masks import outline_masks
from odfs_jax.conversion.merge import Merge, Places
from odfs_jax.conversion.target_faces import TargetFaces
from odfs_jax.conversion.tracks import Face, Tracker
from odfs_jax.data import atomic
from odfs_jax.data.media import png
from odfs_jax.data.media.frames import Frame, FrameWriter
from odfs_jax.inference import Swapper

FULL_BATCH_SIDE = 512  # larger regions go in smaller batches, so that memory stays bounded

Job = tuple[np.ndarray, Face]  # a frame's pixels and one face in them


@dataclass
class Counts:
    """What happened to the faces and frames."""

    frames: int = 0
    faces: int = 0  # swapped
    empty: int = 0  # frames without a face
    unclear: int = 0  # faces for which the network gave no solid mask


@dataclass
class _Held:
    """A frame that waits, and its faces, far ones first."""

    frame: Frame
    faces: list[Face]


@dataclass
class FaceMerger:
    """Merges the faces of many frames in batches of fixed shapes."""

    swapper: Swapper
    merge: Merge
    batch_size: int
    counts: Counts = dataclasses.field(default_factory=Counts)
    sheets: Path | None = None  # the folder of a contact sheet of each face; None: none are drawn

    def frames(self, frames: Generator[Frame], targets: TargetFaces) -> Generator[Frame]:
        """`frames` in their order, with the faces in `targets` swapped; the others as they came.

        To give a frame what it gets in its clip, `merge.window` frames before it must come too.
        """
        held: list[_Held] = []
        tracker = Tracker()
        with closing(frames):
            while chunk := list(islice(frames, self.batch_size)):
                held += self._seen(chunk, targets, tracker)
                while len(held) - self.merge.window >= self.batch_size:
                    yield from self._laid(held)
                tracker.forget(len(held) + self.merge.window)
        while held:
            yield from self._laid(held)

    def _seen(self, chunk: list[Frame], targets: TargetFaces, tracker: Tracker) -> list[_Held]:
        """The frames of `chunk` with their faces, as the network makes them."""
        made = self.swapper.output_spec
        taken = []
        for frame in chunk:
            regions = targets.take(frame, made.face_type, made.resolution, self.merge.reach)
            taken.append(_Held(frame, tracker.follow(frame.image, regions)))
        self._predict([(one.frame.image, face) for one in taken for face in one.faces])
        self.counts.frames += len(taken)
        self.counts.empty += sum(not one.faces for one in taken)
        return taken

    def _predict(self, jobs: list[Job]) -> None:
        """Lets the network see the faces of `jobs`; what it says of each is kept on the host."""
        running = []
        for side, batch in _batches(jobs, self.batch_size):
            pixels, places = self._stacked(side, batch, moving=False)
            running.append((batch, self.merge.predict(self.swapper.params, pixels, places)))
        for batch, predicted in running:
            predicted = jax.device_get(predicted)
            for index, (_, face) in enumerate(batch):
                face.predicted = jax.tree.map(lambda a, i=index: a[i], predicted)

    def _laid(self, held: list[_Held]) -> list[Frame]:
        """The first frames of `held`, which are taken out, with their faces merged in."""
        ready = held[: self.batch_size]
        del held[: self.batch_size]
        frames = [self._opened(one) for one in ready]
        # A near face is merged after the far ones of its frame: one of each frame a round.
        for faces in zip_longest(*(one.faces for one in ready)):
            pairs = zip(frames, faces, strict=True)
            self._round([(frame, face) for frame, face in pairs if face])
        return frames

    def _opened(self, one: _Held) -> Frame:
        """The frame of `one` with pixels of its own, where they are going to change."""
        image = one.frame.image
        changes = {"weights": np.zeros(image.shape[:2], np.uint8)} if one.faces else {}
        if self.merge.black:  # what was stored is not what is below the face
            changes |= {name: np.zeros_like(image) for name in ("image", "plate")}
            changes["stored"] = None
        elif one.faces:
            changes["image"] = image.copy()
        return dataclasses.replace(one.frame, **changes) if changes else one.frame

    def _round(self, pairs: list[tuple[Frame, Face]]) -> None:
        """Merges the faces of `pairs`, at most one a frame, into the frames."""
        frames = {id(face): frame for frame, face in pairs}
        running = []
        for side, batch in _batches([(f.image, face) for f, face in pairs], self.batch_size):
            pixels, places = self._stacked(side, batch, moving=True)
            faces = [face for _, face in batch]
            predicted = self._filled(side, [face.steady(self.merge.smoothing) for face in faces])
            predicted = jax.tree.map(lambda *arrays: np.stack(arrays), *predicted)
            if self.sheets:
                self._draw(faces, frames, self.merge.show(pixels, places, predicted))
            running.append((side, faces, self.merge.lay(pixels, places, predicted)))
        for side, faces, merged in running:
            merged = jax.device_get(merged)
            for index, face in enumerate(faces):
                region = face.region.widened(side)
                _write(frames[id(face)], region, merged.pixels[index], merged.weights[index])
                face.predicted = face.predicted._replace(faces=None, masks=None)  # not needed again
            unclear = int((merged.side[: len(faces)] == 0).sum())
            self.counts.faces += len(faces) - unclear
            self.counts.unclear += unclear

    def _draw(self, faces: list[Face], frames: dict[int, Frame], shown: dict) -> None:
        """A sheet of each of `faces`: FRAME_LEFT_TOP.png, the face by its place in the frame."""
        shown = jax.device_get(shown)
        for index, face in enumerate(faces):
            left, top = face.region.left, face.region.top
            name = f"{frames[id(face)].index:05d}_{left}_{top}"
            write_sheet(self.sheets, name, {label: shown[label][index] for label in sorted(shown)})

    def _stacked(self, side: int, jobs: list[Job], *, moving: bool) -> tuple[np.ndarray, Places]:
        """(regions uint8 [N, side, side, 3], where the faces are in them), filled up."""
        regions = [face.region.widened(side) for _, face in jobs]
        pixels = [read_region(job[0], region) for job, region in zip(jobs, regions, strict=True)]
        motion = lines = None
        if self.merge.moved and moving:
            motion = [job[1].motion(region) for job, region in zip(jobs, regions, strict=True)]
        if self.merge.outlined:
            size, keep = self.swapper.output_spec.resolution, tuple(self.merge.config.keep)
            lines = [outline_masks(region.points, size, keep) for region in regions]
        stacks = [pixels, [region.matrix for region in regions], motion, lines]
        pixels, *places = (
            None if stack is None else np.stack(self._filled(side, stack)) for stack in stacks
        )
        return pixels, Places(*places)

    def _filled(self, side: int, values: list) -> list:
        """`values` with the last repeated, so that shapes stay the same."""
        return values + [values[-1]] * (_capacity(side, self.batch_size) - len(values))


def _batches(jobs: list[Job], batch_size: int) -> Generator[tuple[int, list[Job]]]:
    """(region side, jobs) of each device call: a face may share one that is a size too large."""
    waiting = sorted(jobs, key=lambda job: job[1].region.side)
    while waiting:
        side = waiting[-1][1].region.side
        smallest = SIDES[max(SIDES.index(side) - 1, 0)]
        room = _capacity(side, batch_size)
        batch = [job for job in waiting if job[1].region.side >= smallest][-room:]
        waiting = waiting[: len(waiting) - len(batch)]
        yield side, batch


def _capacity(side: int, batch_size: int) -> int:
    """Faces in a device call of regions of `side` pixels."""
    return max(1, min(batch_size, batch_size * FULL_BATCH_SIDE**2 // side**2))


def _write(frame: Frame, region: Region, pixels: np.ndarray, weights: np.ndarray) -> None:
    """Puts the merged `pixels` [S, S, 3] and, over those of other faces, `weights` [S, S]."""
    write_region(frame.image, region, pixels)
    plane = frame.weights[..., None]
    below, above = read_region(plane, region).astype(np.float32), weights[..., None] / 255
    write_region(plane, region, np.rint(below + above * (255 - below)).astype(np.uint8))


CELL, COLUMNS, LABEL = 192, 4, 20  # pixels, cells, pixels


def sheets_folder(result: Path) -> Path:
    """Where the sheets of the conversion to `result` go: `<result>_debug/`."""
    return result.with_name(f"{result.stem}_debug")


def write_sheet(folder: Path, name: str, pictures: dict[str, np.ndarray]) -> None:
    """Draws `pictures`, float [h, w, 3] or [h, w] in [0, 1], as `folder`/`name`.png.

    They are labelled with their names and scaled to one size, in their order; a sheet of that name
    from an earlier conversion is replaced. Raises OSError.
    """
    cells = [_cell(label, picture) for label, picture in pictures.items()]
    blank = np.full_like(cells[0], 255)
    cells += [blank] * (-len(cells) % COLUMNS)
    rows = [np.hstack(cells[i : i + COLUMNS]) for i in range(0, len(cells), COLUMNS)]
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(folder / f"{name}.png", png.encode(np.vstack(rows)))


def _cell(label: str, picture: np.ndarray) -> np.ndarray:
    """uint8 [CELL + LABEL, CELL, 3]"""
    pixels = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=-1)
    shrinks = pixels.shape[0] > CELL
    way = cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST
    pixels = cv2.resize(pixels, (CELL, CELL), interpolation=way)
    header = np.full((LABEL, CELL, 3), 255, np.uint8)
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(header, label, (4, LABEL - 6), font, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([header, pixels])


@dataclass(frozen=True)
class Shots:
    """Which merger has which frames: `mergers[i]` those from `starts[i]` on; `starts[0]` is 0."""

    starts: list[int]
    mergers: list[FaceMerger]

    def frames(self, frames: Generator[Frame], targets: TargetFaces) -> Generator[Frame]:
        """`frames` with the faces in `targets` swapped as their shots say."""
        with closing(frames):
            for number, part in groupby(frames, key=self.number):
                yield from self.mergers[number].frames((frame for frame in part), targets)

    def number(self, frame: Frame) -> int:
        """Which shot `frame` is in, from 0."""
        return bisect_right(self.starts, frame.index) - 1


@dataclass
class Resumption:
    """Leaves out what `writer` has of an earlier run that was stopped.

    The rest comes out as if nothing had been left out: faces that shared a batch do so again, and a
    merger sees the `lead` frames before the first that it is asked for.
    """

    writer: FrameWriter
    targets: TargetFaces
    shots: Shots
    batch_size: int
    lead: int = 0
    kept: int = 0  # frames that were there

    def frames(self, frames: Generator[Frame]) -> Generator[Frame]:
        """`frames` from shortly before the first missing one on.

        The faces of those left out are taken out of `targets`.
        """
        earlier: deque[Frame] = deque()  # of the same shot, from the start of a batch on
        shot = 0
        with closing(frames):
            for frame in frames:
                if self.shots.number(frame) != shot:
                    shot = self.shots.number(frame)
                    self._drop(earlier, len(earlier))
                if not self.writer.has(frame):
                    batches = (len(earlier) - self.lead) // self.batch_size
                    self._drop(earlier, max(0, batches * self.batch_size))
                    yield from earlier
                    yield frame
                    break
                self.kept += 1
                earlier.append(frame)
                if len(earlier) == self.lead + 2 * self.batch_size:
                    self._drop(earlier, self.batch_size)
            else:
                self._drop(earlier, len(earlier))
            yield from frames

    def _drop(self, frames: deque[Frame], count: int) -> None:
        for _ in range(count):
            self.targets.drop(frames.popleft())

    def write(self, frame: Frame) -> None:
        """Writes `frame` unless it is there."""
        if not self.writer.has(frame):
            self.writer.write(frame)
