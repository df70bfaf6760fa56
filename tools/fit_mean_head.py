"""Derives MEAN_HEAD (`odfs_jax/faces/landmarks68.py`) from actors with exact points and rotations.

python tools/fit_mean_head.py ACTORS_DIR        # prints the block of code that stands there

ACTORS_DIR holds one .npz an actor with `landmarks` [n,68,2] and `rotation` [n,3,3] (x right, y up,
z to the viewer). Each actor's head is the least-squares shape under scaled orthography; the mean of
the heads is made symmetric.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from odfs_jax.faces.landmarks68 import MIRROR

ROUNDS = 50  # shape and scale in turn; the change is below 1e-6 after 20


def main(folder: Path) -> None:
    heads = [fit(np.load(path)) for path in sorted(folder.glob("???.npz"))]
    mean = np.mean(heads, axis=0)
    mean = (mean + mean[list(MIRROR)] * (-1, 1, 1)) / 2
    mean -= mean[17:].mean(axis=0)
    mean /= np.linalg.norm(mean[36] - mean[45])
    rows = "\n".join(f"        ({x:.4f}, {y:.4f}, {z:.4f})," for x, y, z in mean.round(4) + 0.0)
    sys.stdout.write(f"MEAN_HEAD = np.array(\n    [\n{rows}\n    ]\n)  # [68, 3]\n")


def fit(actor: dict[str, np.ndarray]) -> np.ndarray:
    """The shape [68,3] whose rotated, scaled orthographic projections fit all frames best."""
    points = actor["landmarks"].astype(np.float64) * (1, -1)
    points -= points.mean(axis=1, keepdims=True)
    rotation = actor["rotation"].astype(np.float64)[:, :2]
    scale = np.ones(len(points))
    for _ in range(ROUNDS):
        design = (rotation * scale[:, None, None]).reshape(-1, 3)
        target = points.transpose(0, 2, 1).reshape(-1, 68)
        shape = np.linalg.lstsq(design, target, rcond=None)[0]
        projected = np.einsum("nij,jk->nki", rotation, shape)
        scale = (projected * points).sum((1, 2)) / (projected**2).sum((1, 2))
        scale /= scale.mean()
    return shape.T / np.linalg.norm(shape[:, 36] - shape[:, 45])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("actors", type=Path, metavar="ACTORS_DIR")
    main(parser.parse_args().actors)
