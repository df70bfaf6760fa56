"""Training from start to stop, read top to bottom: `train(config)`."""

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import jax
from omegaconf import DictConfig, OmegaConf

from odfs_jax import devices as hardware
from odfs_jax.data import atomic
from odfs_jax.data.batches import make_batches
from odfs_jax.data.faceset import load_faceset, read_eyes
from odfs_jax.errors import UserError
from odfs_jax.faces.types import FaceType
from odfs_jax.training.checkpoint import Checkpoints, check_same_model, on
from odfs_jax.training.journal import Journal
from odfs_jax.training.preview import make_preview
from odfs_jax.training.setup import Setup, make_setup
from odfs_jax.training.signals import stop_requests
from odfs_jax.training.state import TrainState, replicated, split_over

log = logging.getLogger(__name__)

IN_FLIGHT = 2  # steps sent to the device and not finished: enough to keep it busy, few to wait for


def train(config: DictConfig) -> None:
    """Trains until the target iteration or a stop request; saves, and resumes what it finds.

    `config` is a `TrainConfig`. Raises UserError for what the user can mend.
    """
    hardware.prepare(config.hardware)
    config = OmegaConf.to_container(config)
    folder = Path(config["workspace"]) / "models" / config["name"]
    setup = make_setup(config)
    devices = hardware.choose(config["hardware"])
    hardware.check_batch(config["batch_size"], devices)
    facesets = _load_facesets(config)

    with closing(Checkpoints(folder)) as checkpoints:
        state, history = _start(checkpoints, setup, devices)
        atomic.write_text(folder / "config.yaml", OmegaConf.to_yaml(config))
        step = setup.step(devices)
        batches = make_batches(
            facesets, jax.random.key(config["seed"]), config["batch_size"], split_over(devices)
        )
        preview = make_preview(setup.net, facesets)
        del facesets  # now on the device, or held by `batches`
        with closing(Journal(folder, config["batch_size"], int(state.step), history)) as journal:
            notes = config | {"src_eyes": _src_eyes(config)}
            Loop(config, notes, step, batches, preview, journal, checkpoints).run(state)


@dataclass
class Loop:
    """The steady loop. The host runs IN_FLIGHT steps ahead and waits for nothing else."""

    config: dict
    notes: dict  # what is saved beside the state
    step: Callable
    batches: Callable
    preview: Callable
    journal: Journal
    checkpoints: Checkpoints

    def run(self, state: TrainState) -> None:
        """From `state` to the target iteration or a stop request; what was learnt is saved."""
        number, target = int(state.step), self.config["iterations"]
        if target and number >= target:
            log.info("already at iteration %d of %d; give a higher iterations=", number, target)
        else:
            with stop_requests() as asked_to_stop:
                state = self._turn(state, number, target, asked_to_stop)
                self.save(state)
        self.checkpoints.finish()
        self.journal.finish()
        log.info("iteration %d saved", self.checkpoints.latest())

    def _turn(self, state: TrainState, number: int, target: int, asked_to_stop) -> TrainState:
        config, journal = self.config, self.journal
        in_flight: deque = deque()
        saved_at = time.monotonic()
        while not (target and number >= target) and not asked_to_stop():
            state, metrics = self.step(state, self.batches(number))
            number += 1
            journal.add(metrics)
            in_flight.append(metrics)
            if len(in_flight) > IN_FLIGHT:
                jax.block_until_ready(in_flight.popleft())
            if _due(number, config["log_every"]):
                journal.write(number)
            if _due(number, config["preview_every"]):
                journal.picture(number, self.preview(state.params))
            if time.monotonic() - saved_at >= config["save_minutes"] * 60:
                self.save(state)
                saved_at = time.monotonic()
        journal.write(number)
        return state

    def save(self, state: TrainState) -> None:
        """A checkpoint and `preview.png`; both are written behind the loop's back."""
        picture = self.preview(state.params)
        self.journal.finish()  # the checkpoint's history has every line so far
        self.checkpoints.save(int(state.step), state, self.notes, self.journal.history)
        self.journal.keep(picture)


def _due(number: int, every: int) -> bool:
    return every > 0 and number % every == 0


def _load_facesets(config: dict) -> dict:
    if sorted(config["data"]["sides"]) != ["dst", "src"]:
        raise UserError(f"data.sides={config['data']['sides']}: training needs data=src_dst")
    model, facesets = config["model"], {}
    try:
        face_type = FaceType(model["face_type"])
    except ValueError as error:
        raise UserError(f"model.face_type={model['face_type']}: no such face type") from error
    for side in ("src", "dst"):
        folder = Path(config["data"][side]["aligned"])
        eyes_mouth = config["loss"]["eyes_mouth"] > 0
        facesets[side] = load_faceset(folder, side, face_type, model["resolution"], eyes_mouth)
    return facesets


def _src_eyes(config: dict) -> list:
    """What conversion must know of src's faces (`faces/proportions.py`), as JSON."""
    folder = Path(config["data"]["src"]["aligned"])
    return read_eyes(folder, "src", FaceType(config["model"]["face_type"])).tolist()


def _start(
    checkpoints: Checkpoints, setup: Setup, devices: list[jax.Device]
) -> tuple[TrainState, list]:
    """The state to go on from: the last checkpoint's, or a fresh one."""
    copies = replicated(devices)
    latest = checkpoints.latest()
    if latest is None:
        state = jax.jit(setup.fresh, out_shardings=copies)()
        count = sum(p.size for p in jax.tree.leaves(state.params))
        log.info("%s: a new model of %s parameters", checkpoints.folder, f"{count:,}")
        return state, []
    check_same_model(checkpoints.folder, checkpoints.config()["model"], setup.config["model"])
    state, _, history = checkpoints.restore(on(copies, jax.eval_shape(setup.fresh)))
    log.info("%s: resuming at iteration %d", checkpoints.folder, latest)
    return state, history
