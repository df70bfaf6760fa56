"""The checkpoints of a run: written, and what a run starts from.

`odfs_jax/saved_model.py` says how they lie on the disk and reads them; orbax writes them, in the
background.
"""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from odfs_jax import saved_model
from odfs_jax.errors import UserError
from odfs_jax.runtime import distributed
from odfs_jax.training.history import History
from odfs_jax.training.not_finite import NotFiniteError
from odfs_jax.training.objectives.base import Objective
from odfs_jax.training.partial import (
    at_step,
    check_patterns,
    matches,
    merge,
    patterns_of,
    reset,
)
from odfs_jax.training.step import NetState, TrainState

log = logging.getLogger(__name__)

KEEP = 2  # the last one, and the one before it
DELETED = "deleted"  # beside the others: a checkpoint that is no longer kept
INTERS = ("inter*", "*/inter*")  # what a pretrained model has learned of people, not of faces
# What makes a network's parameters what they are; all else may change between two starts.
IDENTITY = ("net", "face_type", "resolution", "width", "args")


class Checkpoints:
    """The checkpoints of one model folder."""

    def __init__(self, folder: Path) -> None:
        """Raises UserError when the folder cannot be written."""
        self.folder = folder
        path = saved_model.PlainPath((folder / "checkpoints").absolute())
        if "\\" in str(path):  # tensorstore would say so after the first minutes of training
            raise UserError(f"{path}: no checkpoint can be written below a name with a backslash")
        saved_model.silence_orbax()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEEP, cleanup_tmp_directories=True, todelete_subdir=DELETED
        )
        names = ("state", "config", "metadata", "history")
        try:
            self._manager = ocp.CheckpointManager(path, options=options, item_names=names)
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror})") from error
        self._delete()

    def _delete(self) -> None:
        """Deletes the checkpoints that are not kept, which were renamed first.

        A kill while files of a checkpoint are being deleted would leave half of one among the
        others.
        """
        shutil.rmtree(self.folder / "checkpoints" / DELETED, ignore_errors=True)

    def latest(self) -> int | None:
        """The last saved step, None when nothing was saved yet."""
        return self._manager.latest_step()

    @property
    def latest_folder(self) -> Path:
        """Where the last checkpoint lies."""
        return self.folder / "checkpoints" / str(self.latest())

    def save(
        self, step: int, state: TrainState, config: dict, metadata: dict, history: History
    ) -> None:
        """Copies `state` off the device and starts writing it; does nothing when `step` is saved.

        `config` is a `TrainConfig`; `metadata` is JSON, what `saved_model.SavedModel` tells beside
        it; `history` has the losses up to `step`.

        Raises NotFiniteError, with nothing written, when a number of `state` is an infinity or
        NaN; UserError when this write or the one before it failed. Finished checkpoints stay.
        """
        if self._manager.latest_step() == step:
            return
        lost = saved_model.first_not_finite(state)
        if lost is not None:
            raise NotFiniteError(step, lost, self.latest(), config)
        try:
            self._manager.wait_until_finished()
            self._delete()
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(distributed.to_global(state)),
                    config=ocp.args.JsonSave(config),
                    metadata=ocp.args.JsonSave(metadata),
                    history=ocp.args.JsonSave(history.to_json()),  # a copy: the run's own grows on
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
        self._delete()

    def close(self) -> None:
        """Ends the writing. Raises UserError when a write that nobody waited for failed."""
        try:
            self._manager.close()
        except Exception as error:
            raise self._failed(error) from error
        self._delete()

    def has_part(self, net: str, part: str, like: dict) -> bool:
        """True when the last checkpoint holds "params", "opt" or "ema" of `net` as `like` is."""
        return saved_model.has_part(self.latest_folder, net, part, like)

    def restore(self, like: dict) -> dict:
        """The parts of the last state that `like` has, in its shapes, types and shardings.

        `like` is {"nets": {name: {"params", "opt", "ema"}}, "key", "step"} or less of it.
        """
        like = distributed.to_global_shapes(like)
        return distributed.to_local(saved_model.restore_state(self.latest_folder, like))

    def config(self) -> dict:
        """The `TrainConfig` saved with the last checkpoint; see `saved_model.read_config`."""
        return saved_model.read_config(self.latest_folder)

    def history(self) -> History:
        """The losses saved with the last checkpoint."""
        return read_history(self.latest_folder)

    def _failed(self, error: Exception) -> UserError:
        text = " ".join(str(error).split())
        full = "No space left" in text or "ENOSPC" in text or "Disk quota" in text
        reason = "the disk is full" if full else text[:200]
        last = self._manager.latest_step()
        kept = "no checkpoint was made yet" if last is None else f"the checkpoint {last} is whole"
        return UserError(f"{self.folder}: the checkpoint was not written ({reason}); {kept}")


def read_history(checkpoint: Path) -> History:
    """The losses in a checkpoint's folder. Raises UserError."""
    try:
        return History.from_json(saved_model.read_json(checkpoint, "history"))
    except ValueError as error:
        raise saved_model.damaged(checkpoint, error) from error


def check_start(checkpoints: Checkpoints, objective: Objective) -> None:
    """Raises UserError when the folder holds another model, or a pattern matches no parameter."""
    for name, params in objective.state_shapes.params.items():
        for key in ("freeze", "reset"):
            patterns = patterns_of(name, objective.config[key], objective.nets, objective.exported)
            check_patterns(key, patterns, params)
    if checkpoints.latest() is not None:
        saved, folder = checkpoints.config(), checkpoints.folder
        check_same_model(folder, saved["model"], objective.config["model"])
        before, now = saved.get("pretrain", False), objective.config["pretrain"]
        if before and not now:
            raise UserError(f"{folder} is pretrained; give another name= and init_from={folder}")
        if now and not before:
            raise UserError(f"{folder} knows two people; give pretrain=true another name=")


def check_same_model(folder: Path, saved: dict, settings: dict) -> None:
    """Raises UserError naming the first setting in which two `ModelConfig`s are other networks."""
    for key in IDENTITY:
        if saved[key] != settings[key]:
            raise UserError(
                f"{folder} holds another model: model.{key} is {saved[key]} there and "
                f"{settings[key]} here; give this run a name of its own with name="
            )


def start(
    checkpoints: Checkpoints, objective: Objective, devices: list[jax.Device]
) -> tuple[TrainState, History]:
    """(state on `devices`, loss history) that a run begins with; `check_start` comes before it.

    The last checkpoint in the run's own folder, else other weights (init_from), else a new model.
    Then `reset`, in any of these.
    """
    config, copies = objective.config, distributed.replicated(devices)
    fresh = jax.jit(objective.init_state, out_shardings=copies)
    if checkpoints.latest() is None:
        state, history = _begin(checkpoints.folder, objective, fresh(), copies), History()
    else:
        state, history = _resume(checkpoints, objective, fresh, copies), checkpoints.history()
    if config["reset"]:
        patterns = {
            name: patterns_of(name, config["reset"], objective.nets, objective.exported)
            for name in objective.nets
        }
        reset_on_device = jax.jit(lambda *states: reset(*states, patterns), out_shardings=copies)
        state = reset_on_device(state, fresh())
        log.info("reset: %s; the optimizer begins afresh", ", ".join(config["reset"]))
    return state, history


def _begin(
    folder: Path, objective: Objective, state: TrainState, copies: jax.sharding.Sharding
) -> TrainState:
    """A new model, with the weights that `init_from` names, if any."""
    count = sum(p.size for p in jax.tree.leaves(state.params))
    log.info("%s: a new model of %s parameters", folder, f"{count:,}")
    if objective.config["init_from"] is None:
        return state
    other = objective.config["init_from"]
    net = state.nets[objective.exported]
    weights, again = saved_model.named(saved_model.load_weights(other)), []
    if saved_model.is_pretrained(other):
        again = [name for name in weights if matches(name, INTERS)]
        weights = {name: value for name, value in weights.items() if name not in again}
        inters = sorted({name.split("/")[0] for name in again})
        log.info("%s: pretrained; begin anew: %s", other, ", ".join(inters))
    params, lines = merge(net.params, weights)
    total = len(jax.tree.leaves(params))
    taken = total - sum(line.startswith("+") for line in lines)
    lines = [line for line in lines if line.split()[1] not in again]
    rest = "".join(f"\n    {line}" for line in lines)
    log.info("%s: %d of %d parameters taken over%s", other, taken, total, rest)
    params = jax.device_put(params, copies)
    ema = None if net.ema is None else jax.tree.map(jax.numpy.copy, params)
    net = net.replace(params=params, ema=ema)
    return state.replace(nets=state.nets | {objective.exported: net})


def _resume(
    checkpoints: Checkpoints,
    objective: Objective,
    fresh: Callable[[], TrainState],
    copies: jax.sharding.Sharding,
) -> TrainState:
    """The saved state. What the settings ask for and the checkpoint lacks begins here."""
    like = objective.state_shapes
    # Adam's moments have the names and shapes of AdaBelief's, and another meaning.
    before = checkpoints.config()["optimizer"].get("name")
    now = objective.config["optimizer"]["name"]
    saved: dict[str, dict] = {}  # network -> its parts that the checkpoint has
    for name, net in like.nets.items():
        # The exported network's parameters must be there: restoring them says what is wrong.
        if name == objective.exported or checkpoints.has_part(name, "params", net.params):
            saved[name] = {"params": net.params}
            for part in ("opt", "ema"):
                wanted = getattr(net, part)
                usable = wanted is not None and (part != "opt" or before == now)
                if usable and checkpoints.has_part(name, part, wanted):
                    saved[name][part] = wanted
    parts = {"nets": saved, "key": like.key, "step": like.step}
    found = checkpoints.restore(saved_model.on(copies, parts))
    log.info("%s: resuming at iteration %d", checkpoints.folder, checkpoints.latest())
    if objective.config["init_from"] is not None:
        log.info("init_from=%s is for new models only: not read", objective.config["init_from"])

    step, nets = found["step"], {}
    for name, net in like.nets.items():
        label = "" if name == objective.exported else f"{name}: "
        parts = found["nets"].get(name)
        if parts is None:
            log.info("%snot in the checkpoint, begins fresh", label)
            new = fresh().nets[name]
            nets[name] = new.replace(opt=at_step(new.opt, step))
            continue
        if "opt" not in parts:
            log.info("%soptimizer or freeze has changed: the optimizer begins afresh", label)
            parts["opt"] = at_step(fresh().nets[name].opt, step)
        if net.ema is not None and "ema" not in parts:
            log.info("%sema: the mean of the weights begins here", label)
            parts["ema"] = jax.tree.map(jax.numpy.copy, parts["params"])
        nets[name] = NetState(**parts)
    return TrainState(nets, found["key"], step)
