"""A trained model's folder as everyone but the trainer sees it: `load_model(folder)`.

<workspace>/models/<name>/
    config.yaml             the settings of the last start, for people
    checkpoints/<step>/     written by training (`training/checkpoint.py`)
        config/metadata     the settings, JSON
        metadata/metadata   what conversion must know beside them, JSON: see `SavedModel`
        history/metadata    the losses, JSON
        state/              networks, optimizers, key and step, in orbax's own form

A checkpoint of the code before it had named networks holds `params`, `opt` and `ema` of a single
one directly in its state, and what is in `metadata` now among its settings. It is read as well.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from odfs_jax.config import ModelConfig
from odfs_jax.errors import UserError
from odfs_jax.nets import build_net

ONLY_NET = "autoencoder"  # the network of a checkpoint without names


@dataclass(frozen=True)
class SavedModel:
    """The network that a model's folder is there for, and what was learned about src."""

    config: dict[str, Any]  # a `ModelConfig`; `nets.build_net` takes it
    params: dict  # on the first device; the running mean where the run kept one
    src_eyes: np.ndarray  # float64 [12, 2]: `faces.align.frontal_eyes` of src's faces
    step: int  # iterations that it was trained


def load_model(folder: Path) -> SavedModel:
    """The model in `folder` as its last checkpoint has it. Optimizer states are never read.

    Raises UserError when the folder holds no checkpoint, or a damaged one.
    """
    silence_orbax()
    if not (folder / "checkpoints").is_dir():
        raise UserError(f"{folder}: no trained model here; run: python train.py")
    step = latest_step(folder)
    if step is None:
        raise UserError(f"{folder}: no finished checkpoint; train a while longer")
    checkpoint = folder / "checkpoints" / str(step)
    try:
        config = read_json(checkpoint, "config")
        metadata = read_json(checkpoint, "metadata")
    except (OSError, ValueError) as error:
        raise damaged(checkpoint, error) from error
    config = config if isinstance(config, dict) else {}
    metadata = config if metadata is None else metadata
    model, eyes = _checked_model(folder, config), _checked_eyes(folder, metadata)
    exported = metadata.get("exported_net", ONLY_NET)
    net = build_net(model)
    like = jax.eval_shape(net.init, jax.random.key(0), *net.blank())["params"]
    part = "ema" if has_part(checkpoint, exported, "ema", like) else "params"
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = {"nets": {exported: {part: on(device, like)}}}
    params = restore_state(checkpoint, like)["nets"][exported][part]
    return SavedModel(model, params, eyes, step)


def silence_orbax() -> None:
    """Keeps orbax from logging the tracebacks of what it raises later anyway."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def latest_step(folder: Path) -> int | None:
    """The iteration of the last finished checkpoint in a model's folder, None without one."""
    steps = (path.name for path in (folder / "checkpoints").glob("*"))
    return max((int(step) for step in steps if step.isdigit()), default=None)


def read_json(checkpoint: Path, item: str) -> Any:
    """The item "config", "metadata" or "history" of a checkpoint, None where it has none.

    Raises OSError or ValueError when it cannot be read.
    """
    if not (checkpoint / item).is_dir():
        return None
    return json.loads((checkpoint / item / "metadata").read_text())


def has_part(checkpoint: Path, net: str, part: str, like: Any) -> bool:
    """True when "params", "opt" or "ema" of `net` is saved with the leaves of `like`.

    Leaves are compared by name and shape. False, too, when the state's description is damaged;
    restoring it then says so.
    """
    try:
        saved = ocp.PyTreeCheckpointer().metadata(checkpoint.absolute() / "state").item_metadata
        tree = _with_names(saved.tree)
    except Exception:  # orbax and tensorstore raise many kinds
        return False
    return _shapes(tree["nets"].get(net, {}).get(part)) == _shapes(like)


def restore_state(checkpoint: Path, like: dict) -> dict:
    """The parts of a checkpoint's state that `like` has, in its shapes, types and shardings.

    `like` is {"nets": {name: {"params", "opt", "ema"}}, "key", "step"} or less of it. Raises
    UserError when it cannot be read.
    """
    folder = checkpoint.absolute() / "state"
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
    leaves = [
        (path, leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    finite = np.asarray(_are_finite([leaf for _, leaf in leaves])) if leaves else np.array([True])
    if finite.all():
        return None
    return jax.tree_util.keystr(leaves[int(finite.argmin())][0], simple=True, separator="/")


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


def _checked_model(folder: Path, config: dict) -> dict[str, Any]:
    """The model's settings, checked against the schema: the folder may be somebody else's."""
    try:
        model = OmegaConf.merge(OmegaConf.structured(ModelConfig), config["model"])
        return OmegaConf.to_container(model, throw_on_missing=True)
    except (OmegaConfBaseException, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{folder}: its settings do not describe a model ({reason})") from error


def _checked_eyes(folder: Path, metadata: dict) -> np.ndarray:
    try:
        eyes = np.array(metadata["src_eyes"], np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder}: its record of src's eyes cannot be read") from error
    if eyes.shape != (12, 2) or not np.isfinite(eyes).all():
        raise UserError(f"{folder}: its record of src's eyes is not 12 points")
    return eyes


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """{path: shape}, the same for a tree of arrays and for what orbax says of it."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in leaves
    }
