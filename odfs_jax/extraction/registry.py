"""Detectors and landmarkers by name. A new one is a file, a line here and a YAML.

Each name stands for (a dataclass of what `args` may be, what builds the thing from it).
"""

from collections.abc import Mapping
from typing import Any

from odfs_jax.config import read_args
from odfs_jax.errors import UserError
from odfs_jax.extraction.detection import Detector, Landmarker
from odfs_jax.extraction.detectors import dlib, from_file, mtcnn, s3fd
from odfs_jax.extraction.detectors.keyframes import KeyframeDetector
from odfs_jax.extraction.detectors.rotated import RotatedDetector
from odfs_jax.extraction.landmarkers import dlib68, fan
from odfs_jax.extraction.landmarkers.averaged import AveragedLandmarker, TwoPassLandmarker

MAX_AVERAGED = 64  # crops that landmarks may be averaged over


def _mtcnn(settings: mtcnn.MtcnnSettings, batch_size: int) -> Detector:
    detector = mtcnn.MtcnnDetector(settings, batch_size)
    every = settings.search_every
    return KeyframeDetector(detector, every) if every > 1 else detector


DETECTORS = {
    "mtcnn": (mtcnn.MtcnnSettings, _mtcnn),
    "dlib": (dlib.DlibSettings, dlib.DlibDetector),
    "sfd": (s3fd.S3fdSettings, s3fd.S3fdDetector),
    "file": (from_file.FileSettings, from_file.FileDetector),
}
LANDMARKERS = {
    "dlib68": (dlib68.Dlib68Settings, dlib68.Dlib68Landmarker),
    "fan": (fan.FanSettings, fan.FanLandmarker),
}


def build_detector(config: Mapping[str, Any]) -> Detector:
    """The detector that `detector` of an extract configuration names, with its wrappers.

    Raises UserError naming the key of a name, size, rotation or argument that there is not.
    """
    settings, detector = _known(DETECTORS, "detector", config["name"])
    if config["batch_size"] < 1:
        raise UserError(f"detector.batch_size={config['batch_size']}: expected at least 1")
    degrees = list(config["rotations"])
    if len(set(degrees)) < len(degrees) or not {90, 180, 270}.issuperset(degrees):
        raise UserError(f"detector.rotations={degrees}: expected some of 90, 180, 270, each once")
    if degrees and config["name"] == "file":
        raise UserError(f"detector.rotations={degrees}: a file of faces needs none")
    source = f"configs/detector/{config['name']}.yaml"
    args = read_args(settings, "detector.args", config["args"], source)
    built = detector(args, config["batch_size"])
    return RotatedDetector(built, degrees) if degrees else built


def build_landmarker(config: Mapping[str, Any]) -> Landmarker:
    """The landmarker that `landmarks` of an extract configuration names, with its wrappers.

    Raises UserError naming the key of a name, number or argument that there is not.
    """
    settings, landmarker = _known(LANDMARKERS, "landmarks", config["name"])
    if not 1 <= config["average"] <= MAX_AVERAGED:
        raise UserError(f"landmarks.average={config['average']}: expected 1 to {MAX_AVERAGED}")
    source = f"configs/landmarks/{config['name']}.yaml"
    built = landmarker(read_args(settings, "landmarks.args", config["args"], source))
    final = AveragedLandmarker(built, config["average"]) if config["average"] > 1 else built
    return TwoPassLandmarker(built, final) if config["second_pass"] else final


def _known(table: Mapping[str, tuple], group: str, name: str) -> tuple:
    if name not in table:
        raise UserError(f"{group}.name={name}: expected one of {', '.join(table)}")
    return table[name]
