"""Packs Face Mesh's weights: python tools/pack_face_mesh.py WHEEL FACE_MESH.npz

WHEEL is that of mediapipe 0.10.21 (`pip download --no-deps mediapipe==0.10.21`), in which they lie
as face_landmark.tflite; the result is odfs_jax/weights/detectors/face_mesh.npz. The file is read by
its schema (`pip install tflite`). It has the layers in the order in which they run, and here they
get our names in that order.
"""

import argparse
import hashlib
import zipfile
from pathlib import Path

import numpy as np
import tflite

from odfs_jax.data import atomic
from odfs_jax.errors import BadFileError

INNER = "mediapipe/modules/face_landmark/face_landmark.tflite"
SHA256 = "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814"
CONV = tflite.BuiltinOperator.CONV_2D
BY_CHANNEL = tflite.BuiltinOperator.DEPTHWISE_CONV_2D
PRELU = tflite.BuiltinOperator.PRELU


def layers() -> list[str]:
    """Our names of the layers with weights, in the order of the file."""
    names = ["conv", "prelu"]
    blocks = [f"stage_0_{i}" for i in range(2)]
    blocks += [f"stage_{stage}_{part}" for stage in range(1, 5) for part in ("down", 0, 1)]
    for name in (*blocks, "mesh_down", "mesh_1"):
        names += _block(name)
    # From here the two heads take turns, layer by layer.
    face, mesh = [*_block("face_down"), *_head("face")], [*_block("mesh_2"), *_head("mesh")]
    return names + [name for both in zip(face, mesh, strict=True) for name in both]


def _block(name: str) -> list[str]:
    return [f"{name}/{layer}" for layer in ("by_channel", "mix", "prelu")]


def _head(name: str) -> list[str]:
    return [f"{name}_narrow", f"{name}_prelu", *_block(f"{name}_block"), f"{name}_out"]


def read(content: bytes) -> dict[str, np.ndarray]:
    """The weights in a .tflite file by our names: "params/conv/kernel" and so on, float16."""
    model = tflite.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)

    def values(tensor: int) -> np.ndarray:
        found = graph.Tensors(tensor)
        data = model.Buffers(found.Buffer()).DataAsNumpy()
        return data.view(np.float16).reshape(found.ShapeAsNumpy())

    half_of, names, weights = {}, iter(layers()), {}
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        inputs = operator.InputsAsNumpy()
        code = model.OperatorCodes(operator.OpcodeIndex()).DeprecatedBuiltinCode()
        if code == tflite.BuiltinOperator.DEQUANTIZE:  # the file holds 16-bit floats
            half_of[operator.OutputsAsNumpy()[0]] = inputs[0]
        elif code in (CONV, BY_CHANNEL):
            path = f"params/{next(names)}"
            order = (1, 2, 3, 0) if code == CONV else (1, 2, 0, 3)
            weights[f"{path}/kernel"] = values(half_of[inputs[1]]).transpose(order)
            weights[f"{path}/bias"] = values(half_of[inputs[2]])
        elif code == PRELU:
            weights[f"params/{next(names)}/slope"] = values(half_of[inputs[1]]).reshape(-1)
    if list(names):
        raise ValueError("the file has fewer layers than the network")
    return weights


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("wheel", type=Path)
    arguments.add_argument("out", type=Path)
    given = arguments.parse_args()
    with zipfile.ZipFile(given.wheel) as wheel:
        content = wheel.read(INNER)
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise BadFileError(given.wheel, f"{INNER} is another file than that of mediapipe 0.10.21")
    with atomic.replacing(given.out) as path:
        np.savez_compressed(path, **read(content))
    print(f"{given.out}: {given.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
