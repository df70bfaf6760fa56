"""How well faces and their points are found: the tables of docs/accuracy.md.

python benchmarks/landmark_accuracy.py ACTORS_DIR

ACTORS_DIR holds, for each actor, NAME.mp4 and NAME.npz with exact `landmarks` [n,68,2] (pixels; the
picture reaches from 0 to its width) and `pose` [n,3] (yaw, pitch, roll in degrees, pitch > 0 down).
The first table is of the default settings without smoothing, the second of the SETTINGS below.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from common import parser
from omegaconf import DictConfig

from odfs_jax.config import compose
from odfs_jax.data.media.frame_io import open_frames
from odfs_jax.data.media.frames import Frame
from odfs_jax.errors import UserError
from odfs_jax.extraction.detection import Detection, Detector
from odfs_jax.extraction.detectors import build_detector
from odfs_jax.extraction.filters import build_filters, keep_all_of
from odfs_jax.extraction.landmarkers import build_landmarker
from odfs_jax.extraction.smoothing import build_smoother, smoothed
from odfs_jax.faces import affine, align, pose
from odfs_jax.faces.landmarks68 import CHIN, JAW, NOSE_TIP
from odfs_jax.faces.types import FaceType

BANDS = ((0, 15), (15, 30), (30, 90))  # degrees of yaw to either side
HALF_PIXEL = 0.5  # the exact points count from the picture's edge, ours from its first pixel centre
CUT = 0.1  # nose-to-chin lengths off from even motion: there the film is cut
FALSE = 0.5  # the same unit: mean error beyond which a face is none
# Detector, landmarker, and what is set besides; smoothing is off unless named.
ONCE, POLYNOMIAL = "landmarks.average=1", "smoothing=polynomial"
SETTINGS = (
    ("mtcnn", "face_mesh", ONCE),
    ("mtcnn", "face_mesh", ONCE, "landmarks.args.flip=false"),
    ("mtcnn", "face_mesh", "landmarks.average=4"),
    ("mtcnn", "face_mesh", ONCE, POLYNOMIAL),
    ("mtcnn", "dlib68", ONCE),
    ("mtcnn", "dlib68", "landmarks.average=2"),
    ("mtcnn", "dlib68", "landmarks.average=4"),
    ("mtcnn", "dlib68", "landmarks.average=8"),
    ("mtcnn", "dlib68", ONCE, "landmarks.second_pass=true"),
    ("mtcnn", "dlib68", ONCE, POLYNOMIAL),
    ("mtcnn", "dlib68", ONCE, "smoothing=one_euro"),
    ("mtcnn", "dlib68", "landmarks.average=2", POLYNOMIAL),
    ("mtcnn", "dlib68", "landmarks.average=4", POLYNOMIAL),
    ("dlib", "dlib68", ONCE),
    ("dlib", "dlib68", ONCE, POLYNOMIAL),
    ("sfd", "dlib68", ONCE),
    ("mtcnn", "fan", ONCE),
    ("mtcnn", "fan", "landmarks.average=4"),
    ("dlib", "fan", ONCE),
    ("sfd", "fan", ONCE),
)


@dataclass
class Clip:
    """An actor's frames, their exact points [n,68,2] and pose [n,3], and what detectors found."""

    name: str
    frames: list[Frame]
    exact: np.ndarray
    pose: np.ndarray
    boxes: dict[str, list[list[Detection]]] = field(default_factory=dict)  # by detector
    found: dict[str, tuple] = field(default_factory=dict)  # with landmarks, by both's settings

    @property
    def unit(self) -> np.ndarray:
        """Nose to chin in each frame [n], pixels."""
        return np.linalg.norm(self.exact[:, NOSE_TIP] - self.exact[:, CHIN], axis=-1)

    def shots(self) -> list[np.ndarray]:
        """The frames' numbers, parted where the film is cut."""
        uneven = np.linalg.norm(np.diff(self.exact, 2, axis=0), axis=-1).mean(axis=1)
        cuts = np.flatnonzero(uneven > CUT * self.unit[2:]) + 2
        return np.split(np.arange(len(self.frames)), cuts)


def main(folder: Path) -> None:
    paths = sorted(path for path in folder.glob("*.mp4") if path.with_suffix(".npz").is_file())
    clips = [read(path) for path in paths]
    sys.stdout.write(
        "| actor | yaw | frames | exactly one face | points 17-67 | all points | worst frame "
        "| yaw, pitch, roll off by |\n|---|---|---:|---:|---:|---:|---:|---:|\n"
    )
    config = composed("smoothing=none")
    for clip in clips:
        found = [[face.landmarks for face in faces] for faces in find(clip, config)[0]]
        for low, high in BANDS:
            turn = np.abs(clip.pose[:, 0])
            rows = np.flatnonzero((turn >= low) & (turn < high))
            band = f"{low}-{high if high < 90 else '40'}"
            sys.stdout.write(f"| {clip.name} | {band} | {row(clip, found, rows)} |\n")
    sys.stdout.write(
        "\n| detector | landmarks | setting | found | false faces | 0-15 | 15-30 | 30-40 | mean "
        "| worst frame | jitter | ms a face |\n|---|---|---|" + "---:|" * 9 + "\n"
    )
    for detector, landmarker, *more in SETTINGS:
        names = ", ".join(f"`{s}`" for s in more if s != ONCE) or "once"
        config = composed("smoothing=none", *more, detector=detector, landmarks=landmarker)
        try:
            line = measure(clips, config)
        except UserError as error:
            sys.stderr.write(f"{detector}, {landmarker}: {error}\n")
            line = " | ".join(["no weights", *["-"] * 8])
        sys.stdout.write(f"| {detector} | {landmarker} | {names} | {line} |\n")
        sys.stdout.flush()


def composed(*overrides: str, **groups: str) -> DictConfig:
    chosen = {item.split("=")[0]: item for item in overrides}  # the last of a key counts
    chosen |= {name: f"{name}={value}" for name, value in groups.items()}
    return compose("extract", list(chosen.values()))


def read(path: Path) -> Clip:
    truth = np.load(path.with_suffix(".npz"))
    with open_frames(path) as source:
        frames = list(source)
    exact = truth["landmarks"].astype(np.float64) - HALF_PIXEL
    return Clip(path.stem, frames, exact, truth["pose"])


def find(clip: Clip, config: DictConfig) -> tuple[list[list[Detection]], float]:
    """The faces of every frame, as the command writes them; the landmarks' seconds for a face."""
    key = f"{config.detector} {config.landmarks}"
    if key not in clip.found:
        clip.found[key] = _landmarks(clip, config)
    found, seconds = clip.found[key]
    filters = build_filters(config.filters, config.max_faces)
    kept = [keep_all_of(filters, *pair)[0] for pair in zip(clip.frames, found, strict=True)]
    smoother = build_smoother(config.smoothing)
    return kept if smoother is None else list(smoothed(enumerate(kept), smoother)), seconds


def _landmarks(clip: Clip, config: DictConfig) -> tuple[list[list[Detection]], float]:
    name, landmarker = config.detector.name, build_landmarker(config.landmarks)
    if name not in clip.boxes:
        clip.boxes[name] = list(detect(clip.frames, build_detector(config.detector)))
    start, found = time.perf_counter(), []
    for frame, faces in zip(clip.frames, clip.boxes[name], strict=True):
        points = landmarker([frame.image] * len(faces), faces)
        found.append([replace(f, landmarks=p) for f, p in zip(faces, points, strict=True)])
    return found, (time.perf_counter() - start) / sum(map(len, found))


def detect(frames: Sequence[Frame], detector: Detector) -> Iterator[list[Detection]]:
    for batch in detector.batches(frames):
        yield from detector(batch.frames)[batch.context :]


def measure(clips: Sequence[Clip], config: DictConfig) -> str:
    """One line of the second table, over all frames of all clips."""
    errors, turns, jitters, false, seconds = [], [], [], 0, []
    for clip in clips:
        found, cost = find(clip, config)
        nearest, error = best(clip, found)
        false += sum(map(len, found)) - int(np.isfinite(error).sum())
        errors.append(error)
        turns.append(np.abs(clip.pose[:, 0]))
        jitters.append(trembling(clip, nearest))
        seconds.append(cost)
    error, turn = np.concatenate(errors), np.concatenate(turns)
    bands = [np.nanmean(error[(turn >= low) & (turn < high)]) for low, high in BANDS]
    return (
        f"{np.isfinite(error).mean():.1%} | {false} | "
        + " | ".join(f"{band:.4f}" for band in bands)
        + f" | {np.nanmean(error):.4f} | {np.nanmax(error):.3f} "
        + f"| {np.nanmean(np.concatenate(jitters)):.4f} | {1000 * np.mean(seconds):.0f}"
    )


def best(clip: Clip, found: list[list[Detection]]) -> tuple[np.ndarray, np.ndarray]:
    """Of each frame the face nearest to the exact one: points [n,68,2], error of 17-67 [n].

    NaN where none is nearer than FALSE.
    """
    points, errors = np.full_like(clip.exact, np.nan), np.full(len(found), np.nan)
    for i, faces in enumerate(found):
        for face in faces:
            off = np.linalg.norm(face.landmarks - clip.exact[i], axis=-1)[JAW.stop :].mean()
            if off / clip.unit[i] < np.nanmin([errors[i], FALSE]):
                points[i], errors[i] = face.landmarks, off / clip.unit[i]
    return points, errors


def trembling(clip: Clip, points: np.ndarray) -> np.ndarray:
    """Second difference over time [m] of the residual of points 17-67, aligned exactly.

    Shares of the aligned picture's width, mean over the points; NaN where a face is missing.
    """
    residual = np.stack([
        affine.transform(m, p) - affine.transform(m, e)
        for m, p, e in zip(
            (align.alignment_matrix(e, FaceType.FULL, 1) for e in clip.exact),
            points, clip.exact, strict=True,
        )
    ])[:, JAW.stop :]  # fmt: skip
    shots = [np.diff(residual[shot], 2, axis=0) for shot in clip.shots() if len(shot) > 2]
    return np.linalg.norm(np.concatenate(shots), axis=-1).mean(axis=-1)


def row(clip: Clip, found: list[list[np.ndarray]], rows: np.ndarray) -> str:
    """One line of the first table over the frames `rows`; errors are of the largest face."""
    once = np.mean([len(found[i]) == 1 for i in rows])
    seen = [i for i in rows if found[i]]
    points = np.stack([found[i][0] for i in seen])
    error = np.linalg.norm(points - clip.exact[seen], axis=-1) / clip.unit[seen, None]
    inner = error[:, JAW.stop :].mean(axis=1)
    angles = np.array([pose.angles_of(pose.rotation_of(p)) for p in points])
    off = np.abs(angles - clip.pose[seen] * (1, -1, 1)).mean(axis=0)
    return (
        f"{len(rows)} | {once:.1%} | {inner.mean():.4f} | {error.mean():.4f} | {inner.max():.3f} | "
        + ", ".join(f"{degrees:.1f}" for degrees in off)
    )


if __name__ == "__main__":
    arguments = parser(__doc__, report=False)
    arguments.add_argument("actors", type=Path)
    main(arguments.parse_args().actors)
