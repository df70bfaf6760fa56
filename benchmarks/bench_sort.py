"""Seconds that the orders take which compare every pair, on synthetic faces.

python benchmarks/bench_sort.py [--report FILE.json] [--count 10000] [ORDER ...]

Makes `count` faces of 256x256 in a temporary folder and sorts them with what the command
calls. Reading alone, reading with measuring, ordering (compiling included) and renaming are timed
apart; what is beyond reading is the time of the sort itself.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import jax
import numpy as np
from common import parser, show, timed

from odfs_jax.curation import rename
from odfs_jax.curation.sort_keys import SORT_KEYS
from odfs_jax.data.aligned_png import FaceData, Pose, Source, read_image_and_face, write_face
from odfs_jax.data.parallel import read_files
from odfs_jax.faces.types import FaceType

SIZE = 256
ORDERS = ("hist_dissim", "hist", "face_dissim", "face", "ssim")


def main(count: int, report: Path | None, orders: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        files = make_faces(Path(temporary) / "aligned", count)
        read_values(files, read_image_and_face)  # so that no run pays for a cold disk
        _, reading = timed(lambda: read_values(files, read_image_and_face))
        result = {"faces": count, "size": SIZE, "cores": os.cpu_count()}
        result |= {
            "device": jax.devices()[0].device_kind,
            "read_s": round(reading, 2),
            "orders": {},
        }
        for name in orders:
            result["orders"][name] = bench(files, name, reading)
            sys.stderr.write(f"{name}: {result['orders'][name]}\n")
    show(result, report)


def bench(files: list[Path], name: str, reading: float) -> dict[str, float]:
    """Seconds of one order; `beyond_reading_s` is all but reading and decoding the files."""
    key, folder = SORT_KEYS[name], files[0].parent
    values, measuring = timed(lambda: read_values(files, key.read))
    order, ordering = timed(lambda: key.order(values))
    moves = rename.plan_moves(folder, [files[i] for i in order.indices], None)
    _, renaming = timed(lambda: rename.apply_moves(folder, moves))
    rename.undo(folder)
    beyond = max(0.0, measuring - reading) + ordering + renaming
    return {
        "read_and_measure_s": round(measuring, 2),
        "order_s": round(ordering, 2),
        "rename_s": round(renaming, 2),
        "beyond_reading_s": round(beyond, 2),
    }


def make_faces(folder: Path, count: int) -> list[Path]:
    """`count` different pictures of smooth color and grain, with points around the mean face."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda index: make_face(folder, index), range(count)))


def make_face(folder: Path, index: int) -> Path:
    rng = np.random.default_rng(index)
    coarse = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    picture = cv2.add(picture, rng.integers(0, 6, picture.shape, dtype=np.uint8))
    points = rng.uniform(0.2, 0.8, (68, 2)) * SIZE
    source = Source("clip.mp4", index, index, 1920, 1080, (0.0, 0.0, 300.0, 300.0), points)
    pose = Pose(*rng.uniform(-40, 40, 3).tolist())
    face = FaceData(FaceType.FULL, SIZE, points, source, pose, "mtcnn", "dlib68", 1.0)
    path = folder / f"{index:05d}_0.png"
    write_face(path, picture, face)
    return path


def read_values(files: list[Path], read: Callable) -> list:
    return [value for _, value in read_files(files, read, "reading")[0]]


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("--count", type=int, default=10_000, help="faces (default 10000)")
    arguments.add_argument("orders", nargs="*", default=ORDERS, metavar="ORDER")
    options = arguments.parse_intermixed_args()
    main(options.count, options.report, options.orders)
