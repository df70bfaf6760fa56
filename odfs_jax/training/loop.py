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
from odfs_jax.data.sampling import SAMPLINGS
from odfs_jax.errors import UserError
from odfs_jax.nets.base import SwapNet
from odfs_jax.training.checkpoint import Checkpoints
from odfs_jax.training.journal import Journal
from odfs_jax.training.preview import make_preview
from odfs_jax.training.setup import make_setup
from odfs_jax.training.signals import stop_requests
from odfs_jax.training.start import start
from odfs_jax.training.state import TrainState, split_over

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
    hardware.check_batch(config["batch_size"], devices, config["accumulate"])
    facesets = _load_facesets(config, setup.net)

    with closing(Checkpoints(folder)) as checkpoints:
        state, history = start(checkpoints, setup, devices)
        atomic.write_text(folder / "config.yaml", OmegaConf.to_yaml(config))
        step = setup.step(devices)
        batches = make_batches(
            facesets,
            jax.random.key(config["seed"]),
            config["batch_size"],
            split_over(devices),
            sampling=config["data"]["sampling"],
        )
        preview = make_preview(setup.net, facesets)
        del facesets  # now on the device, or held by `batches`
        with closing(Journal(folder, config["batch_size"], int(state.step), history)) as journal:
            notes = config | {"src_eyes": _src_eyes(config, setup.net)}
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
                journal.picture(number, self.preview(state.weights))
            if time.monotonic() - saved_at >= config["save_minutes"] * 60:
                self.save(state)
                saved_at = time.monotonic()
        journal.write(number)
        return state

    def save(self, state: TrainState) -> None:
        """A checkpoint and `preview.png`; both are written behind the loop's back."""
        picture = self.preview(state.weights)
        self.journal.finish()  # the checkpoint's history has every line so far
        self.checkpoints.save(int(state.step), state, self.notes, self.journal.history)
        self.journal.keep(picture)


def _due(number: int, every: int) -> bool:
    return every > 0 and number % every == 0


def _load_facesets(config: dict, net: SwapNet) -> dict:
    if sorted(config["data"]["sides"]) != ["dst", "src"]:
        raise UserError(f"data.sides={config['data']['sides']}: training needs data=src_dst")
    if (sampling := config["data"]["sampling"]) not in SAMPLINGS:
        raise UserError(f"data.sampling={sampling}: expected one of {', '.join(SAMPLINGS)}")
    facesets, eyes_mouth = {}, config["loss"]["eyes_mouth"] > 0
    for side in ("src", "dst"):
        folder, rebuilt = Path(config["data"][side]["aligned"]), net.targets[side].values()
        facesets[side] = load_faceset(folder, side, net.inputs[side], rebuilt, eyes_mouth)
    return facesets


def _src_eyes(config: dict, net: SwapNet) -> list:
    """What conversion must know of src's faces (`faces/proportions.py`), as JSON."""
    folder = Path(config["data"]["src"]["aligned"])
    return read_eyes(folder, "src", net.swapped.face_type).tolist()
