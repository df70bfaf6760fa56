"""S3FD as a detector: batches of frames in, boxes without points out.

Source: see `nets.detectors.s3fd`.
"""

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from odfs_jax.config import within
from odfs_jax.data.media.frames import Frame
from odfs_jax.extraction import boxes
from odfs_jax.extraction.detection import Detection, Detector, largest_first, reduced
from odfs_jax.extraction.weights import SFD, find_weights, load_variables
from odfs_jax.nets.detectors import s3fd as nets

log = logging.getLogger(__name__)

OVERLAP = 0.3  # above which the less likely of two boxes goes, as in face-alignment
SMALLEST = 32  # pixels of a frame's shorter side; below it a map of the network would be empty


@dataclass(frozen=True)
class S3fdSettings:
    """What `configs/detector/sfd.yaml` sets under `args`; the meanings stand there."""

    weights: str | None
    threshold: float = within(0, 1)
    max_side: int = within(64, 1 << 14)
    candidates: int = within(1, 1 << 20)


class S3fdDetector(Detector):
    """The detector. One instance compiles once for each frame size that it meets."""

    name = "sfd"

    def __init__(self, settings: S3fdSettings, batch_size: int) -> None:
        self.settings = settings
        self.batch_size = batch_size
        path = find_weights(SFD, settings.weights)
        self.variables = jax.device_put(sfd_variables(path))
        self._run = jax.jit(functools.partial(best_boxes, count=settings.candidates))

    def __call__(self, frames: Sequence[Frame]) -> list[list[Detection]]:
        """The faces of each of at most `frames_per_call` frames of one size, the largest first."""
        height, width, _ = frames[0].image.shape
        pictures, scale = zip(
            *(reduced(f.image, self.settings.max_side) for f in frames), strict=True
        )
        if min(pictures[0].shape[:2]) < SMALLEST:
            return [[] for _ in frames]
        batch = np.zeros((self.frames_per_call(height, width), *pictures[0].shape), np.uint8)
        batch[: len(frames)] = pictures
        found, scores = (x[: len(frames)] for x in jax.device_get(self._run(self.variables, batch)))
        if (scores[:, -1] > self.settings.threshold).any():
            log.warning(
                "detector: more than %d candidates in a frame, the least likely left out; raise "
                "detector.args.candidates",
                self.settings.candidates,
            )
        return [self._faces(*pair, scale[0]) for pair in zip(found, scores, strict=True)][
            : len(frames)
        ]

    def _faces(self, found: np.ndarray, scores: np.ndarray, scale: float) -> list[Detection]:
        likely = scores > self.settings.threshold
        found, scores = found[likely], scores[likely]
        overlap = functools.partial(boxes.union_overlap, margin=1)
        keep = boxes.suppress(found, scores, OVERLAP, overlap)
        return largest_first(Detection(found[i] / scale, None, float(scores[i])) for i in keep)


def sfd_variables(path: Path) -> dict:
    """The variables of `nets.detectors.s3fd.Sfd` from a weight file. Raises UserError."""
    return load_variables(nets.S3fdNet(), (1, 64, 64, 3), path)


def best_boxes(variables: dict, pixels: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """The `count` likeliest boxes [N,count,4] of uint8 frames [N,H,W,3], and scores [N,count]."""
    height, width = pixels.shape[1:3]
    logits, locations = nets.S3fdNet().apply(variables, pixels.astype(jnp.float32))
    found = nets.decode(locations, height, width)
    scores, cell = jax.lax.top_k(jax.nn.sigmoid(logits), min(count, logits.shape[1]))
    return jnp.take_along_axis(found, cell[..., None], axis=1), scores
