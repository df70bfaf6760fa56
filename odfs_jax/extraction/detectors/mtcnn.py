"""MTCNN as a batched cascade: P-Net over a pyramid, then R-Net and O-Net on its candidates.

All pixels are read on the device from one integral image a frame. Every call has a fixed shape: the
P-Net runs on whole batches of frames, R-Net and O-Net on chunks of candidates of all frames of the
batch, the last chunk padded. Source: Zhang et al. 2016 (see `nets.detectors.mtcnn`); the arithmetic
of boxes follows the authors' Matlab code and so gives what its other ports give.
"""

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from odfs_jax.config import within
from odfs_jax.data.media.frames import Frame
from odfs_jax.extraction import boxes
from odfs_jax.extraction.detection import Detection, Detector, largest_first
from odfs_jax.extraction.detectors import integral
from odfs_jax.extraction.weights import mtcnn_params
from odfs_jax.faces.warp import map_in_groups
from odfs_jax.nets.detectors import mtcnn as nets

log = logging.getLogger(__name__)

RNET_CHUNK = 64  # candidates a call
ONET_CHUNK = 16
# On a CPU, at a time: what lies between the layers then stays in a core's cache, and all cores are
# kept busy by several calls at once (`pipeline.Finder`).
FRAMES_AT_ONCE, RNET_AT_ONCE, ONET_AT_ONCE = 1, 8, 4


@dataclass(frozen=True)
class MtcnnSettings:
    """What `configs/detector/mtcnn*.yaml` sets under `args`; the meanings stand there."""

    min_face: float = within(1)
    min_face_share: float = within(0, 1)
    factor: float = within(0.1, 0.99)  # at 1 the pyramid would never end
    pnet_threshold: float = within(0, 1)
    rnet_threshold: float = within(0, 1)
    onet_threshold: float = within(0, 1)
    candidates: int = within(1, 1 << 20)
    search_every: int = within(1, 100)


@dataclass
class _Candidates:
    """Boxes of all frames of a batch: `frame` [n] says whose, `boxes` [n,4], `scores` [n]."""

    frame: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    def __getitem__(self, keep: np.ndarray) -> "_Candidates":
        return _Candidates(self.frame[keep], self.boxes[keep], self.scores[keep])

    def suppressed(self, limit: float, overlap: boxes.Overlap = boxes.union_overlap) -> np.ndarray:
        """Indices that stay after suppression within each frame."""
        kept = [np.zeros(0, np.int64)]
        for frame in np.unique(self.frame):
            own = np.flatnonzero(self.frame == frame)
            kept.append(own[boxes.suppress(self.boxes[own], self.scores[own], limit, overlap)])
        return np.concatenate(kept)


class MtcnnDetector(Detector):
    """The detector. One instance compiles once for each frame size that it meets.

    It searches every frame that a call is given: `KeyframeDetector` is what gives it fewer.
    """

    name = "mtcnn"

    def __init__(self, settings: MtcnnSettings, batch_size: int) -> None:
        self.settings = settings
        self.batch_size = batch_size
        self.params = jax.device_put(mtcnn_params())
        on_rects = functools.partial(jax.jit, static_argnums=(0, 1, 2))(_on_rects)
        self._rnet = functools.partial(on_rects, nets.RNet(), nets.RNET_SIZE, RNET_AT_ONCE)
        self._onet = functools.partial(on_rects, nets.ONet(), nets.ONET_SIZE, ONET_AT_ONCE)
        self._pnet = jax.jit(self._propose)

    def __call__(self, frames: Sequence[Frame]) -> list[list[Detection]]:
        """The faces of each of at most `frames_per_call` frames of one size, the largest first."""
        count = self.frames_per_call(*frames[0].image.shape[:2])
        integrals = self.load(frames, count)
        return self.search(integrals, np.arange(len(frames)), count)[: len(frames)]

    def load(self, frames: Sequence[Frame], count: int) -> jax.Array:
        """The integral images int32 [count,H+1,W+1,3] of at most `count` frames of one size.

        Valid until the same thread loads others; 0 for frames that are missing.
        """
        return integral.integral_images([frame.image for frame in frames], count)

    def search(
        self, integrals: jax.Array, places: np.ndarray, at_once: int
    ) -> list[list[Detection]]:
        """For each of the `integrals` its faces, the largest first; none if not in `places` [n].

        The P-Net takes `at_once` frames a call.
        """
        height, width = integrals.shape[1] - 1, integrals.shape[2] - 1
        if not pyramid(height, width, self.settings):  # the frame is smaller than any face
            return [[] for _ in range(len(integrals))]
        return self._refine_candidates(integrals, self._first_stage(integrals, places, at_once))

    def refine(
        self, integrals: jax.Array, places: np.ndarray, near: np.ndarray
    ) -> list[list[Detection]]:
        """For each of the `integrals` its faces, the largest first, without the P-Net.

        They are looked for in squares around the boxes `near` float32 [m,4] (left, top, right,
        bottom; pixels), which lie in the frames at `places` int [m].
        """
        scores = np.ones(len(places), np.float32)
        return self._refine_candidates(integrals, _Candidates(places, boxes.square(near), scores))

    def _refine_candidates(
        self, integrals: jax.Array, candidates: _Candidates
    ) -> list[list[Detection]]:
        """For each frame the faces among the `candidates`, the largest first."""
        return self._third_stage(integrals, self._second_stage(integrals, candidates))

    def _first_stage(self, integrals: jax.Array, places: np.ndarray, at_once: int) -> _Candidates:
        """Candidates in the frames at `places`, of which a call takes `at_once`."""
        groups = [places[start : start + at_once] for start in range(0, len(places), at_once)]
        running = [
            self._pnet(self.params["pnet"], integrals, _padded(group, at_once)) for group in groups
        ]
        levels = [
            [np.concatenate(parts)[: len(places)] for parts in zip(*level, strict=True)]
            for level in zip(*jax.device_get(running), strict=True)
        ]
        scales = pyramid(integrals.shape[1] - 1, integrals.shape[2] - 1, self.settings)
        parts, dropped = [], 0
        for scale, (scores, offsets) in zip(scales, levels, strict=True):
            place = np.nonzero(scores >= self.settings.pnet_threshold)
            place, too_many = likeliest(place, scores[place], self.settings.candidates)
            dropped += too_many
            place_of, rows, columns = place
            found = _Candidates(places[place_of], cell_boxes(rows, columns, scale), scores[place])
            keep = found.suppressed(0.5)
            found, offsets = found[keep], offsets[place][keep]
            parts.append((found.frame, found.boxes, found.scores, offsets))
        self._report_dropped(dropped)
        *fields, offsets = (np.concatenate(part) for part in zip(*parts, strict=True))
        found = _Candidates(*fields)
        keep = found.suppressed(0.7)
        found, offsets = found[keep], offsets[keep]
        found.boxes = boxes.square(boxes.shift_edges(found.boxes, offsets, 0))
        return found

    def _second_stage(self, integrals: jax.Array, found: _Candidates) -> _Candidates:
        found, (scores, offsets) = self._classify("rnet", integrals, found, RNET_CHUNK)
        found.scores = scores
        keep = np.flatnonzero(scores > self.settings.rnet_threshold)
        keep = keep[found[keep].suppressed(0.7)]
        found = found[keep]
        found.boxes = boxes.square(boxes.shift_edges(found.boxes, offsets[keep], 1))
        return found

    def _third_stage(self, integrals: jax.Array, found: _Candidates) -> list[list[Detection]]:
        found, (scores, offsets, points) = self._classify("onet", integrals, found, ONET_CHUNK)
        found.scores = scores
        keep = np.flatnonzero(scores > self.settings.onet_threshold)
        found, offsets, points = found[keep], offsets[keep], points[keep]
        corner, size = found.boxes[:, None, :2], found.boxes[:, None, 2:] - found.boxes[:, None, :2]
        points = corner + points * (size + 1) - 1
        found.boxes = boxes.shift_edges(found.boxes, offsets, 1)
        result: list[list[Detection]] = [[] for _ in range(len(integrals))]
        for i in found.suppressed(0.7, boxes.smaller_overlap):
            face = Detection(found.boxes[i], points[i], float(found.scores[i]))
            result[found.frame[i]].append(face)
        return [largest_first(faces) for faces in result]

    def _classify(
        self, net: str, integrals: jax.Array, found: _Candidates, chunk: int
    ) -> tuple[_Candidates, list[np.ndarray]]:
        """`found` without the boxes outside the frame, and the outputs of `net` on the others."""
        height, width = integrals.shape[1] - 1, integrals.shape[2] - 1
        rects = boxes.pixel_rects(found.boxes, width, height)
        inside = np.flatnonzero((rects[:, 2:] > rects[:, :2]).all(axis=1))
        found, rects = found[inside], rects[inside]
        run = self._rnet if net == "rnet" else self._onet
        outputs = []
        for start in range(0, max(len(rects), 1), chunk):  # at least once, for the shapes
            frame = _padded(found.frame[start : start + chunk], chunk)
            rect = _padded(rects[start : start + chunk], chunk)
            outputs.append(run(self.params[net], integrals, frame, rect))
        joined = [np.concatenate(part) for part in zip(*jax.device_get(outputs), strict=True)]
        return found, [part[: len(rects)] for part in joined]

    def _propose(
        self, params: dict, integrals: jax.Array, places: jax.Array
    ) -> list[tuple[jax.Array, jax.Array]]:
        """Of the frames at `places` [n] the P-Net's face probabilities and offsets.

        [n,h,w] and [n,h,w,4] for each pyramid level.
        """
        height, width = integrals.shape[1] - 1, integrals.shape[2] - 1
        pictures = []
        for scale in pyramid(height, width, self.settings):
            size = int(height * scale + 1), int(width * scale + 1)
            reduce = functools.partial(integral.reduce_frame, height=size[0], width=size[1])
            picture = jax.vmap(reduce, (None, 0))(integrals, places)
            pictures.append(_normalize(picture))

        def look(*pictures: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
            return [nets.PNet().apply(params, picture) for picture in pictures]

        return map_in_groups(look, FRAMES_AT_ONCE, *pictures)

    def _report_dropped(self, count: int) -> None:
        if count:
            log.warning(
                "detector: more than %d candidates on a pyramid level, the %d least likely left "
                "out; raise detector.args.candidates",
                self.settings.candidates,
                count,
            )


def pyramid(height: int, width: int, settings: MtcnnSettings) -> list[float]:
    """Scales of the frame at which the P-Net looks for faces, largest picture first."""
    smallest = max(settings.min_face, settings.min_face_share * max(height, width))
    scale, scales = nets.PNET_CELL / smallest, []
    while min(height, width) * scale >= nets.PNET_CELL:
        scales.append(scale)
        scale *= settings.factor
    return scales


def likeliest(
    place: tuple[np.ndarray, ...], scores: np.ndarray, most: int
) -> tuple[tuple[np.ndarray, ...], int]:
    """(`place` with at most the `most` highest of `scores` [m] in each frame, how many went).

    `place` are indices [m] as of `np.nonzero`, the first of them of frames, ascending.
    """
    order = np.lexsort((-scores, place[0]))
    first = np.searchsorted(place[0], place[0])  # of each one's frame; frames ascend
    keep = np.sort(order[np.arange(len(order)) - first < most])
    return tuple(index[keep] for index in place), len(order) - len(keep)


def cell_boxes(rows: np.ndarray, columns: np.ndarray, scale: float) -> np.ndarray:
    """float32 [m,4]: what the P-Net's outputs at `rows` and `columns` see of the frame."""
    start = np.stack([columns, rows], axis=-1) * nets.PNET_STRIDE + 1
    corners = np.concatenate([start, start + nets.PNET_CELL - 1], axis=-1).astype(np.float32)
    return np.floor(corners / np.float32(scale))


def _on_rects(
    net: nets.RNet | nets.ONet, size: int, at_once: int, params: dict, integrals: jax.Array,
    frame: jax.Array, rect: jax.Array,
) -> tuple[jax.Array, ...]:  # fmt: skip
    """`net` on the rectangles `rect` [k,4] of the frames number `frame` [k]."""
    crops = jax.vmap(lambda f, r: integral.reduce_rect(integrals[f], r, size))(frame, rect)
    return map_in_groups(functools.partial(net.apply, params), at_once, _normalize(crops))


def _normalize(pixels: jax.Array) -> jax.Array:
    return (pixels - 127.5) * 0.0078125


def _padded(values: np.ndarray, length: int) -> np.ndarray:
    padding = [(0, length - len(values))] + [(0, 0)] * (values.ndim - 1)
    return np.pad(values.astype(np.int32), padding, mode="edge" if len(values) else "constant")
