"""The detector's speed against facenet-pytorch with the same weights, settings and frames.

python benchmarks/bench_mtcnn.py CLIP [--report FILE.json]

Both take turns on the same batches, so that a busy machine slows both; the first batch, in which
JAX compiles, is not counted. Needs PyTorch. Boxes are compared as well.
"""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from common import parse, show
from references.facenet import load

from odfs_jax.config import compose
from odfs_jax.data.media.frame_io import Frame, open_frames
from odfs_jax.extraction.boxes import union_overlap
from odfs_jax.extraction.detectors import build_detector

BATCHES = 12


def main(clip: Path, report: Path | None) -> None:
    every = ["detector.args.search_every=1"]  # so does the other
    detector = build_detector(compose("extract", every).detector)
    s = detector.settings
    with open_frames(clip) as source:
        smallest = max(s.min_face, s.min_face_share * max(source.width, source.height))
        size = detector.frames_per_call(source.height, source.width)
        batches = read(source, size)
        shape = source.height, source.width
    thresholds = (s.pnet_threshold, s.rnet_threshold, s.onet_threshold)
    reference = load(smallest, s.factor, thresholds)
    ours, theirs, overlaps = [], [], []
    for number, batch in enumerate(batches):
        faces, seconds = timed(lambda batch=batch: detector(batch))
        (boxes, *_), other = timed(
            lambda batch=batch: reference.detect(
                np.stack([frame.image for frame in batch]), landmarks=True
            )
        )
        if number:
            ours.append(seconds / len(batch))
            theirs.append(other / len(batch))
        overlaps += [smallest_overlap(*pair) for pair in zip(faces, boxes, strict=True)]
    result = {
        "frames": f"{len(ours) * size} of {shape[1]}x{shape[0]}",
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "jax_frames_per_s": round(1 / statistics.median(ours), 1),
        "torch_frames_per_s": round(1 / statistics.median(theirs), 1),
        "speed_ratio": round(
            statistics.median(b / a for a, b in zip(ours, theirs, strict=True)), 2
        ),
        "smallest_iou": round(min(overlaps), 5),
    }
    show(result, report)


def read(source, size: int) -> list[list[Frame]]:
    """The first full batches of the clip, one more than are counted."""
    frames = [frame for frame, _ in zip(source, range(size * (BATCHES + 1)), strict=False)]
    return [frames[i : i + size] for i in range(0, len(frames) - size + 1, size)]


def timed(call: Callable) -> tuple:
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def smallest_overlap(faces, boxes) -> float:
    """The least IoU of the faces of one frame; 0 when the counts differ."""
    boxes = [] if boxes is None else np.asarray(boxes, np.float32)
    if len(faces) != len(boxes):
        return 0.0
    pairs = zip(faces, boxes, strict=True)
    return min((float(union_overlap(f.box, b[None])[0]) for f, b in pairs), default=1.0)


if __name__ == "__main__":
    options = parse(__doc__, "clip")
    main(options.clip, options.report)
