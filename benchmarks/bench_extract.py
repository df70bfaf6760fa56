"""Extraction's speed, from the video file to boxes and points, against other programs' parts.

python benchmarks/bench_extract.py CLIP [--report FILE.json]

Four ways over the same clip, taking turns so that a busy machine slows all of them:

  ours       the pipeline of the command: decoding, MTCNN, dlib's 68 points, filters; no writing
  every      the same with detector.args.search_every=1: no frame profits from its neighbours
  facenet    OpenCV's decoding, facenet-pytorch's MTCNN, same weights and settings, batches
             of the same size, dlib's predictor once on each box (in a square, as its users do)
  mtcnn      OpenCV's decoding, the `mtcnn` package frame by frame, dlib likewise; needs TensorFlow

What is not installed is left out. BENCH_FRAMES= is how many frames are read.

The clip at its own size and, enlarged or reduced, at 1080p. The first round, in which JAX compiles,
is not counted. Our points cost more than the others': four starts for each face (docs/accuracy.md).
"""

import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import av
import cv2
import dlib
import jax
import numpy as np
from common import parse, show
from omegaconf import DictConfig
from references.facenet import load

from odfs_jax.cli import use_huge_pages
from odfs_jax.config import compose
from odfs_jax.data.media.frame_io import open_frames
from odfs_jax.extraction import pipeline
from odfs_jax.extraction.extract import build_finders
from odfs_jax.extraction.filters import build_filters, keep_all_of
from odfs_jax.extraction.landmarkers.dlib_trees import dlib68_path

FRAMES, ROUNDS = int(os.environ.get("BENCH_FRAMES", "96")), 3
FULL_HD = (1920, 1080)
TARGET = 2.0  # times the faster of the others


@dataclass
class Runner:
    """One way of finding the faces of a clip: `run(clip)` gives how many it found."""

    run: Callable[[Path], int]
    seconds: list[float] = field(default_factory=list)
    faces: int = 0

    def turn(self, clip: Path) -> None:
        start = time.perf_counter()
        self.faces = self.run(clip)
        self.seconds.append(time.perf_counter() - start)


def main(clip: Path, report: Path | None) -> None:
    use_huge_pages()  # as extract.py does; the others have them too
    config = compose("extract", ["landmarks=dlib68"])
    every = compose("extract", ["landmarks=dlib68", "detector.args.search_every=1"])
    result = {"device": jax.devices()[0].device_kind, "cores": os.cpu_count(), "frames": FRAMES}
    result |= {"rounds": ROUNDS, "target": TARGET, "sizes": {}}
    with tempfile.TemporaryDirectory() as folder:
        for size in (None, FULL_HD):
            path = Path(folder) / "clip.mp4"
            shape = copy(clip, path, size)
            result["sizes"][f"{shape[0]}x{shape[1]}"] = bench(path, max(shape), config, every)
    show(result, report)


def bench(clip: Path, longer: int, config: DictConfig, every: DictConfig) -> dict:
    """Frames a second of each runner (median), and ours over each other's (median of rounds)."""
    runners = {"ours": Runner(Ours(config)), "every": Runner(Ours(every))}
    missing = []
    for name, (package, make) in OTHERS.items():
        if importlib.util.find_spec(package) is None:
            missing.append(f"{name}: {package} is not installed")
        else:
            runners[name] = Runner(make(config, longer))
    for _ in range(ROUNDS + 1):
        for runner in runners.values():
            runner.turn(clip)
    counted = {name: np.array(runner.seconds[1:]) for name, runner in runners.items()}
    others = [name for name in runners if name != "ours"]
    ratio = {n: round(float(np.median(counted[n] / counted["ours"])), 2) for n in others}
    speeds = {n: round(FRAMES / statistics.median(s), 1) for n, s in counted.items()}
    return {
        "frames_per_s": speeds,
        "faces": {name: runner.faces for name, runner in runners.items()},
        "ratio": ratio,
        "not_measured": missing,
    }


def copy(clip: Path, path: Path, size: tuple[int, int] | None) -> tuple[int, int]:
    """The first FRAMES frames as H.264, in `size` (the picture in the middle); (width, height)."""
    with open_frames(clip) as source, av.open(str(path), "w") as out:
        width, height = size or (source.width, source.height)
        stream = out.add_stream("libx264", rate=25, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame, _ in zip(source, range(FRAMES), strict=False):
            image = frame.image if size is None else fitted(frame.image, width, height)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode(None))
    return width, height


def fitted(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """`image` as high as the frame, in its middle, its edges drawn out to both sides."""
    scale = height / image.shape[0]
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    left = (width - image.shape[1]) // 2
    right = width - image.shape[1] - left
    return cv2.copyMakeBorder(image, 0, 0, left, right, cv2.BORDER_REFLECT)


class Ours:
    """The command's own pipeline but for writing."""

    def __init__(self, config: DictConfig) -> None:
        self._finders = build_finders(config)
        self._filters = build_filters(config.filters, config.max_faces)

    def __call__(self, clip: Path) -> int:
        count = 0
        with (
            open_frames(clip) as source,
            closing(pipeline.find_faces(source, self._finders)) as batches,
        ):
            for frame, faces in (pair for batch in batches for pair in batch):
                count += len(keep_all_of(self._filters, frame, faces)[0])
        return count


def facenet(config: DictConfig, longer: int) -> Callable[[Path], int]:
    args, size = config.detector.args, config.detector.batch_size
    thresholds = args.pnet_threshold, args.rnet_threshold, args.onet_threshold
    smallest = max(args.min_face, args.min_face_share * longer)
    reference, predict = load(smallest, args.factor, thresholds), predictor()

    def run(clip: Path) -> int:
        count, batch = 0, []
        for image in decoded(clip):
            batch.append(image)
            if len(batch) == size:
                boxes, _ = reference.detect(np.stack(batch))
                count += sum(predict(*pair) for pair in zip(batch, boxes, strict=True))
                batch = []
        return count

    return run


def mtcnn_package(config: DictConfig, longer: int) -> Callable[[Path], int]:
    from mtcnn import MTCNN

    args, detector, predict = config.detector.args, MTCNN(), predictor()
    settings = {
        "min_face_size": max(args.min_face, args.min_face_share * longer),
        "scale_factor": args.factor,
        "threshold_pnet": args.pnet_threshold,
        "threshold_rnet": args.rnet_threshold,
        "threshold_onet": args.onet_threshold,
    }

    def run(clip: Path) -> int:
        count = 0
        for image in decoded(clip):
            faces = detector.detect_faces(image, box_format="xyxy", **settings)
            count += predict(image, [face["box"] for face in faces])
        return count

    return run


def decoded(clip: Path) -> Iterator[np.ndarray]:
    capture = cv2.VideoCapture(str(clip))
    while True:
        good, image = capture.read()
        if not good:
            capture.release()
            return
        yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def predictor() -> Callable[[np.ndarray, np.ndarray | None], int]:
    """dlib's 68 points from boxes; the number of faces."""
    predict = dlib.shape_predictor(str(dlib68_path()))

    def points(image: np.ndarray, boxes: np.ndarray | None) -> int:
        for box in [] if boxes is None else boxes:
            low, high = np.array(box[:2], float), np.array(box[2:], float)
            middle, half = (low + high) / 2, (high - low).mean() / 2
            corners = np.rint([*(middle - half), *(middle + half)]).astype(int)
            predict(image, dlib.rectangle(*corners.tolist()))
        return 0 if boxes is None else len(boxes)

    return points


# What each needs, and what makes it.
OTHERS = {"facenet": ("facenet_pytorch", facenet), "mtcnn": ("tensorflow", mtcnn_package)}

if __name__ == "__main__":
    options = parse(__doc__, "clip")
    main(options.clip, options.report)
