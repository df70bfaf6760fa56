"""Detectors and landmarkers by name. A new one is a file, a line here and a YAML."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from odfs_jax.errors import UserError
from odfs_jax.extraction.detection import Detector, Landmarker
from odfs_jax.extraction.landmarks import Dlib68
from odfs_jax.extraction.mtcnn import Mtcnn, Settings

DETECTORS = ("mtcnn",)
LANDMARKERS = {"dlib68": Dlib68}


def build_detector(config: Mapping[str, Any]) -> Detector:
    """The detector of a `DetectorConfig`. Raises UserError."""
    if config["name"] not in DETECTORS:
        raise UserError(f"detector.name={config['name']}: expected one of {', '.join(DETECTORS)}")
    if config["batch_size"] < 1:
        raise UserError(f"detector.batch_size={config['batch_size']}: expected at least 1")
    return Mtcnn(_settings(config["args"]), config["batch_size"])


def build_landmarker(config: Mapping[str, Any]) -> Landmarker:
    """The landmarker of a `LandmarksConfig`. Raises UserError."""
    if config["name"] not in LANDMARKERS:
        expected = ", ".join(LANDMARKERS)
        raise UserError(f"landmarks.name={config['name']}: expected one of {expected}")
    for key in config["args"]:
        raise UserError(f"landmarks.args.{key}: {config['name']} has no such setting")
    return LANDMARKERS[config["name"]]()


def _settings(args: Mapping[str, Any]) -> Settings:
    known = [field.name for field in dataclasses.fields(Settings)]
    for key in args:
        if key not in known:
            raise UserError(f"detector.args.{key}: no such setting; known: {', '.join(known)}")
    for key in known:
        if key not in args:
            raise UserError(f"detector.args.{key}: no value; take configs/detector/mtcnn.yaml")
        _check(key, args[key])
    return Settings(**args)


def _check(key: str, value: Any) -> None:
    """Raises UserError unless `value` is a number in the range that the setting `key` takes."""
    low, high = {
        "min_face": (1, math.inf),
        "min_face_share": (0, 1),
        "factor": (0.1, 0.99),  # at 1 the pyramid would never end
        "candidates": (1, 1 << 20),
    }.get(key, (0, 1))
    whole = key == "candidates"
    kind = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
        what = "a whole number" if whole else "a number"
        raise UserError(f"detector.args.{key}={value}: expected {what} from {low} to {high}")
