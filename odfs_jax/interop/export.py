"""`python scripts/export.py name=NAME`: a trained model as other programs read it.

- dfm: ONNX under the names of DeepFaceLab's exports, for DeepFaceLive, facefusion and VisoMaster.
  In and out are BGR: see `conversion/dfm.py`, which reads such files.
- onnx: the same network under our own names, in RGB; any swap network, AVATAR's too.
- safetensors: the parameters by name.

All say in their metadata what they were made of and by. Source: docs/export.md.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from omegaconf import DictConfig

import odfs_jax
from odfs_jax.conversion.dfm import FACE, FACE_TYPE, MORPH, OUTPUTS, SETTINGS
from odfs_jax.data import atomic
from odfs_jax.errors import UserError
from odfs_jax.faces.types import FaceType
from odfs_jax.inference import Swapper, make_swapper
from odfs_jax.runtime import devices
from odfs_jax.runtime.extras import extra
from odfs_jax.runtime.output import say
from odfs_jax.saved_model import SavedModel, find_model, load_model, named

FORMATS = ("dfm", "onnx", "safetensors")
PRECISIONS = {"float32": np.float32, "float16": np.float16}
MOST_BYTES = (1 << 31) - (1 << 22)  # of the parameters in an ONNX file: protobuf ends at 2 GiB


def export(config: DictConfig) -> None:
    """Writes the model that an `ExportConfig` names. Raises UserError."""
    devices.prepare(config.hardware)
    if config.format not in FORMATS:
        raise UserError(f"format={config.format}: expected one of {', '.join(FORMATS)}")
    if config.precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise UserError(f"precision={config.precision}: expected one of {known}")
    workspace = Path(config.workspace)
    folder = find_model(workspace / "models", config.name)
    saved = load_model(folder)
    swapper = make_swapper(saved.config, saved.params, conv_impl="xla")
    spec = swapper.output_spec
    stem = f"{folder.name}_{spec.face_type}_{spec.resolution}"
    path = Path(config.path or workspace / f"{stem}.{config.format}")
    if path.exists():
        raise UserError(f"{path}: exists already; give another path=")

    about = metadata(folder.name, saved, spec.face_type, config.precision)
    if config.format == "safetensors":
        dtype = PRECISIONS[config.precision]
        arrays = {name: np.asarray(leaf, dtype) for name, leaf in named(saved.params).items()}
        parts = safetensors(arrays, about)
    else:
        make = dfm if config.format == "dfm" else onnx_model
        parts = [make(path, swapper, about, half=config.precision == "float16")]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replacing(path) as temporary, open(temporary, "wb") as file:
        file.writelines(parts)

    say(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {config.precision}, iteration {saved.step}")
    if config.format == "dfm":
        say(*advice(spec.face_type))


def dfm(path: Path, swapper: Swapper, about: dict[str, str], *, half: bool) -> bytes:
    """The content of a DFM of `swapper`, which has conv_impl="xla"; `path` is for messages.

    Raises UserError for a network that no DFM can hold: one whose swap is no face such as it reads,
    or without a mask of dst's own.
    """
    if swapper.input_spec != swapper.output_spec or not swapper.has_dst_mask:
        raise UserError(
            f"{path}: a DFM makes of a face one of the same kind, and a mask of either; this "
            "network does not; format=onnx takes it"
        )
    side = swapper.input_spec.resolution

    def swap(faces: jax.Array, *morph: jax.Array) -> tuple[jax.Array, ...]:
        face, mask, own = swapper.predict(swapper.params, faces[..., ::-1], *morph)
        return own, face[..., ::-1], mask

    inputs = {FACE: ("N", side, side, 3)} | ({MORPH: (1,)} if swapper.can_morph else {})
    return _serialized(path, swap, inputs, OUTPUTS, swapper, about, half=half)


def onnx_model(path: Path, swapper: Swapper, about: dict[str, str], *, half: bool) -> bytes:
    """As `dfm`, of any network: RGB, dst and perhaps morph in; face, mask, perhaps dst_mask out."""
    side = swapper.input_spec.resolution

    def swap(faces: jax.Array, *morph: jax.Array) -> list[jax.Array]:
        found = swapper.predict(swapper.params, faces, *morph)
        return [part for part in found if part is not None]

    inputs = {"dst": ("N", side, side, 3)} | ({"morph": (1,)} if swapper.can_morph else {})
    outputs = ("face", "mask", "dst_mask")[: 2 + swapper.has_dst_mask]
    return _serialized(path, swap, inputs, outputs, swapper, about, half=half)


def _serialized(
    path: Path,
    function: Callable[..., Sequence[jax.Array]],
    inputs: dict[str, Sequence[int | str]],
    outputs: Sequence[str],
    swapper: Swapper,
    about: dict[str, str],
    *,
    half: bool,
) -> bytes:
    """The ONNX file of `function`: see `onnx_graph.to_onnx`."""
    with extra("export"):
        from odfs_jax.interop.onnx_graph import to_onnx
    count = sum(leaf.size for leaf in jax.tree.leaves(swapper.params))
    if count * (2 if half else 4) > MOST_BYTES:
        cure = "a smaller model" if half else "precision=float16"
        raise UserError(f"{path}: {count:,} parameters are more than an ONNX file holds; {cure}")
    model = to_onnx(function, inputs, outputs, half=half)
    model.producer_name, model.producer_version = "odfs-jax", odfs_jax.__version__
    for key, value in about.items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()


def metadata(name: str, saved: SavedModel, face_type: FaceType, precision: str) -> dict[str, str]:
    """What an exported file says of itself; texts, as ONNX and safetensors both have them."""
    weights = hashlib.sha256()
    for leaf in jax.tree.leaves(saved.params):
        weights.update(np.asarray(leaf).tobytes())
    return {
        "odfs.version": odfs_jax.__version__,
        "odfs.name": name,
        "odfs.iteration": str(saved.step),
        FACE_TYPE: str(face_type),
        "odfs.precision": precision,
        "odfs.weights_sha256": weights.hexdigest(),
        SETTINGS: json.dumps(saved.config, sort_keys=True),
    }


def safetensors(arrays: dict[str, np.ndarray], about: dict[str, str]) -> list[bytes]:
    """The parts of a safetensors file: the length of its header, the header, and the arrays.

    Arrays are float32 or float16. Source: the format's description at huggingface/safetensors.
    """
    header: dict[str, Any] = {"__metadata__": about}
    end = 0
    for name, array in arrays.items():
        kind = {"float32": "F32", "float16": "F16"}[array.dtype.name]
        offsets = [end, end + array.nbytes]
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": offsets}
        end += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the arrays begin at a multiple of 8
    return [len(text).to_bytes(8, "little"), text, *(array.tobytes() for array in arrays.values())]


def advice(face_type: FaceType) -> list[str]:
    """What to set in the programs that run a DFM whose faces are cut as `face_type`."""
    coverage = 1 / (1 - 2 * face_type.padding)
    lines = [f"DeepFaceLive: coverage {coverage:.2f}"]
    if face_type is not FaceType.DFL_WHOLE:
        lines.append(f"facefusion, VisoMaster: not for {face_type} faces; they cut whole ones")
    return lines
