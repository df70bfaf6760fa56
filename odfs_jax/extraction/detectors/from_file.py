"""Faces from a JSON file: boxes or 68 points for each frame.

{"version": 1,
 "frames": {"0": [{"box": [10, 20, 110, 140]}],
            "7": [{"landmarks": [[31.5, 60.2], ...], "score": 0.9}],
            "photo.png": []}}

A frame is named by its number in the clip, from 0, or by its picture's file name. A face has `box`
(left, top, right, bottom), `landmarks` (68 pairs x, y) or both, in pixels, 0 at the center of the
first one; `score` (0 to 1) is 1 by default. Frames that are not named have no face.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from odfs_jax.data.media.frames import Frame
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.extraction.detection import Detection, Detector

VERSION = 1


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
        content = json.loads(
            path.read_bytes(), parse_constant=_refuse, object_pairs_hook=_unique_keys
        )
    except OSError as error:
        raise BadFileError(path, error.strerror or "cannot be read") from error
    except (ValueError, RecursionError) as error:
        raise BadFileError(path, f"not JSON ({error})") from error
    try:
        frames = _object(content, "the file", {"version", "frames"}, {"version", "frames"})
        if frames["version"] != VERSION:
            raise ValueError(f"version {frames['version']}, expected {VERSION}")
        return {
            name: [_face(face, f"frames.{name}[{i}]") for i, face in enumerate(_list(faces, name))]
            for name, faces in _object(frames["frames"], "frames").items()
        }
    except ValueError as error:
        raise BadFileError(path, str(error)) from error


def _face(face: Any, where: str) -> Detection:
    _object(face, where, allowed={"box", "landmarks", "score"})
    points = landmarker = None
    if "landmarks" in face:
        points, landmarker = _numbers(face["landmarks"], (68, 2), f"{where}.landmarks"), "file"
    if "box" in face:
        box = _numbers(face["box"], (4,), f"{where}.box")
    elif points is not None:
        box = np.concatenate([points.min(axis=0), points.max(axis=0)])
    else:
        raise ValueError(f"{where}: neither box nor landmarks")
    if not (box[2:] > box[:2]).all():
        raise ValueError(f"{where}: box {box.tolist()}, expected left < right and top < bottom")
    score = _numbers(face.get("score", 1.0), (), f"{where}.score")
    if not 0 <= score <= 1:
        raise ValueError(f"{where}.score: {score}, expected 0 to 1")
    return Detection(box.astype(np.float32), None, float(score), points, landmarker)


def _numbers(value: Any, shape: tuple[int, ...], where: str) -> np.ndarray:
    """`value` as float64 of `shape`, from nested lists of numbers and nothing else."""
    if shape:
        if not isinstance(value, list) or len(value) != shape[0]:
            found = len(value) if isinstance(value, list) else type(value).__name__
            raise ValueError(f"{where}: {found}, expected a list of {shape[0]}")
        rows = [_numbers(row, shape[1:], f"{where}[{i}]") for i, row in enumerate(value)]
        return np.array(rows, np.float64)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{where}: {value!r}, expected a number")
    if not math.isfinite(value) or abs(value) > 1e6:
        raise ValueError(f"{where}: {value!r}, expected a number of pixels")
    return np.float64(value)


def _object(
    value: Any, where: str, required: set[str] = frozenset(), allowed: set[str] | None = None
) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: {type(value).__name__}, expected an object")
    for key in sorted(required - value.keys()):
        raise ValueError(f"{where}: no {key}")
    for key in value if allowed is not None else ():
        if key not in allowed:
            raise ValueError(f"{where}: no such key {key}; known: {', '.join(sorted(allowed))}")
    return value


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"frames.{name}: {type(value).__name__}, expected a list of faces")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of `pairs`; a second value of a key would replace the first unseen."""
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice} stands there twice")
    return result


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number")
