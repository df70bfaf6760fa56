"""Faces from a JSON file: boxes or 68 points for each frame.

{"version": 1,
 "frames": {"0": [{"box": [10, 20, 110, 140]}],
            "7": [{"landmarks": [[31.5, 60.2], ...], "score": 0.9}],
            "photo.png": []}}

A frame is named by its number in the clip, from 0, or by its picture's file name. A face has `box`
(left, top, right, bottom), `landmarks` (68 pairs x, y) or both, in pixels, 0 at the center of the
first one; `score` (0 to 1) is 1 by default. Frames that are not named have no face.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from odfs_jax.data import foreign
from odfs_jax.data.media.frames import Frame
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.extraction.detection import Detection, Detector

VERSION = 1
KEYS = ("version", "frames")
MAX_PIXELS = 1e6  # of a coordinate
MAX_BYTES = 1 << 27  # 100,000 faces with landmarks


@dataclass(frozen=True)
class FileSettings:
    """What `configs/detector/file.yaml` sets under `args`; the meanings stand there."""

    path: str | None


class FileDetector(Detector):
    """The detector that looks faces up instead of looking for them.

    The order of the file is kept: its first face of a frame is face 0. Landmarks of the file are
    used as they are.
    """

    name = "file"

    def __init__(self, settings: FileSettings, batch_size: int) -> None:
        if settings.path is None:
            raise UserError("detector.args.path: no value; give a JSON file of boxes or landmarks")
        self.batch_size = batch_size
        self._faces = read_faces(Path(settings.path))

    def __call__(self, frames: Sequence[Frame]) -> list[list[Detection]]:
        """The faces of each of the `frames`, by the name of its file or its number."""
        found = []
        for frame in frames:
            number = str(frame.index)
            if frame.file in self._faces and number in self._faces:
                raise UserError(f"{frame.file} and frame {number} are one frame; name it once")
            found.append(self._faces.get(frame.file) or self._faces.get(number, []))
        return found


def read_faces(path: Path) -> dict[str, list[Detection]]:
    """The faces in the file at `path` by frame. Raises BadFileError naming what does not fit."""
    try:
        content = foreign.parse_known_json(foreign.read_bytes(path, MAX_BYTES))
    except ValueError as error:
        raise BadFileError(path, f"not JSON ({error})") from error
    try:
        content = foreign.mapping(content, "the file", KEYS, KEYS)
        if content["version"] != VERSION:
            found = foreign.shown(content["version"])
            raise ValueError(f"version {found}, expected {VERSION}")
        return {
            name: [
                _face(face, f"frames.{foreign.shown(name)}[{number}]")
                for number, face in enumerate(
                    foreign.listing(faces, f"frames.{foreign.shown(name)}")
                )
            ]
            for name, faces in foreign.mapping(content["frames"], "frames").items()
        }
    except ValueError as error:
        raise BadFileError(path, str(error)) from error


def _face(face: Any, where: str) -> Detection:
    foreign.mapping(face, where, allowed=("box", "landmarks", "score"))
    points = landmarker = None
    if "landmarks" in face:
        points = foreign.numbers(face["landmarks"], f"{where}.landmarks", (68, 2), MAX_PIXELS)
        landmarker = "file"
    if "box" in face:
        (box,) = foreign.numbers([face["box"]], f"{where}.box", (1, 4), MAX_PIXELS)
    elif points is not None:
        box = np.concatenate([points.min(axis=0), points.max(axis=0)])
    else:
        raise ValueError(f"{where}: neither box nor landmarks")
    if not (box[2:] > box[:2]).all():
        raise ValueError(f"{where}: box {box.tolist()}, expected left < right and top < bottom")
    score = foreign.number(face.get("score", 1.0), f"{where}.score", 0, 1)
    return Detection(box.astype(np.float32), None, score, points, landmarker)
