"""Detectors and landmarkers by name. A new one is a file, a line here and a YAML."""

from collections.abc import Mapping
from typing import Any

from odfs_jax.config import read_args
from odfs_jax.errors import UserError
from odfs_jax.extraction.detection import Detector, Landmarker
from odfs_jax.extraction.detectors import dlib, from_file, mtcnn, s3fd
from odfs_jax.extraction.detectors.rotated import RotatedDetector
from odfs_jax.extraction.landmarkers import dlib68, fan
from odfs_jax.extraction.landmarkers.averaged import AveragedLandmarker, TwoPassLandmarker

DETECTORS = {
    "mtcnn": (mtcnn.MtcnnSettings, mtcnn.MtcnnDetector),
    "dlib": (dlib.DlibSettings, dlib.DlibDetector),
    "sfd": (s3fd.S3fdSettings, s3fd.S3fdDetector),
    "file": (from_file.FileSettings, from_file.FileDetector),
}
LANDMARKERS = {
    "dlib68": (dlib68.Dlib68Settings, dlib68.Dlib68Landmarker),
    "fan": (fan.FanSettings, fan.FanLandmarker),
}
MOST_CROPS = 64  # that landmarks may be averaged over


def build_detector(config: Mapping[str, Any]) -> Detector:
    """The detector of a `DetectorConfig`. Raises UserError."""
    kind, detector = _entry(DETECTORS, "detector", config)
    if config["batch_size"] < 1:
        raise UserError(f"detector.batch_size={config['batch_size']}: expected at least 1")
    degrees = list(config["rotations"])
    if len(set(degrees)) < len(degrees) or not {90, 180, 270}.issuperset(degrees):
        raise UserError(f"detector.rotations={degrees}: expected some of 90, 180, 270, each once")
    if degrees and config["name"] == "file":
        raise UserError(f"detector.rotations={degrees}: a file of faces needs none")
    source = f"configs/detector/{config['name']}.yaml"
    settings = read_args(kind, "detector.args", config["args"], source)
    built = detector(settings, config["batch_size"])
    return RotatedDetector(built, degrees) if degrees else built


def build_landmarker(config: Mapping[str, Any]) -> Landmarker:
    """The landmarker of a `LandmarksConfig`. Raises UserError."""
    kind, landmarker = _entry(LANDMARKERS, "landmarks", config)
    if not 1 <= config["average"] <= MOST_CROPS:
        raise UserError(f"landmarks.average={config['average']}: expected 1 to {MOST_CROPS}")
    source = f"configs/landmarks/{config['name']}.yaml"
    built = landmarker(read_args(kind, "landmarks.args", config["args"], source))
    final = AveragedLandmarker(built, config["average"]) if config["average"] > 1 else built
    return TwoPassLandmarker(built, final) if config["second_pass"] else final


def _entry(known: Mapping[str, tuple], group: str, config: Mapping[str, Any]) -> tuple[type, type]:
    if config["name"] not in known:
        raise UserError(f"{group}.name={config['name']}: expected one of {', '.join(known)}")
    return known[config["name"]]
