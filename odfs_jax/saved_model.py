"""A trained model's folder as everyone but the trainer sees it: `load_model(folder)`.

<workspace>/models/<name>/
    config.yaml             the settings of the last start, for people
    checkpoints/<step>/     written by training (`training/checkpoint.py`)
        config/metadata     the settings, JSON
        metadata/metadata   what conversion must know beside them, JSON: see `SavedModel`
        history/metadata    the losses, JSON
        state/              networks, optimizers, key and step, in orbax's own form

Weights alone, to begin a new model with, are an .npz: {name of a parameter: float16 array}. Those
of a mask network that comes with the program have its settings and step beside them, as a .json.

A checkpoint of the code before it had named networks holds `params`, `opt` and `ema` of a single
one directly in its state, and what is in `metadata` now among its settings. It is read as well.
"""

import io
import logging
import re
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils.epath.gpath import PosixGPath
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from odfs_jax.config import ModelConfig
from odfs_jax.data import atomic, foreign
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.nets import MASK_NETS, build_mask_net, build_net

log = logging.getLogger(__name__)

MASK_NET = "mask_net"  # the network of a mask network's checkpoint
ONLY_NET = "autoencoder"  # the network of a checkpoint without names
STEP = re.compile(r"[0-9]{1,12}")  # a finished checkpoint's folder
LARGEST = {"config": 1 << 20, "metadata": 1 << 20, "history": 1 << 30}  # bytes of an item
MOST_VALUES = 100_000  # of config.yaml
MOST_PARAMETERS = 1 << 31  # of a model that is read; the largest of 2018 has 0.16e9
BUNDLED = "bundled:"  # before the name of a file in WEIGHTS
WEIGHTS = Path(__file__).resolve().parent / "weights"
READY_MASKS = WEIGHTS / "masks"  # of the mask networks that come with the program
READY_MASK = "actors_128"  # the one of them that is used where there is no other
MODEL_RANGES = {"erode_modifier": (-1e3, 1e3), "blur_modifier": (-1e3, 1e3), "border": (0, 0.5)}


@dataclass(frozen=True)
class SavedModel:
    """The network that a model's folder is there for, and what was learned about src."""

    config: dict[str, Any]  # a `ModelConfig`; `nets.build_net` or `build_mask_net` takes it
    params: dict  # on the first device; the running mean where the run kept one
    # float64 [12, 2]: `faces.align.frontal_eyes` of src's faces; None: it is a mask network
    src_eyes: np.ndarray | None
    step: int  # iterations that it was trained
    # What found the points of the faces it learned from; empty: not known.
    landmarkers: frozenset[str] = frozenset()

    @property
    def makes_masks(self) -> bool:
        """True for a mask network, which swaps no face."""
        return self.config["net"] in MASK_NETS


def load_model(folder: Path) -> SavedModel:
    """The model in `folder` as its last checkpoint has it. Optimizer states are never read.

    `folder` may be a ready-made mask network, as `find_model` gives it. Raises UserError when the
    folder holds no checkpoint, or a damaged one.
    """
    if folder.parent == READY_MASKS:
        return _load_ready_mask(folder)
    silence_orbax()
    if not (folder / "checkpoints").is_dir():
        raise UserError(f"{folder}: no trained model here; run: python train.py")
    step = latest_step(folder)
    if step is None:
        raise UserError(f"{folder}: no finished checkpoint; train a while longer")
    checkpoint = folder / "checkpoints" / str(step)
    model = read_config(checkpoint)["model"]
    if model["net"] in MASK_NETS:
        net, exported, learned = build_mask_net(model), MASK_NET, {"src_eyes": None}
    else:
        net, (exported, learned) = build_net(model), _read_metadata(checkpoint)
    like = jax.eval_shape(net.init, jax.random.key(0), *net.blank())["params"]
    count = sum(leaf.size for leaf in jax.tree.leaves(like))
    if count > MOST_PARAMETERS:
        raise UserError(f"{folder}: a model of {count:,} parameters, more than {MOST_PARAMETERS:,}")
    part = "ema" if has_part(checkpoint, exported, "ema", like) else "params"
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = {"nets": {exported: {part: on(device, like)}}}
    params = restore_state(checkpoint, like)["nets"][exported][part]
    return SavedModel(model, params, step=step, **learned)


def _load_ready_mask(path: Path) -> SavedModel:
    """The mask network whose weights are the .npz at `path`; its settings lie beside it."""
    about = foreign.read_json(path.with_suffix(".json"), LARGEST["config"])
    net = build_mask_net(about["model"])
    like = jax.eval_shape(net.init, jax.random.key(0), *net.blank())["params"]
    weights = load_weights(f"{BUNDLED}{path.stem}")
    params = jax.tree_util.tree_map_with_path(lambda p, _: weights[parameter_name(p)], like)
    return SavedModel(about["model"], params, None, about["step"])


def find_model(models: Path, name: str | None, *, masks: bool = False) -> Path:
    """The folder of the model `name`, or of the only one in `models`. Raises UserError.

    With `masks` it is a mask network, else one that swaps faces. A `name` with a slash is the path
    of a model's folder. "bundled:NAME" is a mask network that comes with the program: the path of
    its weights; without a `name` it is that one where `models` has none, and a line says so.
    """
    if masks and name is None and not models_in(models, masks=True):
        log.info("%s: no mask network here; the ready-made one sees: %s", models, READY_MASK)
        name = f"{BUNDLED}{READY_MASK}"
    if masks and name is not None and name.startswith(BUNDLED):
        return _bundled(name, "mask_model", READY_MASKS)
    if name is not None and "/" in name:
        models, name = Path(name).resolve().parent, Path(name).resolve().name
    found = models_in(models, masks=masks)
    key, kind = ("mask_model", "mask network") if masks else ("name", "model")
    if not found:
        how = "python train.py model=facemask" if masks else "python train.py"
        raise UserError(f"{models}: no trained {kind} here; run: {how}")
    if name is not None and name not in found:
        raise UserError(f"{key}={name}: no such {kind} in {models}; there is: {', '.join(found)}")
    if name is None and len(found) > 1:
        raise UserError(f"several {kind}s in {models}; say which with {key}=: {', '.join(found)}")
    return models / (name or found[0])


def models_in(folder: Path, *, masks: bool) -> list[str]:
    """The names of the trained models in `folder`, by name: swap networks, or with `masks` those.

    One whose settings cannot be read counts as either.
    """
    names = []
    for path in folder.glob("*"):
        if not (path / "checkpoints").is_dir():
            continue
        with suppress(UserError):
            if (_net_of(path) in MASK_NETS) != masks:
                continue
        names.append(path.name)
    return sorted(names)


def _net_of(folder: Path) -> str:
    """model.net of the last checkpoint, before the first one that of config.yaml.

    Raises UserError.
    """
    step = latest_step(folder)
    if step is not None:
        return read_config(folder / "checkpoints" / str(step))["model"]["net"]
    path = folder / "config.yaml"
    try:
        config = foreign.read_yaml(path, LARGEST["config"], MOST_VALUES)
        model = foreign.mapping(config, "config", ("model",))["model"]
        return foreign.text(foreign.mapping(model, "model", ("net",))["net"], "model.net")
    except ValueError as error:
        raise BadFileError(path, str(error)) from error


def parameter_name(path: Sequence[Any]) -> str:
    """The name of a leaf of a tree, from its tree path: "decoder_src/face/ups/up_0/conv/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def named(tree: Any) -> dict[str, Any]:
    """{name: leaf} of all leaves of `tree`; see `parameter_name`."""
    return {parameter_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """{name: shape}, the same for a tree of arrays and for what orbax says of it."""
    return {name: tuple(leaf.shape) for name, leaf in named(tree).items()}


def load_weights(source: str) -> dict:
    """The parameters to begin a new model with, arrays by name or a tree of them.

    `source` is a model's folder, an .npz that `save_weights` wrote, or "bundled:NAME" for weights
    that come with the program. Raises UserError.
    """
    path = Path(source)
    if source.startswith(BUNDLED):
        path = _bundled(source, "init_from", WEIGHTS, READY_MASKS)
    if path.suffix != ".npz" or path.is_dir():
        return load_model(path).params
    weights = foreign.read_npz(path)
    for parameter, values in weights.items():
        if values.dtype.kind != "f" or not np.isfinite(values).all():
            raise UserError(f"{path}: {foreign.shown(parameter)} holds no finite numbers")
    return {parameter: values.astype(np.float32) for parameter, values in weights.items()}


def _bundled(source: str, key: str, *folders: Path) -> Path:
    """The .npz in one of `folders` that `source`, "bundled:NAME", names.

    Raises UserError naming the setting `key`.
    """
    files = {f"{BUNDLED}{file.stem}": file for f in folders for file in f.glob("*.npz")}
    if source not in files:
        known = ", ".join(sorted(files))
        missing = f"{key}={source}: no such weights come with the program"
        raise UserError(f"{missing}; there are: {known}")
    return files[source]


def is_pretrained(source: str) -> bool:
    """True when `source`, which `load_weights` takes, is the folder of a run with `pretrain`."""
    step = latest_step(Path(source))
    if step is None:
        return False
    return read_config(Path(source) / "checkpoints" / str(step)).get("pretrain") is True


def save_weights(path: Path, params: Any) -> None:
    """Writes `params` to the .npz at `path` as float16, half of their size. See `load_weights`."""
    content = io.BytesIO()
    halves = {name: np.asarray(leaf, np.float16) for name, leaf in named(params).items()}
    np.savez_compressed(content, **halves)
    atomic.write_bytes(path, content.getvalue())


@cache
def silence_orbax() -> None:
    """Keeps orbax from printing the tracebacks of what it raises later anyway.

    When a write fails, on a full disk say, those beside it go on in threads of their own, and then
    find the loop closed that waited for them.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    show = sys.unraisablehook

    def show_others(found: Any) -> None:
        is_writer = threading.current_thread() is not threading.main_thread()
        if not (is_writer and str(found.exc_value) == "Event loop is closed"):
            show(found)

    sys.unraisablehook = show_others


def latest_step(folder: Path) -> int | None:
    """The iteration of the last finished checkpoint in a model's folder, None without one."""
    return max(steps_in(folder), default=None)


class PlainPath(PosixGPath):
    """A path for orbax, in which the letters [ ] of a folder's name stand for themselves.

    orbax finds its own files with a pattern below the path, and etils takes all of it as pattern:
    of a checkpoint below a[1]/ half would be written, and nothing said.
    """

    def glob(self, pattern: str) -> Iterator["PlainPath"]:
        """The paths that match `pattern` below this one."""
        return (PlainPath(path) for path in Path(self).glob(pattern))


def steps_in(folder: Path) -> list[int]:
    """The iterations of the finished checkpoints in a model's folder, in their order."""
    names = (path.name for path in (folder / "checkpoints").glob("*"))
    return sorted(int(name) for name in names if STEP.fullmatch(name))


def read_json(checkpoint: Path, item: str) -> Any:
    """The item "config", "metadata" or "history" of a checkpoint, None where it has none.

    Raises UserError when it cannot be read.
    """
    if not (checkpoint / item).is_dir():
        return None
    try:
        return foreign.read_json(checkpoint / item / "metadata", LARGEST[item])
    except UserError as error:
        raise damaged(checkpoint, error) from error


def read_config(checkpoint: Path) -> dict[str, Any]:
    """The `TrainConfig` that a checkpoint was made with.

    Its "model" is checked against the schema and "optimizer" is a mapping; all else is as it stands
    there: the folder may be somebody else's. Raises UserError.
    """
    try:
        config = foreign.mapping(read_json(checkpoint, "config"), "config", ("model",))
        foreign.refuse_references(config["model"])
        model = OmegaConf.merge(OmegaConf.structured(ModelConfig), config["model"])
        model = OmegaConf.to_container(model, throw_on_missing=True)
        for name, (low, high) in MODEL_RANGES.items():
            foreign.number(model[name], f"model.{name}", low, high)
        optimizer = foreign.mapping(config.get("optimizer", {}), "optimizer")
    except (OmegaConfBaseException, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{checkpoint}: its settings do not describe a model ({reason})") from error
    return config | {"model": model, "optimizer": optimizer}


def _read_metadata(checkpoint: Path) -> tuple[str, dict[str, Any]]:
    """(the network that is exported, what `SavedModel` tells of its faces) of a checkpoint.

    In an old one they stand among the settings, without the landmarkers.
    """
    metadata = read_json(checkpoint, "metadata")
    if metadata is None:
        metadata = read_json(checkpoint, "config")
    try:
        metadata = foreign.mapping(metadata, "metadata", ("src_eyes",))
        eyes = [
            [foreign.number(value, "src_eyes", -1e3, 1e3) for value in foreign.listing(p, "eye", 2)]
            for p in foreign.listing(metadata["src_eyes"], "src_eyes", 12)
        ]
        exported = foreign.text(metadata.get("exported_net", ONLY_NET), "exported_net", 200)
        names = foreign.listing(metadata.get("landmarkers", []), "landmarkers")
        landmarkers = frozenset(foreign.text(name, "landmarkers", 200) for name in names)
    except ValueError as error:
        raise UserError(f"{checkpoint}: its metadata cannot be read ({error})") from error
    return exported, {"src_eyes": np.array(eyes, np.float64), "landmarkers": landmarkers}


def has_part(checkpoint: Path, net: str, part: str, like: Any) -> bool:
    """True when "params", "opt" or "ema" of `net` is saved with the leaves of `like`.

    Leaves are compared by name and shape. False, too, when the state's description is damaged;
    restoring it then says so.
    """
    try:
        saved = ocp.PyTreeCheckpointer().metadata(_state_of(checkpoint)).item_metadata
        tree = _with_names(saved.tree)
    except Exception:  # orbax and tensorstore raise many kinds
        return False
    return shapes(tree["nets"].get(net, {}).get(part)) == shapes(like)


def _state_of(checkpoint: Path) -> PlainPath:
    return PlainPath(checkpoint.absolute() / "state")


def restore_state(checkpoint: Path, like: dict) -> dict:
    """The parts of a checkpoint's state that `like` has, in its shapes, types and shardings.

    `like` is {"nets": {name: {"params", "opt", "ema"}}, "key", "step"} or less of it. Raises
    UserError when it cannot be read.
    """
    folder = _state_of(checkpoint)
    try:
        saved = ocp.PyTreeCheckpointer().metadata(folder).item_metadata.tree
        named = "nets" in saved
        item = (
            like
            if named
            else {k: v for k, v in like.items() if k != "nets"} | like["nets"][ONLY_NET]
        )
        args = ocp.args.PyTreeRestore(
            item=item,
            restore_args=ocp.checkpoint_utils.construct_restore_args(item),
            partial_restore=True,
        )
        found = ocp.Checkpointer(ocp.PyTreeCheckpointHandler()).restore(folder, args=args)
    except Exception as error:  # orbax and tensorstore raise many kinds
        raise damaged(checkpoint, error) from error
    lost = first_not_finite(found)
    if lost is not None:
        raise damaged(checkpoint, ValueError(f"{lost} holds numbers that are not finite"))
    return found if named else _with_names(found)


def first_not_finite(tree: Any) -> str | None:
    """The path of the first leaf of `tree` that holds an infinity or NaN; None when none does.

    Computed on the device that the leaves are on; this waits for it.
    """
    leaves = {
        name: leaf for name, leaf in named(tree).items() if jnp.issubdtype(leaf.dtype, jnp.inexact)
    }
    finite = np.asarray(_are_finite(list(leaves.values()))) if leaves else np.array([True])
    return None if finite.all() else list(leaves)[int(finite.argmin())]


@jax.jit
def _are_finite(leaves: list[jax.Array]) -> jax.Array:
    """bool [n]: which of the n arrays are finite everywhere."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves])


def damaged(checkpoint: Path, error: Exception) -> UserError:
    """What to tell of a checkpoint that cannot be read."""
    reason = " ".join(str(error).split())[:200]
    return UserError(
        f"{checkpoint}: cannot be read ({reason}); remove this folder to go on from the "
        "checkpoint before it"
    )


def on(sharding: jax.sharding.Sharding, tree: Any) -> Any:
    """The shapes and types of `tree`, to be restored under `sharding`."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), tree)


def _with_names(tree: Mapping[str, Any]) -> dict:
    """A state, or what describes one, with its networks by name."""
    if "nets" in tree:
        return dict(tree)
    run = {name: part for name, part in tree.items() if name in ("key", "step")}
    return run | {"nets": {ONLY_NET: {n: part for n, part in tree.items() if n not in run}}}
