"""dlib's MMOD CNN as a detector, in processes of its own: dlib keeps Python's lock while it works.

Source: King, "Max-margin object detection", arXiv:1502.00046; the network comes with
face-recognition-models.
"""

import functools
import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from odfs_jax.config import within
from odfs_jax.data.media.frames import Frame
from odfs_jax.data.parallel import cores
from odfs_jax.extraction.detection import Detection, Detector, largest_first, reduced
from odfs_jax.faces.packaged_weights import package_file
from odfs_jax.runtime.extras import extra
from odfs_jax.runtime.processes import spawn_context

Found = list[tuple[tuple[float, float, float, float], float]]  # boxes and confidences


@dataclass(frozen=True)
class DlibSettings:
    """What `configs/detector/dlib.yaml` sets under `args`; the meanings stand there."""

    upsample: int = within(0, 3)
    max_side: int = within(64, 1 << 14)
    threshold: float = within(0)


class DlibDetector(Detector):
    """The detector: boxes without points, one frame a process at a time."""

    name = "dlib"

    def __init__(self, settings: DlibSettings, batch_size: int) -> None:
        self.settings = settings
        self.batch_size = batch_size
        with extra("identity"):
            import dlib
        processes = 1 if dlib.DLIB_USE_CUDA else cores()  # one card serves one process best
        self._pool = ProcessPoolExecutor(processes, spawn_context(), _end_with_parent)

    def __call__(self, frames: Sequence[Frame]) -> list[list[Detection]]:
        """The faces of each of the `frames`, the largest first. Scores above 1 become 1."""
        pictures, scales = zip(
            *(reduced(f.image, self.settings.max_side) for f in frames), strict=True
        )
        found = self._pool.map(functools.partial(find, upsample=self.settings.upsample), pictures)
        return [
            largest_first(
                Detection(np.array(box, np.float32) / scale, None, min(score, 1.0))
                for box, score in faces
                if score >= self.settings.threshold
            )
            for faces, scale in zip(found, scales, strict=True)
        ]


def find(image: np.ndarray, upsample: int) -> Found:
    """What the network finds in `image` (uint8 RGB [H,W,3]), doubled in size `upsample` times."""
    found = _network()(np.ascontiguousarray(image), upsample)
    edges = [(r.rect.left(), r.rect.top(), r.rect.right(), r.rect.bottom()) for r in found]
    return [(edge, float(r.confidence)) for edge, r in zip(edges, found, strict=True)]


@functools.cache
def _network() -> Any:
    import dlib

    inner = "models/mmod_human_face_detector.dat"
    return dlib.cnn_face_detection_model_v1(str(package_file("face_recognition_models", inner)))


def _end_with_parent() -> None:
    """Ends this process when its parent is killed: it would wait for work for ever."""

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
