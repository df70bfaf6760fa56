"""MTCNN as a batched cascade: P-Net over a pyramid, then R-Net and O-Net on its candidates.

All pixels are read on the device from one integral image a frame. Every call has a fixed shape: the
P-Net runs on whole batches of frames, R-Net and O-Net on chunks of candidates of all frames of the
batch, the last chunk padded. Source: Zhang et al. 2016 (see `nets.mtcnn`); the arithmetic of boxes
follows the authors' Matlab code and so gives what its other ports give.
"""

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from odfs_jax.data.frames import Frame
from odfs_jax.extraction import area, boxes
from odfs_jax.extraction.detection import Detection, batch_within, largest_first
from odfs_jax.extraction.settings import within
from odfs_jax.extraction.weights import mtcnn_params
from odfs_jax.inference import in_groups
from odfs_jax.nets import mtcnn as nets

log = logging.getLogger(__name__)

RNET_CHUNK = 64  # candidates a call
ONET_CHUNK = 16
# On a CPU, at a time: what lies between the layers then stays in a core's cache, and all cores are
# kept busy by several calls at once (`pipeline.Finder`).
FRAMES_AT_ONCE, RNET_AT_ONCE, ONET_AT_ONCE = 1, 8, 4


@dataclass(frozen=True)
class Settings:
    """What `configs/detector/mtcnn*.yaml` sets under `args`; the meanings stand there."""

    min_face: float = within(1)
    min_face_share: float = within(0, 1)
    factor: float = within(0.1, 0.99)  # at 1 the pyramid would never end
    pnet_threshold: float = within(0, 1)
    rnet_threshold: float = within(0, 1)
    onet_threshold: float = within(0, 1)
    candidates: int = within(1, 1 << 20)


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


class Mtcnn:
    """The detector. One instance compiles once for each frame size that it meets."""

    name = "mtcnn"

    def __init__(self, settings: Settings, batch_size: int) -> None:
        self.settings = settings
        self.batch_size = batch_size
        self.params = jax.device_put(mtcnn_params())
        on_rects = functools.partial(jax.jit, static_argnums=(0, 1, 2))(_on_rects)
        self._rnet = functools.partial(on_rects, nets.RNet(), nets.RNET_SIZE, RNET_AT_ONCE)
        self._onet = functools.partial(on_rects, nets.ONet(), nets.ONET_SIZE, ONET_AT_ONCE)
        self._pnet = jax.jit(self._propose)

    def frames_per_call(self, height: int, width: int) -> int:
        """How many frames of this size a call takes: `batch_size`, fewer of very large ones."""
        return batch_within(self.batch_size, height, width)

    def __call__(self, frames: Sequence[Frame]) -> list[list[Detection]]:
        """The faces of each of at most `frames_per_call` frames of one size, the largest first."""
        height, width, _ = frames[0].image.shape
        if not pyramid(height, width, self.settings):  # the frame is smaller than any face
            return [[] for _ in frames]
        count = self.frames_per_call(height, width)
        integrals = np.zeros((count, height + 1, width + 1, 3), np.int32)
        for i, frame in enumerate(frames):
            integrals[i] = area.integral_image(frame.image)
        on_device = jax.device_put(integrals)
        found = self._first_stage(on_device, len(frames))
        found = self._second_stage(on_device, found)
        return self._third_stage(on_device, found, len(frames))

    def _first_stage(self, integrals: jax.Array, frames: int) -> _Candidates:
        levels, counts = jax.device_get(self._pnet(self.params["pnet"], integrals))
        levels, counts = [c[:frames] for c in levels], [n[:frames] for n in counts]
        self._report_dropped(levels, counts)
        parts = []
        for cells in levels:  # [n, k, 9]: box, score, offsets
            frame, cell = np.nonzero(cells[..., 4] >= self.settings.pnet_threshold)
            cells = cells[frame, cell]
            keep = _Candidates(frame, cells[:, :4], cells[:, 4]).suppressed(0.5)
            parts.append((frame[keep], cells[keep]))
        frame, cells = (np.concatenate(part) for part in zip(*parts, strict=True))
        found = _Candidates(frame, cells[:, :4], cells[:, 4])
        keep = found.suppressed(0.7)
        found, offsets = found[keep], cells[keep, 5:]
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

    def _third_stage(
        self, integrals: jax.Array, found: _Candidates, frames: int
    ) -> list[list[Detection]]:
        found, (scores, offsets, points) = self._classify("onet", integrals, found, ONET_CHUNK)
        found.scores = scores
        keep = np.flatnonzero(scores > self.settings.onet_threshold)
        found, offsets, points = found[keep], offsets[keep], points[keep]
        corner, size = found.boxes[:, None, :2], found.boxes[:, None, 2:] - found.boxes[:, None, :2]
        points = corner + points * (size + 1) - 1
        found.boxes = boxes.shift_edges(found.boxes, offsets, 1)
        result: list[list[Detection]] = [[] for _ in range(frames)]
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
        self, params: dict, integrals: jax.Array
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        """For each pyramid level the best cells [n, k, 9] and how many cells [n] passed."""
        height, width = integrals.shape[1] - 1, integrals.shape[2] - 1
        scales, pictures = pyramid(height, width, self.settings), []
        for scale in scales:
            size = int(height * scale + 1), int(width * scale + 1)
            picture = jax.vmap(lambda i, size=size: area.reduce_frame(i, *size))(integrals)
            pictures.append(_normalise(picture))

        def look(*pictures: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
            maps = [nets.PNet().apply(params, picture) for picture in pictures]
            pairs = zip(maps, scales, strict=True)
            return [_best_cells(*found, scale, self.settings) for found, scale in pairs]

        found = in_groups(look, FRAMES_AT_ONCE, *pictures)
        return [cells for cells, _ in found], [count for _, count in found]

    def _report_dropped(self, levels: list[np.ndarray], counts: list[np.ndarray]) -> None:
        dropped = sum(np.maximum(n - c.shape[1], 0) for c, n in zip(levels, counts, strict=True))
        if np.any(dropped):
            log.warning(
                "detector: more than %d candidates on a pyramid level, the %s least likely left "
                "out; raise detector.args.candidates",
                self.settings.candidates,
                int(np.sum(dropped)),
            )


def pyramid(height: int, width: int, settings: Settings) -> list[float]:
    """Scales of the frame at which the P-Net looks for faces, largest picture first."""
    smallest = max(settings.min_face, settings.min_face_share * max(height, width))
    scale, scales = nets.PNET_CELL / smallest, []
    while min(height, width) * scale >= nets.PNET_CELL:
        scales.append(scale)
        scale *= settings.factor
    return scales


def _best_cells(
    scores: jax.Array, offsets: jax.Array, scale: float, settings: Settings
) -> tuple[jax.Array, jax.Array]:
    """The likeliest cells [n, k, 9] (box, score, offsets) and how many passed the threshold."""
    n, _, columns = scores.shape
    passed = jnp.sum(scores >= settings.pnet_threshold, axis=(1, 2))
    scores, cell = jax.lax.top_k(scores.reshape(n, -1), min(settings.candidates, scores[0].size))
    offsets = jnp.take_along_axis(offsets.reshape(n, -1, 4), cell[..., None], axis=1)
    start = jnp.stack([cell % columns, cell // columns], axis=-1) * nets.PNET_STRIDE + 1
    corners = jnp.concatenate([start, start + nets.PNET_CELL - 1], axis=-1).astype(jnp.float32)
    return jnp.concatenate([jnp.floor(corners / scale), scores[..., None], offsets], -1), passed


def _on_rects(
    net: nets.RNet | nets.ONet, size: int, at_once: int, params: dict, integrals: jax.Array,
    frame: jax.Array, rect: jax.Array,
) -> tuple[jax.Array, ...]:  # fmt: skip
    """`net` on the rectangles `rect` [k,4] of the frames number `frame` [k]."""
    crops = jax.vmap(lambda f, r: area.reduce_rect(integrals[f], r, size))(frame, rect)
    return in_groups(functools.partial(net.apply, params), at_once, _normalise(crops))


def _normalise(pixels: jax.Array) -> jax.Array:
    return (pixels - 127.5) * 0.0078125


def _padded(values: np.ndarray, length: int) -> np.ndarray:
    padding = [(0, length - len(values))] + [(0, 0)] * (values.ndim - 1)
    return np.pad(values.astype(np.int32), padding, mode="edge" if len(values) else "constant")
