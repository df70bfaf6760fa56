"""Weight files of the networks, read as variables of Flax. Nothing is unpickled freely.

MTCNN's and Face Mesh's come with the program: `tools/pack_mtcnn.py` and `tools/pack_face_mesh.py`
made their .npz of the packages `mtcnn` and `mediapipe`. FAN's and S3FD's are those that
face-alignment fetches: a PyTorch file is read by PyTorch's own restricted reader (`weights_only`),
which builds tensors and nothing else. `scripts/convert_weights.py` makes an .npz of it, which needs
no PyTorch.
"""

import hashlib
import importlib.util
import io
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from odfs_jax.data import foreign
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.faces.packaged_weights import verified

log = logging.getLogger(__name__)

BUNDLED = Path(__file__).resolve().parent.parent / "weights" / "detectors"
MTCNN = BUNDLED / "mtcnn.npz"
MTCNN_SHA256 = "1a2dc0d03fe1f5107d406ec8d214b72af60d7dc023725da6d5cdc68891f3e847"
FACE_MESH = BUNDLED / "face_mesh.npz"
FACE_MESH_SHA256 = "36927d567150063546da0f756b59090db32fd88a6c65d62140eb7d2ea8067178"


def mtcnn_params() -> dict[str, dict[str, Any]]:
    """Variables of MTCNN's PNet, RNet and ONet (`nets.detectors.mtcnn`): "pnet", "rnet", "onet".

    Raises UserError when the file is not the one that came with the program.
    """
    return _bundled(MTCNN, MTCNN_SHA256)


def face_mesh_variables() -> dict[str, Any]:
    """Variables of `nets.detectors.face_mesh.FaceMesh`, float32.

    Raises UserError when the file is not the one that came with the program.
    """
    variables = _bundled(FACE_MESH, FACE_MESH_SHA256)
    return jax.tree.map(lambda half: half.astype(np.float32), variables)


def _bundled(path: Path, sha256: str) -> dict[str, Any]:
    with np.load(io.BytesIO(verified(path, sha256)), allow_pickle=False) as arrays:
        return unflatten_dict(dict(arrays), sep="/")


SITE = "https://www.adrianbulat.com/downloads/python-fan/"  # face-alignment's own address


@dataclass(frozen=True)
class WeightFile:
    """A weight file of face-alignment: its `name`, how its SHA-256 begins, its size in words.

    `setting` is the key that names another file, `offline` the choice that needs no such file.
    """

    name: str
    sha256: str
    size: str
    setting: str
    offline: str


FAN = WeightFile(
    "2DFAN4-11f355bf06.pth.tar", "11f355bf06", "95.9 MB", "landmarks.args.weights",
    "landmarks=face_mesh",
)  # fmt: skip
SFD = WeightFile(
    "s3fd-619a316812.pth", "619a316812", "89.8 MB", "detector.args.weights", "detector=mtcnn"
)


def load_variables(net: nn.Module, example: tuple[int, ...], path: Path) -> dict[str, Any]:
    """The variables of `net` (built for an input of shape `example`) from the file at `path`.

    Raises BadFileError when it is no weight file or not one of this network.
    """
    found = flat_from_torch(foreign.read_npz(path) if path.suffix == ".npz" else read_torch(path))
    wanted = jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct(example, np.float32))
    expected = flatten_dict(wanted, sep="/")
    name = type(net).__name__.removesuffix("Net")
    for key in sorted(expected.keys() ^ found.keys()):
        what = "lacks" if key in expected else "has besides"
        raise BadFileError(path, f"not weights of {name}: it {what} {key}")
    for key, value in found.items():
        if value.shape != expected[key].shape:
            shapes = f"{value.shape}, expected {expected[key].shape}"
            raise BadFileError(path, f"not weights of {name}: {key} has shape {shapes}")
        if value.dtype.kind not in "fiu" or not np.isfinite(value).all():
            raise BadFileError(path, f"not weights of {name}: {key} holds no finite numbers")
    flat = {tuple(key.split("/")): np.ascontiguousarray(found[key], np.float32) for key in found}
    return unflatten_dict(flat)


def flat_from_torch(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Flax variables of a PyTorch state dict, by path: convolutions, batch and L2 norms.

    "m0.b1_4.bn1.weight" becomes "params/m0/b1_4/bn1/scale"; numbered layers of a sequence get their
    number after an underscore.
    """
    flat: dict[str, np.ndarray] = {}
    for key, value in state.items():
        *layers, kind = key.split(".")
        path: list[str] = []
        for layer in layers:
            if layer.isdigit() and path:
                path[-1] += f"_{layer}"
            else:
                path.append(layer)
        if kind == "num_batches_tracked":
            continue
        if kind in ("running_mean", "running_var"):
            group, kind = "batch_stats", kind.removeprefix("running_")
        else:
            group = "params"
        if kind == "weight" and value.ndim == 4:
            kind, value = "kernel", value.transpose(2, 3, 1, 0)
        elif kind == "weight" and f"{'.'.join(layers)}.running_mean" in state:
            kind = "scale"
        flat["/".join((group, *path, kind))] = value
    return flat


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """A state dict that PyTorch saved, by name. Raises UserError without PyTorch, BadFileError."""
    if importlib.util.find_spec("torch") is None:
        raise UserError(
            f"{path}: reading it needs PyTorch; pip install '.[fan]', or convert it where PyTorch "
            "is: python scripts/convert_weights.py FILE FILE.npz"
        )
    import torch

    foreign.size_of_regular(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {str(name): tensor.numpy() for name, tensor in state.items()}
    except Exception as error:  # torch raises what it likes for foreign bytes
        raise BadFileError(path, f"no state dict of tensors ({_line(error)})") from error


def find_weights(file: WeightFile, given: str | None) -> Path:
    """The weight file: the `given` one, else where face-alignment keeps it, else fetched there.

    It is fetched only where PyTorch is installed, and kept only if its SHA-256 begins as its name
    says. Raises UserError with what to put where.
    """
    if given is not None:
        path = Path(given).expanduser()
        if not path.is_file():
            raise UserError(f"{file.setting}={given}: no such file")
        return path
    path = hub_folder() / file.name
    if path.is_file():
        return _checked(path, file)
    if importlib.util.find_spec("torch") is None:
        raise UserError(_advice(file, path, "no weights here"))
    return _fetched(file, path)


def hub_folder() -> Path:
    """Where PyTorch keeps fetched weights: $TORCH_HOME/hub/checkpoints."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", f"{cache}/torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


def _checked(path: Path, file: WeightFile) -> Path:
    """`path`, if its SHA-256 begins as `file` says; raises BadFileError otherwise."""
    with path.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if not found.startswith(file.sha256):
        raise BadFileError(
            path, f"SHA-256 {found}, expected one that begins {file.sha256}; remove the file"
        )
    return path


def _fetched(file: WeightFile, path: Path) -> Path:
    from torch.hub import download_url_to_file

    log.info("fetching %s (%s) from %s", file.name, file.size, SITE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        download_url_to_file(SITE + file.name, str(path), file.sha256, progress=False)
    except (OSError, RuntimeError) as error:  # no network, no space; not what was expected
        raise UserError(_advice(file, path, f"not fetched: {_line(error)}")) from error
    return path


def _advice(file: WeightFile, path: Path, why: str) -> str:
    return (
        f"{path}: {why}; put {file.name} ({file.size}, SHA-256 begins {file.sha256}) there "
        f"from {SITE} or set {file.setting}=FILE; {file.offline} works offline"
    )


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
