"""Face detectors by name. A new one is a module here, a row in `DETECTORS` and a YAML.

Wrappers make any of them look at turned pictures too, or search fewer frames.
"""

from collections.abc import Mapping
from typing import Any

from odfs_jax.config import read_args
from odfs_jax.errors import UserError
from odfs_jax.extraction.detection import Detector
from odfs_jax.extraction.detectors import dlib, from_file, mtcnn, s3fd
from odfs_jax.extraction.detectors.keyframes import KeyframeDetector
from odfs_jax.extraction.detectors.rotated import RotatedDetector


def _mtcnn(settings: mtcnn.MtcnnSettings, batch_size: int) -> Detector:
    detector = mtcnn.MtcnnDetector(settings, batch_size)
    every = settings.search_every
    return KeyframeDetector(detector, every) if every > 1 else detector


DETECTORS = {  # a dataclass of what `detector.args` may be, and what builds the detector from it
    "mtcnn": (mtcnn.MtcnnSettings, _mtcnn),
    "dlib": (dlib.DlibSettings, dlib.DlibDetector),
    "sfd": (s3fd.S3fdSettings, s3fd.S3fdDetector),
    "file": (from_file.FileSettings, from_file.FileDetector),
}


def build_detector(config: Mapping[str, Any]) -> Detector:
    """The detector that `detector` of an extract configuration names, with its wrappers.

    Raises UserError naming the key of a name, size, rotation or argument that there is not.
    """
    name = config["name"]
    if name not in DETECTORS:
        raise UserError(f"detector.name={name}: expected one of {', '.join(DETECTORS)}")
    if config["batch_size"] < 1:
        raise UserError(f"detector.batch_size={config['batch_size']}: expected at least 1")
    degrees = list(config["rotations"])
    if len(set(degrees)) < len(degrees) or not {90, 180, 270}.issuperset(degrees):
        raise UserError(f"detector.rotations={degrees}: expected some of 90, 180, 270, each once")
    if degrees and name == "file":
        raise UserError(f"detector.rotations={degrees}: a file of faces needs none")
    settings, detector = DETECTORS[name]
    args = read_args(settings, "detector.args", config["args"], f"configs/detector/{name}.yaml")
    built = detector(args, config["batch_size"])
    return RotatedDetector(built, degrees) if degrees else built
