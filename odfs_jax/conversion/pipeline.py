"""Frames in, swapped frames out: faces of several frames share a batch on the device.

The network sees dst's own frames. A frame waits until the frames after it are predicted too, as far
as colors are averaged along a face's track; then its faces are composited, far ones first.
"""

import dataclasses
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby, islice, zip_longest
from pathlib import Path

import cv2
import jax
import numpy as np

from odfs_jax.conversion.face_region import SIDES, Region, read_region, write_region
from odfs_jax.conversion.masks import outline_masks
from odfs_jax.conversion.merge import Merge, Placement
from odfs_jax.conversion.target_faces import TargetFaces
from odfs_jax.conversion.tracks import Face, Tracker
from odfs_jax.data import atomic
from odfs_jax.data.media import png
from odfs_jax.data.media.frames import Frame, FrameWriter
from odfs_jax.frame_ranges import FrameRanges
from odfs_jax.inference import Swapper

FULL_BATCH_SIDE = 512  # larger regions go in smaller batches, so that memory stays bounded
CELL, COLUMNS, LABEL = 192, 4, 20  # of a contact sheet: pixels, cells, pixels

FaceInImage = tuple[np.ndarray, Face]  # a frame's pixels and one face in them


@dataclass
class Counts:
    """How many frames and faces were converted."""

    frames: int = 0
    faces: int = 0  # swapped
    unselected: int = 0  # frames that frames= leaves out
    empty: int = 0  # frames of the others without a face
    unclear: int = 0  # faces for which the network gave no solid mask


@dataclass
class WaitingFrame:
    """A frame whose faces are predicted but not yet composited, far ones first."""

    frame: Frame
    faces: list[Face]


@dataclass
class FaceMerger:
    """Merges the faces of many frames in batches of fixed shapes."""

    swapper: Swapper
    merge: Merge
    batch_size: int
    counts: Counts = dataclasses.field(default_factory=Counts)
    sheets: Path | None = None  # the folder for a contact sheet of each face; None: none are drawn
    # (regions, model_from_region) -> uint8 [N, R, R], of merge.mask=network: see `build_seeing`
    see: Callable[[np.ndarray, np.ndarray], jax.Array] | None = None
    # By number, merges of frames whose amounts differ from those of `merge`: see `Amounts`
    ramp: Mapping[int, Merge] = dataclasses.field(default_factory=dict)

    @property
    def window(self) -> int:
        """How many frames before and after a frame its merge depends on."""
        return max(merge.window for merge in (self.merge, *self.ramp.values()))

    @property
    def region_scale(self) -> float:
        """How much larger than the face square a region must be, for every merge: see `Merge`."""
        return max(merge.region_scale for merge in (self.merge, *self.ramp.values()))

    def frames(self, frames: Generator[Frame], targets: TargetFaces) -> Generator[Frame]:
        """`frames` in their order, with the faces in `targets` swapped; the others unchanged.

        A frame depends on `window` frames before it: to get it as it is in the whole clip,
        start with these.
        """
        waiting: list[WaitingFrame] = []
        tracker = Tracker()
        with closing(frames):
            while chunk := list(islice(frames, self.batch_size)):
                waiting += self._predict_frames(chunk, targets, tracker)
                while len(waiting) - self.window >= self.batch_size:
                    yield from self._composite_frames(waiting)
                tracker.drop_old(len(waiting) + self.window)
        while waiting:
            yield from self._composite_frames(waiting)

    def _predict_frames(
        self, frames: list[Frame], targets: TargetFaces, tracker: Tracker
    ) -> list[WaitingFrame]:
        """`frames` with their faces, on their tracks, and the network's predictions on the host."""
        spec, scale = self.swapper.output_spec, self.region_scale
        waiting = []
        for frame in frames:
            regions = targets.pop_regions(frame, spec.face_type, spec.resolution, scale)
            waiting.append(WaitingFrame(frame, tracker.add_frame(frame.image, regions)))

        jobs = [(one.frame.image, face) for one in waiting for face in one.faces]
        running = []
        for side, batch in _batches(jobs, self.batch_size):
            pixels, placement = self._stack(side, batch)
            if self.see is not None:
                seen = np.asarray(self.see(pixels, placement.model_from_region))
                for (_, face), own in zip(batch, seen, strict=False):
                    face.region = dataclasses.replace(face.region, seen=own)
                placement = placement._replace(seen=seen)
            running.append((batch, self.merge.predict(self.swapper.params, pixels, placement)))
        for batch, predictions in running:
            predictions = jax.device_get(predictions)
            for index, (_, face) in enumerate(batch):
                face.prediction = jax.tree.map(lambda a, i=index: a[i], predictions)

        chosen = [one for one in waiting if one.frame.index in targets.frames]
        self.counts.frames += len(waiting)
        self.counts.unselected += len(waiting) - len(chosen)
        self.counts.empty += sum(not one.faces for one in chosen)
        return waiting

    def _composite_frames(self, waiting: list[WaitingFrame]) -> list[Frame]:
        """The first frames of `waiting`, which are removed from it, with their faces composited."""
        ready = waiting[: self.batch_size]
        del waiting[: self.batch_size]
        frames = [self._writable(one) for one in ready]
        # A near face is composited after the far ones of its frame: one face of each frame a round.
        for faces in zip_longest(*(one.faces for one in ready)):
            pairs = [(f, face) for f, face in zip(frames, faces, strict=True) if face]
            for number, part in groupby(pairs, lambda pair: self._in_ramp(pair[0])):
                self._composite_faces(self.ramp.get(number, self.merge), list(part))
        return frames

    def _in_ramp(self, frame: Frame) -> int | None:
        """The number of a frame that has a merge of its own; None for the others."""
        return frame.index if frame.index in self.ramp else None

    def _writable(self, one: WaitingFrame) -> Frame:
        """The frame of `one` with an image and weights of its own, where faces change them."""
        image = one.frame.image
        changes = {"weights": np.zeros(image.shape[:2], np.uint8)} if one.faces else {}
        if self.merge.black_background:  # what was stored is not what is below the face
            changes |= {name: np.zeros_like(image) for name in ("image", "plate")}
            changes["stored"] = None
        elif one.faces:
            changes["image"] = image.copy()
        return dataclasses.replace(one.frame, **changes) if changes else one.frame

    def _composite_faces(self, merge: Merge, pairs: list[tuple[Frame, Face]]) -> None:
        """Writes the new faces of `pairs`, at most one a frame, into their frames by `merge`."""
        frames = {id(face): frame for frame, face in pairs}
        running = []
        for side, batch in _batches([(f.image, face) for f, face in pairs], self.batch_size):
            pixels, placement = self._stack(side, batch, with_motion=merge.needs_motion)
            faces = [face for _, face in batch]
            predictions = [face.smoothed_prediction(self.merge.smoothing) for face in faces]
            prediction = jax.tree.map(
                lambda *arrays: np.stack(arrays), *self._padded(side, predictions)
            )
            if self.sheets:
                self._draw_sheets(faces, frames, merge.show(pixels, placement, prediction))
            running.append((side, faces, merge.composite(pixels, placement, prediction)))
        for side, faces, merged in running:
            merged = jax.device_get(merged)
            for index, face in enumerate(faces):
                region = face.region.widened(side)
                _write_face(frames[id(face)], region, merged.pixels[index], merged.alpha[index])
                # The track needs the statistics only.
                face.prediction = face.prediction._replace(faces=None, masks=None, dst_masks=None)
            unclear = int((merged.side[: len(faces)] == 0).sum())
            self.counts.faces += len(faces) - unclear
            self.counts.unclear += unclear

    def _draw_sheets(
        self, faces: list[Face], frames: dict[int, Frame], pictures: dict[str, jax.Array]
    ) -> None:
        """A sheet of each face: FRAME_LEFT_TOP.png, named for the face's place in the frame."""
        pictures = jax.device_get(pictures)
        for index, face in enumerate(faces):
            left, top = face.region.left, face.region.top
            name = f"{frames[id(face)].index:05d}_{left}_{top}"
            labels = sorted(pictures)
            write_sheet(self.sheets, name, {label: pictures[label][index] for label in labels})

    def _stack(
        self, side: int, jobs: list[FaceInImage], *, with_motion: bool = False
    ) -> tuple[np.ndarray, Placement]:
        """(regions uint8 [N, side, side, 3], where their faces are), padded to a full batch."""
        regions = [face.region.widened(side) for _, face in jobs]
        pixels = [read_region(job[0], region) for job, region in zip(jobs, regions, strict=True)]
        motion = outlines = None
        if with_motion:
            motion = [job[1].motion(region) for job, region in zip(jobs, regions, strict=True)]
        if self.merge.needs_outlines:
            size, keep = self.swapper.output_spec.resolution, tuple(self.merge.config.keep)
            outlines = [outline_masks(region.points, size, keep) for region in regions]
        seen = self._seen(regions, outlines)
        matrices = [region.model_from_region for region in regions]
        pixels, *placement = (
            None if values is None else np.stack(self._padded(side, values))
            for values in (pixels, matrices, motion, outlines, seen)
        )
        return pixels, Placement(*placement)

    def _seen(
        self, regions: list[Region], outlines: list[np.ndarray] | None
    ) -> list[np.ndarray] | None:
        """What is seen of each face, uint8 [R, R]; None: nothing is known to be before any."""
        if self.merge.sees is None:
            return None
        if self.merge.config.mask.startswith("stored"):
            others = [outline[..., 0] for outline in outlines]  # the hull stands for it
        elif any(region.seen is not None for region in regions):
            size = self.swapper.output_spec.resolution
            others = [np.full((size, size), 255, np.uint8)] * len(regions)
        else:
            return None
        pairs = zip(regions, others, strict=True)
        return [other if region.seen is None else region.seen for region, other in pairs]

    def _padded(self, side: int, values: list) -> list:
        """`values` with the last one repeated, so that batches have one shape a region size."""
        return values + [values[-1]] * (_capacity(side, self.batch_size) - len(values))


def _batches(jobs: list[FaceInImage], batch_size: int) -> Generator[tuple[int, list[FaceInImage]]]:
    """(region side, jobs) of each device call; a face may go in a region one size too large."""
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


def _write_face(frame: Frame, region: Region, pixels: np.ndarray, alpha: np.ndarray) -> None:
    """Writes `pixels` [S, S, 3] into the image and composites `alpha` [S, S] over the weights."""
    write_region(frame.image, region, pixels)
    plane = frame.weights[..., None]
    below, above = read_region(plane, region).astype(np.float32), alpha[..., None] / 255
    write_region(plane, region, np.rint(below + above * (255 - below)).astype(np.uint8))


# ---- Clips in shots, and runs that were stopped ----


@dataclass(frozen=True)
class ShotMergers:
    """The merger of each shot: `mergers[i]` for frames from `starts[i]` on; `starts[0]` is 0."""

    starts: list[int]
    mergers: list[FaceMerger]

    def frames(self, frames: Generator[Frame], targets: TargetFaces) -> Generator[Frame]:
        """`frames` with the faces in `targets` swapped, each by the merger of its shot."""
        with closing(frames):
            for number, part in groupby(frames, key=self.shot_number):
                yield from self.mergers[number].frames((frame for frame in part), targets)

    def shot_number(self, frame: Frame) -> int:
        """The number of the shot that `frame` is in, from 0."""
        return self._shot_of(frame.index)

    def whole_batches(
        self, own: FrameRanges, batch_size: int, window: int
    ) -> tuple[int, int | None]:
        """The first frame to be merged for those in `own`, and the number behind the last.

        With these, and the batches of `batch_size` frames that they then come in, `own` frames are
        merged as in the whole clip; see `FaceMerger.frames` for `window`. None: to the clip's end.
        """
        first, last = own.ranges[0][0], own.ranges[-1][1]
        shot = self.starts[self._shot_of(first)]
        begin = shot + max(0, (first - shot - window) // batch_size * batch_size)
        if last is None:
            return begin, None
        shot = self.starts[self._shot_of(last)]
        batches = -(-(last + 1 + window - shot) // batch_size)
        return begin, shot + batches * batch_size

    def _shot_of(self, index: int) -> int:
        return bisect_right(self.starts, index) - 1


@dataclass
class Resumption:
    """Leaves out the frames that `writer` has from an earlier run that was stopped.

    The other frames come out as if none were left out: faces that shared a batch share it again,
    and a merger gets the `lead` frames before the first one that is missing.
    """

    writer: FrameWriter
    targets: TargetFaces
    shots: ShotMergers
    batch_size: int
    lead: int = 0
    kept: int = 0  # frames that were there

    def frames(self, frames: Generator[Frame]) -> Generator[Frame]:
        """`frames` from shortly before the first missing one on.

        The faces of those left out are removed from `targets`.
        """
        earlier: deque[Frame] = deque()  # of the same shot, from the start of a batch on
        shot = 0
        with closing(frames):
            for frame in frames:
                if self.shots.shot_number(frame) != shot:
                    shot = self.shots.shot_number(frame)
                    self._leave_out(earlier, len(earlier))
                if not self.writer.has(frame):
                    batches = (len(earlier) - self.lead) // self.batch_size
                    self._leave_out(earlier, max(0, batches * self.batch_size))
                    yield from earlier
                    yield frame
                    break
                self.kept += 1
                earlier.append(frame)
                if len(earlier) == self.lead + 2 * self.batch_size:
                    self._leave_out(earlier, self.batch_size)
            else:
                self._leave_out(earlier, len(earlier))
            yield from frames

    def _leave_out(self, frames: deque[Frame], count: int) -> None:
        for _ in range(count):
            self.targets.remove(frames.popleft())

    def write(self, frame: Frame) -> None:
        """Writes `frame` unless it is there."""
        if not self.writer.has(frame):
            self.writer.write(frame)


# ---- debug=true: a contact sheet of all steps of a face's merge ----


def sheets_folder(result: Path) -> Path:
    """The folder for the sheets of the conversion to `result`: `<result>_debug/`."""
    return result.with_name(f"{result.stem}_debug")


def write_sheet(folder: Path, name: str, pictures: dict[str, np.ndarray]) -> None:
    """Draws `pictures`, float [h, w, 3] or [h, w] in [0, 1], as `folder`/`name`.png.

    They are labelled with their names and scaled to one size, in their order. A sheet of that name
    from an earlier conversion is replaced. Raises OSError.
    """
    cells = [_cell(label, picture) for label, picture in pictures.items()]
    blank = np.full_like(cells[0], 255)
    cells += [blank] * (-len(cells) % COLUMNS)
    rows = [np.hstack(cells[i : i + COLUMNS]) for i in range(0, len(cells), COLUMNS)]
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(folder / f"{name}.png", png.encode(np.vstack(rows)))


def _cell(label: str, picture: np.ndarray) -> np.ndarray:
    """`picture` below its label, uint8 [CELL + LABEL, CELL, 3]."""
    pixels = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=-1)
    interpolation = cv2.INTER_AREA if pixels.shape[0] > CELL else cv2.INTER_NEAREST
    pixels = cv2.resize(pixels, (CELL, CELL), interpolation=interpolation)
    header = np.full((LABEL, CELL, 3), 255, np.uint8)
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(header, label, (4, LABEL - 6), font, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([header, pixels])
