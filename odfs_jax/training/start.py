"""The state a run starts from: the last checkpoint's, another model's weights, or a fresh one."""

import logging
from pathlib import Path

import jax

from odfs_jax.training.checkpoint import Checkpoints, check_same_model, load_for_inference, on
from odfs_jax.training.setup import Setup
from odfs_jax.training.state import TrainState, replicated
from odfs_jax.training.weights import at_step, check_patterns, merge, reset

log = logging.getLogger(__name__)


def check_start(checkpoints: Checkpoints, setup: Setup) -> None:
    """Raises UserError when the folder holds another model, or a setting names no parameters."""
    params = jax.eval_shape(setup.fresh).params
    for key in ("freeze", "reset"):
        check_patterns(key, setup.config[key], params)
    if checkpoints.latest() is not None:
        saved = checkpoints.config()["model"]
        check_same_model(checkpoints.folder, saved, setup.config["model"])


def start(
    checkpoints: Checkpoints, setup: Setup, devices: list[jax.Device]
) -> tuple[TrainState, list]:
    """(state on `devices`, loss history) to go on from; `check_start` comes first."""
    config = setup.config
    copies = replicated(devices)
    fresh = jax.jit(setup.fresh, out_shardings=copies)
    if checkpoints.latest() is None:
        state, history = _new(checkpoints, config["init_from"], fresh(), copies), []
    else:
        state, history = _resumed(checkpoints, setup, fresh, copies)
    if config["reset"]:
        state = jax.jit(reset, static_argnums=2, out_shardings=copies)(
            state, fresh(), tuple(config["reset"])
        )
        log.info("reset: %s; the optimiser begins anew", ", ".join(config["reset"]))
    return state, history


def _new(checkpoints: Checkpoints, init_from: str | None, state: TrainState, copies) -> TrainState:
    count = sum(p.size for p in jax.tree.leaves(state.params))
    log.info("%s: a new model of %s parameters", checkpoints.folder, f"{count:,}")
    if init_from is None:
        return state
    folder = Path(init_from)
    _, others, _ = load_for_inference(folder)
    params, lines = merge(state.params, others)
    total = len(jax.tree.leaves(params))
    taken = total - sum(line.startswith("+") for line in lines)
    rest = "".join(f"\n    {line}" for line in lines)
    log.info("%s: %d of %d parameters taken over%s", folder, taken, total, rest)
    params = jax.device_put(params, copies)
    ema = None if state.ema is None else jax.tree.map(jax.numpy.copy, params)
    return state.replace(params=params, ema=ema)


def _resumed(checkpoints: Checkpoints, setup: Setup, fresh, copies) -> tuple[TrainState, list]:
    """What is saved; what the settings ask for and the checkpoint has not begins here."""
    folder, config = checkpoints.folder, setup.config
    like = vars(jax.eval_shape(setup.fresh))
    lacking = {name for name in ("opt", "ema") if not checkpoints.holds(name, like[name])}
    there = {name: part for name, part in like.items() if name not in lacking}
    found, _, history = checkpoints.restore(on(copies, there))
    state = TrainState(**dict.fromkeys(lacking), **found)
    log.info("%s: resuming at iteration %d", folder, checkpoints.latest())
    if config["init_from"] is not None:
        log.info("init_from=%s is for new models only: not read", config["init_from"])
    if "opt" in lacking:
        state = state.replace(opt=at_step(fresh().opt, state.step))
        log.info("optimizer or freeze has changed: the optimiser begins anew")
    if "ema" in lacking and config["ema"] is not None:
        state = state.replace(ema=jax.tree.map(jax.numpy.copy, state.params))
        log.info("ema: the mean of the weights begins here")
    return state, history
