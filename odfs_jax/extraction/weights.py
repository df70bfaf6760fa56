"""Weights that come inside installed packages: found by path, checked, never downloaded.

The packages are not imported: one would start TensorFlow, the other needs a module that is gone.
"""

import io
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from odfs_jax.faces.packaged_weights import package_file, verified

# The weight files of mtcnn 1.0.0 are pickles, and loading a pickle can run any code that is in it.
# So the bytes are compared with these digests BEFORE they are loaded, and it is those same bytes
# that are then loaded: nothing but the three files that we looked at is ever unpickled.
MTCNN_SHA256 = {
    "pnet": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "rnet": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "onet": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
}
# The files hold a flat list of arrays: kernel, bias and slope of each block, then kernel and bias
# of each head, in this order.
MTCNN_LAYERS = {
    "pnet": (("block_1", "conv"), ("block_2", "conv"), ("block_3", "conv"), "box", "face"),
    "rnet": (
        ("block_1", "conv"), ("block_2", "conv"), ("block_3", "conv"), ("block_4", "dense"),
        "box", "face",
    ),
    "onet": (
        ("block_1", "conv"), ("block_2", "conv"), ("block_3", "conv"), ("block_4", "conv"),
        ("block_5", "dense"), "box", "points", "face",
    ),
}  # fmt: skip


def mtcnn_params() -> dict[str, dict[str, Any]]:
    """Variables of MTCNN's PNet, RNet and ONet (`nets.detectors.mtcnn`): "pnet", "rnet", "onet"."""
    return {name: _mtcnn_net(name) for name in MTCNN_LAYERS}


def dlib68_path() -> Path:
    """dlib's 68-point shape predictor, inside `face-recognition-models`."""
    return package_file("face_recognition_models", "models/shape_predictor_68_face_landmarks.dat")


def _mtcnn_net(name: str) -> dict[str, Any]:
    path = package_file("mtcnn", f"assets/weights/{name}.lz4")
    arrays = iter(joblib.load(io.BytesIO(verified(path, MTCNN_SHA256[name]))))
    params: dict[str, Any] = {}
    for layer in MTCNN_LAYERS[name]:
        kernel_and_bias = {"kernel": next(arrays), "bias": next(arrays)}
        if isinstance(layer, tuple):
            block, kind = layer
            params[block] = {kind: kernel_and_bias, "prelu": {"slope": next(arrays).reshape(-1)}}
        else:
            kernel_and_bias["kernel"] = np.squeeze(kernel_and_bias["kernel"])  # P-Net's are 1x1
            params[layer] = kernel_and_bias
    return {"params": params}
