"""Weights that face-alignment fetches, for the same networks in Flax. Nothing is unpickled freely.

A PyTorch file is read by PyTorch's own restricted reader (`weights_only`), which builds tensors and
nothing else. `scripts/convert_weights.py` makes an .npz of it, which needs no PyTorch.
"""

import hashlib
import importlib.util
import logging
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from odfs_jax.errors import BadFileError, UserError

log = logging.getLogger(__name__)

SITE = "https://www.adrianbulat.com/downloads/python-fan/"  # face-alignment's own address


@dataclass(frozen=True)
class Origin:
    """A weight file of face-alignment: its `name`, how its SHA-256 begins, its size in words.

    `setting` is the key that names another file, `offline` the choice that needs no such file.
    """

    name: str
    sha256: str
    size: str
    setting: str
    offline: str


FAN = Origin(
    "2DFAN4-11f355bf06.pth.tar", "11f355bf06", "95.9 MB", "landmarks.args.weights",
    "landmarks=dlib68",
)  # fmt: skip
SFD = Origin(
    "s3fd-619a316812.pth", "619a316812", "89.8 MB", "detector.args.weights", "detector=mtcnn"
)


def load_variables(net: nn.Module, example: tuple[int, ...], path: Path) -> dict[str, Any]:
    """The variables of `net` (built for an input of shape `example`) from the file at `path`.

    Raises BadFileError when it is no weight file or not one of this network.
    """
    state = read_npz(path) if path.suffix == ".npz" else read_torch(path)
    variables = from_torch(state)
    wanted = jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct(example, np.float32))
    found, expected = flatten_dict(variables, sep="/"), flatten_dict(wanted, sep="/")
    name = type(net).__name__.removesuffix("Net")
    for key in sorted(expected.keys() ^ found.keys()):
        what = "lacks" if key in expected else "has besides"
        raise BadFileError(path, f"not weights of {name}: it {what} {key}")
    for key, value in found.items():
        if value.shape != expected[key].shape:
            shapes = f"{value.shape}, expected {expected[key].shape}"
            raise BadFileError(path, f"not weights of {name}: {key} has shape {shapes}")
    return variables


def from_torch(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Flax variables of a PyTorch state dict: convolutions, batch and L2 norms by their names.

    "m0.b1_4.bn1.weight" becomes params/m0/b1_4/bn1/scale; numbered layers of a sequence get their
    number after an underscore.
    """
    flat: dict[tuple[str, ...], np.ndarray] = {}
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
            flat["batch_stats", *path, kind.removeprefix("running_")] = _float32(value)
        elif kind == "weight" and value.ndim == 4:
            flat["params", *path, "kernel"] = _float32(value.transpose(2, 3, 1, 0))
        elif kind == "weight" and f"{'.'.join(layers)}.running_mean" in state:
            flat["params", *path, "scale"] = _float32(value)
        else:
            flat["params", *path, kind] = _float32(value)
    return unflatten_dict(flat)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz by name. Raises BadFileError; objects in it are refused, not run."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BadFileError(path, f"no .npz of arrays ({_line(error)})") from error


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """A state dict that PyTorch saved, by name. Raises UserError without PyTorch, BadFileError."""
    if importlib.util.find_spec("torch") is None:
        raise UserError(
            f"{path}: reading it needs PyTorch; pip install '.[fan]', or convert it where PyTorch "
            "is: python scripts/convert_weights.py FILE FILE.npz"
        )
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {str(name): tensor.numpy() for name, tensor in state.items()}
    except Exception as error:  # torch raises what it likes for foreign bytes
        raise BadFileError(path, f"no state dict of tensors ({_line(error)})") from error


def find(origin: Origin, given: str | None) -> Path:
    """The weight file: the `given` one, else where face-alignment keeps it, else fetched there.

    It is fetched only where PyTorch is installed, and kept only if its SHA-256 begins as its name
    says. Raises UserError with what to put where.
    """
    if given is not None:
        path = Path(given).expanduser()
        if not path.is_file():
            raise UserError(f"{origin.setting}={given}: no such file")
        return path
    path = hub_folder() / origin.name
    if path.is_file():
        return verified(path, origin)
    if importlib.util.find_spec("torch") is None:
        raise UserError(_advice(origin, path, "no weights here"))
    return _fetched(origin, path)


def hub_folder() -> Path:
    """Where PyTorch keeps fetched weights: $TORCH_HOME/hub/checkpoints."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", f"{cache}/torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


def verified(path: Path, origin: Origin) -> Path:
    """`path`, if its SHA-256 begins as it should; raises BadFileError otherwise."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(origin.sha256):
        raise BadFileError(
            path, f"SHA-256 {found}, expected one that begins {origin.sha256}; remove the file"
        )
    return path


def _fetched(origin: Origin, path: Path) -> Path:
    from torch.hub import download_url_to_file

    log.info("fetching %s (%s) from %s", origin.name, origin.size, SITE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        download_url_to_file(SITE + origin.name, str(path), origin.sha256, progress=False)
    except (OSError, RuntimeError) as error:  # no network, no space; not what was expected
        raise UserError(_advice(origin, path, f"not fetched: {_line(error)}")) from error
    return path


def _advice(origin: Origin, path: Path, why: str) -> str:
    return (
        f"{path}: {why}; put {origin.name} ({origin.size}, SHA-256 begins {origin.sha256}) there "
        f"from {SITE} or set {origin.setting}=FILE; {origin.offline} works offline"
    )


def _float32(value: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(value, np.float32)


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
