"""A model's folder: its checkpoints and what it is. The only file that knows orbax.

<workspace>/models/<name>/
    config.yaml            the settings of the last start, for people
    checkpoints/<step>/    state, settings and loss history, written by orbax
"""

import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from odfs_jax.config import ModelConfig
from odfs_jax.errors import UserError
from odfs_jax.nets import build_net
from odfs_jax.runtime import distributed
from odfs_jax.training.state import TrainState

log = logging.getLogger(__name__)

KEEP = 2  # the last one, and the one before it
# What makes a network's parameters what they are; all else may change between two starts.
IDENTITY = ("net", "face_type", "resolution", "width", "args")


class Checkpoints:
    """The checkpoints of one model folder. Saving goes on in the background."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("absl", "asyncio"):  # orbax logs tracebacks of what it raises later anyway
            logging.getLogger(name).setLevel(logging.CRITICAL)
        options = ocp.CheckpointManagerOptions(max_to_keep=KEEP, cleanup_tmp_directories=True)
        names = ("state", "config", "history")
        try:
            self._manager = ocp.CheckpointManager(
                (folder / "checkpoints").absolute(), options=options, item_names=names
            )
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror})") from error

    def latest(self) -> int | None:
        """The last saved step, None when nothing was saved yet."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, config: dict, history: list) -> None:
        """Copies `state` off the device and starts writing it; nothing to do when it stands.

        Raises UserError when this or the write before failed; finished checkpoints stay.
        """
        if self._manager.latest_step() == step:
            return
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(distributed.as_one(state)),
                    config=ocp.args.JsonSave(config),
                    history=ocp.args.JsonSave({"rows": list(history)}),  # ours goes on growing
                ),
            )
        except Exception as error:  # orbax and tensorstore raise many kinds
            raise self._failed(error) from error

    def finish(self) -> None:
        """Waits for the write under way. Raises UserError when it failed."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Gives up the folder. Raises UserError when a write that nobody waited for failed."""
        try:
            self._manager.close()
        except Exception as error:
            raise self._failed(error) from error

    def restore(self, like: Any) -> tuple[Any, dict, list]:
        """(state, config, history) of the latest step; `like` gives shapes, types and devices.

        Parts of the saved state that `like` leaves out are not read.
        """
        like = distributed.shapes_as_one(like)
        how = ocp.checkpoint_utils.construct_restore_args(like)
        state = ocp.args.PyTreeRestore(item=like, restore_args=how, partial_restore=True)
        items = self._restore(state=state)
        return distributed.as_own(items.state), items.config, items.history["rows"]

    def holds(self, part: str, like: Any) -> bool:
        """True when `part` of the latest state has the leaves of `like`, by name and shape."""
        folder = self.folder.absolute() / "checkpoints" / str(self.latest()) / "state"
        saved = ocp.PyTreeCheckpointer().metadata(folder).item_metadata
        # None where it cannot be read: `restore` then says so.
        return saved is not None and _shapes(saved.tree.get(part)) == _shapes(like)

    def config(self) -> dict:
        """The settings saved with the latest step."""
        return self._restore().config

    def _restore(self, **state: ocp.args.PyTreeRestore) -> ocp.args.Composite:
        notes = {"config": ocp.args.JsonRestore(), "history": ocp.args.JsonRestore()}
        try:
            return self._manager.restore(self.latest(), args=ocp.args.Composite(**notes, **state))
        except Exception as error:
            where = self.folder / "checkpoints" / str(self.latest())
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{where}: cannot be read ({reason}); remove this folder to go on from the "
                "checkpoint before it"
            ) from error

    def _failed(self, error: Exception) -> UserError:
        text = " ".join(str(error).split())
        full = "No space left" in text or "ENOSPC" in text or "Disk quota" in text
        reason = "the disk is full" if full else text[:200]
        last = self._manager.latest_step()
        kept = "no checkpoint was made yet" if last is None else f"the checkpoint {last} is whole"
        return UserError(f"{self.folder}: the checkpoint was not written ({reason}); {kept}")


def check_same_model(folder: Path, saved: dict, wanted: dict) -> None:
    """Raises UserError naming the first setting in which two `ModelConfig`s are other networks."""
    for key in IDENTITY:
        if saved[key] != wanted[key]:
            raise UserError(
                f"{folder} holds another model: model.{key} is {saved[key]} there and "
                f"{wanted[key]} here; give this run a name of its own with name="
            )


def load_for_inference(folder: Path) -> tuple[dict, dict, np.ndarray]:
    """(ModelConfig as a dict, params on the first device, src's eyes [12, 2]) of a model folder.

    The eyes are `faces.align.frontal_eyes` of the faces it was trained on.

    Raises UserError when the folder holds no checkpoint, or a damaged one.
    """
    if not (folder / "checkpoints").is_dir():
        raise UserError(f"{folder}: no trained model here; run: python train.py")
    checkpoints = Checkpoints(folder)
    try:
        if checkpoints.latest() is None:
            raise UserError(f"{folder}: no finished checkpoint; train a while longer")
        saved = checkpoints.config()
        model, eyes = _checked_model(folder, saved), _checked_eyes(folder, saved)
        params = _restore_params(checkpoints, model)
    finally:
        checkpoints.close()
    return model, params, eyes


def _checked_model(folder: Path, saved: dict) -> dict:
    """The model's settings, checked against the schema: the folder may be somebody else's."""
    try:
        model = OmegaConf.merge(OmegaConf.structured(ModelConfig), saved["model"])
        return OmegaConf.to_container(model, throw_on_missing=True)
    except (OmegaConfBaseException, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{folder}: its settings do not describe a model ({reason})") from error


def _checked_eyes(folder: Path, saved: dict) -> np.ndarray:
    try:
        eyes = np.array(saved["src_eyes"], np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder}: its notes on src's eyes cannot be read") from error
    if eyes.shape != (12, 2) or not np.isfinite(eyes).all():
        raise UserError(f"{folder}: its notes on src's eyes are not 12 points")
    return eyes


def _restore_params(checkpoints: Checkpoints, model: dict) -> dict:
    """Only the weights, their mean where there is one: the optimiser's moments are never read."""
    net = build_net(model)
    like = jax.eval_shape(net.init, jax.random.key(0), *net.blank())["params"]
    part = "ema" if checkpoints.holds("ema", like) else "params"
    state, _, _ = checkpoints.restore({part: on(first_device(), like)})
    return state[part]


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """{path: shape}, the same for a tree and for what orbax says of it."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in leaves
    }


def first_device() -> jax.sharding.Sharding:
    """Where a single copy goes."""
    return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def on(sharding: jax.sharding.Sharding, tree: Any) -> Any:
    """`tree`'s shapes and types, to be restored under `sharding`."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), tree)
