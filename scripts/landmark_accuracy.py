"""How well faces and their points are found: the table of docs/accuracy.md.

python scripts/landmark_accuracy.py ACTORS_DIR

ACTORS_DIR holds, for each actor, NAME.mp4 and NAME.npz with exact `landmarks` [n,68,2] (pixels; the
picture reaches from 0 to its width) and `pose` [n,3] (yaw, pitch, roll in degrees, pitch > 0 down).
"""

import sys
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir

from odfs_jax.config import config_dir, register_schemas
from odfs_jax.data.video import open_frames
from odfs_jax.extraction.build import build_detector, build_landmarker
from odfs_jax.faces import pose
from odfs_jax.faces.points import CHIN, JAW, NOSE_TIP

BANDS = ((0, 15), (15, 30), (30, 90))  # degrees of yaw to either side
HALF_PIXEL = 0.5  # the exact points count from the picture's edge, ours from its first pixel centre


def main(folder: Path) -> None:
    register_schemas()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        config = compose("extract")
    detector, landmarker = build_detector(config.detector), build_landmarker(config.landmarks)
    sys.stdout.write(
        "| actor | yaw | frames | exactly one face | points 17-67 | all points | worst frame "
        "| yaw, pitch, roll off by |\n|---|---|---:|---:|---:|---:|---:|---:|\n"
    )
    for path in sorted(folder.glob("???.mp4")):
        truth = np.load(path.with_suffix(".npz"))
        found = find(path, detector, landmarker)
        for low, high in BANDS:
            turn = np.abs(truth["pose"][:, 0])
            rows = np.flatnonzero((turn >= low) & (turn < high))
            line = row(truth, found, rows)
            sys.stdout.write(f"| {path.stem} | {low}-{high if high < 90 else '40'} | {line} |\n")


def find(path: Path, detector, landmarker) -> list[list[np.ndarray]]:
    """Points [68,2] of every face of every frame of the clip."""
    found, batch = [], []
    with open_frames(path) as source:
        for frame in source:
            batch.append(frame)
            if len(batch) == detector.batch_size or frame.index + 1 == source.count:
                for image, faces in zip(batch, detector(batch), strict=True):
                    found.append(landmarker([image.image] * len(faces), faces))
                batch = []
    return found


def row(truth: dict[str, np.ndarray], found: list[list[np.ndarray]], rows: np.ndarray) -> str:
    """One line of the table over the frames `rows`; errors are of the largest face."""
    exact = truth["landmarks"].astype(np.float64) - HALF_PIXEL
    once = np.mean([len(found[i]) == 1 for i in rows])
    seen = [i for i in rows if found[i]]
    points = np.stack([found[i][0] for i in seen])
    nose_to_chin = np.linalg.norm(exact[seen, NOSE_TIP] - exact[seen, CHIN], axis=-1)
    error = np.linalg.norm(points - exact[seen], axis=-1) / nose_to_chin[:, None]
    inner = error[:, JAW.stop :].mean(axis=1)
    angles = np.array([pose.angles_of(pose.rotation_of(p)) for p in points])
    off = np.abs(angles - truth["pose"][seen] * (1, -1, 1)).mean(axis=0)
    return (
        f"{len(rows)} | {once:.1%} | {inner.mean():.4f} | {error.mean():.4f} | {inner.max():.3f} | "
        + ", ".join(f"{degrees:.1f}" for degrees in off)
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
