"""Landmarkers by name: they find the 68 points of a detected face.

A new one is a module here, a row in `LANDMARKERS` and a YAML.
"""

from collections.abc import Mapping
from typing import Any

from odfs_jax.config import read_args
from odfs_jax.errors import UserError
from odfs_jax.extraction.detection import Landmarker
from odfs_jax.extraction.landmarkers import dlib68, face_mesh, fan
from odfs_jax.extraction.landmarkers.averaged import AveragedLandmarker, TwoPassLandmarker

MAX_AVERAGED = 64  # crops that landmarks may be averaged over

LANDMARKERS = {  # a dataclass of what `landmarks.args` may be, and what builds the landmarker
    "face_mesh": (face_mesh.FaceMeshSettings, face_mesh.FaceMeshLandmarker),
    "dlib68": (dlib68.Dlib68Settings, dlib68.Dlib68Landmarker),
    "fan": (fan.FanSettings, fan.FanLandmarker),
}


def build_landmarker(config: Mapping[str, Any]) -> Landmarker:
    """The landmarker that `landmarks` of an extract configuration names, with its wrappers.

    Raises UserError naming the key of a name, number or argument that there is not.
    """
    name, average = config["name"], config["average"]
    if name not in LANDMARKERS:
        raise UserError(f"landmarks.name={name}: expected one of {', '.join(LANDMARKERS)}")
    if not 1 <= average <= MAX_AVERAGED:
        raise UserError(f"landmarks.average={average}: expected 1 to {MAX_AVERAGED}")
    settings, landmarker = LANDMARKERS[name]
    args = read_args(settings, "landmarks.args", config["args"], f"configs/landmarks/{name}.yaml")
    built = landmarker(args)
    final = AveragedLandmarker(built, average) if average > 1 else built
    return TwoPassLandmarker(built, final) if config["second_pass"] else final
