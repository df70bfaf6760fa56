"""Faces, pictures and broken aligned PNGs for the tests of the aligned PNG."""

import dataclasses
import json

import numpy as np

from odfs_jax.data import aligned_png
from odfs_jax.data.media import png
from odfs_jax.faces.types import FaceType

SIZE = 24


def usual_face(**changes):
    source = aligned_png.Source("a.mp4", 3, 1024, 640, 480, (1.0, 2.0, 3.0, 4.0), np.ones((68, 2)))
    face = aligned_png.FaceData(
        FaceType.FULL, SIZE, np.arange(136.0).reshape(68, 2),
        source, aligned_png.Pose(1.0, 2.0, 3.0),
        "mtcnn", "dlib68", 0.99,
    )  # fmt: skip
    return dataclasses.replace(face, **changes)


def picture(seed=0, shape=(SIZE, SIZE)):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def with_data(path, text):
    """The face PNG at `path`, its data replaced by `text` without any check."""
    path.write_bytes(png.with_text(path.read_bytes(), aligned_png.KEYWORD, text))
    return path


def changed(path, where, value):
    """The face PNG at `path`, the data's field `where` ("source.file") set to `value`."""
    data = json.loads(png.read_text(path.read_bytes(), aligned_png.KEYWORD))
    *parents, last = where.split(".")
    inner = data
    for parent in parents:
        inner = inner[parent]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return with_data(path, json.dumps(data))
