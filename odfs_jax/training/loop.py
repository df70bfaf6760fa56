"""Training from start to stop, read top to bottom: `train(config)`."""

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import jax
from omegaconf import DictConfig, OmegaConf

from odfs_jax.data import atomic
from odfs_jax.data.batches import make_batches
from odfs_jax.data.faceset import Faceset, load_faceset, read_eyes
from odfs_jax.data.sampling import SAMPLINGS
from odfs_jax.errors import UserError
from odfs_jax.nets.base import SwapNet
from odfs_jax.runtime import devices as hardware
from odfs_jax.runtime import distributed
from odfs_jax.training.checkpoint import Checkpoints
from odfs_jax.training.control import Control, memory_in_use
from odfs_jax.training.debug import make_debug
from odfs_jax.training.journal import Journal
from odfs_jax.training.plan import explained, is_out_of_memory, plan_batch
from odfs_jax.training.preview import make_preview
from odfs_jax.training.setup import make_setup
from odfs_jax.training.signals import stop_requests
from odfs_jax.training.start import check_start, start
from odfs_jax.training.state import TrainState, split_over
from odfs_jax.training.window import check_preview, window

log = logging.getLogger(__name__)

IN_FLIGHT = 2  # steps sent to the device and not finished: enough to keep it busy, few to wait for


def train(config: DictConfig) -> None:
    """Trains until the target iteration or a stop request; saves, and resumes what it finds.

    `config` is a `TrainConfig`. Raises UserError for what the user can mend.
    """
    hardware.prepare(config.hardware)
    distributed.join(config.hardware)
    config = OmegaConf.to_container(config)
    check_preview(config["preview"])
    folder = Path(config["workspace"]) / "models" / config["name"]
    setup = make_setup(config)
    devices = hardware.choose(config["hardware"])
    everyones = distributed.everyones(devices)
    hardware.check_batch(config["batch_size"], everyones, config["accumulate"])
    facesets = _load_facesets(config, setup.net)

    with closing(Checkpoints(folder)) as checkpoints, explained(config, checkpoints):
        check_start(checkpoints, setup)
        step = setup.step(everyones)
        config["batch_size"] = plan_batch(setup, step, facesets, devices)
        state, history = start(checkpoints, setup, devices)
        if distributed.leads():
            atomic.write_text(folder / "config.yaml", OmegaConf.to_yaml(config))
        batches = _make_batches(config, facesets, devices)
        preview = make_preview(setup.net, facesets)
        del facesets  # now on the device, or held by `batches`
        first, batch_size = int(state.step), config["batch_size"]
        with (
            _control(folder, config, first, devices) as control,
            closing(Journal(folder, batch_size, first, history)) as journal,
            window(folder, config["preview"]),
        ):
            notes = config | {"src_eyes": _src_eyes(config, setup.net)}
            debug = config["debug"] and distributed.leads()
            draw = make_debug(folder, setup.net, config["augment"]) if debug else None
            parts = (state, step, batches, preview, journal, checkpoints, control, draw)
            Loop(config, notes, *parts).run()


@dataclass
class Loop:
    """The steady loop. The host runs IN_FLIGHT dispatches ahead and waits for nothing else."""

    config: dict
    notes: dict  # what is saved beside the state
    state: TrainState
    step: Callable
    batches: Callable
    preview: Callable
    journal: Journal
    checkpoints: Checkpoints
    control: Control
    debug: Callable | None  # writes down what a step draws
    sample: int = 0  # of the preview

    def run(self) -> None:
        """To the target iteration or a stop request; what was learnt is saved."""
        first, target = int(self.state.step), self.config["iterations"]
        if target and first >= target:
            log.info("already at iteration %d of %d; give a higher iterations=", first, target)
        else:
            self._check_target(first, target)
            try:
                with stop_requests() as asked_to_stop:
                    self._turn(first, target, asked_to_stop)
                    self.save()
            except jax.errors.JaxRuntimeError as error:
                if is_out_of_memory(error):
                    self._rescue()
                raise
        self.checkpoints.finish()
        self.journal.finish()
        log.info("iteration %d saved", self.checkpoints.latest())

    def _check_target(self, first: int, target: int) -> None:
        steps = self.config["steps_per_dispatch"]
        if target and (target - first) % steps:
            raise UserError(
                f"iterations={target}: expected {first} and a multiple of "
                f"steps_per_dispatch={steps}"
            )

    def _turn(self, number: int, target: int, asked_to_stop: Callable[[], bool]) -> None:
        config, journal, steps = self.config, self.journal, self.config["steps_per_dispatch"]
        asked = self.control.asked
        in_flight: deque = deque()
        saved_at = time.monotonic()
        stop, turn = False, 0
        while not (stop or (target and number >= target)):
            batch = self.batches(number)
            if self.debug and (not turn or _due(number, steps, config["preview_every"])):
                self.debug(number, self.state, batch)
            self.state, metrics = self.step(self.state, batch)
            del batch
            number, turn = number + steps, turn + 1
            journal.add(metrics)
            in_flight.append(metrics)
            if len(in_flight) > IN_FLIGHT:
                jax.block_until_ready(in_flight.popleft())
            if _due(number, steps, config["log_every"]):
                journal.write(number)
            if _due(number, steps, config["preview_every"]) or asked & {"refresh", "next"}:
                self._show(number)
            late = time.monotonic() - saved_at >= config["save_minutes"] * 60
            stop = asked_to_stop() or "stop" in asked
            stop, late = distributed.agree(turn, metrics, stop, late or "save" in asked)
            if late:
                asked.discard("save")
                self.save()
                saved_at = time.monotonic()
            self.control.step = number
        journal.write(number)

    def _show(self, number: int) -> None:
        """A preview; of other faces when they were asked for."""
        self.sample += "next" in self.control.asked
        self.control.asked -= {"refresh", "next"}
        self.journal.picture(number, self.preview(self.state.weights, self.sample))

    def save(self) -> None:
        """A checkpoint and `preview.png`; both are written behind the loop's back."""
        picture = self.preview(self.state.weights, self.sample)
        self._save_state()
        self.journal.keep(int(self.state.step), picture)

    def _save_state(self) -> None:
        self.journal.finish()  # the checkpoint's history has every line so far
        number = int(self.state.step)
        self.checkpoints.save(number, self.state, self.notes, self.journal.history)

    def _rescue(self) -> None:
        """Saves the state where the device still has it; a step that failed took it along."""
        leaves = jax.tree.leaves(self.state)
        if any(leaf.is_deleted() for leaf in leaves):
            return
        with suppress(jax.errors.JaxRuntimeError):
            jax.block_until_ready(leaves)
            self._save_state()
            self.checkpoints.finish()


def _control(folder: Path, config: dict, step: int, devices: list[jax.Device]) -> Control:
    facts = {"step": step, "target": config["iterations"], "batch_size": config["batch_size"]}
    facts |= hardware.facts(devices)
    return Control(folder, facts, memory_in_use(devices), distributed.leads())


def _due(number: int, steps: int, every: int) -> bool:
    """True when a multiple of `every` was reached within the last `steps`."""
    return every > 0 and number // every > (number - steps) // every


def _make_batches(
    config: dict, facesets: dict[str, Faceset], devices: list[jax.Device]
) -> Callable:
    return make_batches(
        facesets,
        jax.random.key(config["seed"]),
        config["batch_size"],
        split_over(devices),
        steps=config["steps_per_dispatch"],
        sampling=config["data"]["sampling"],
    )


def _load_facesets(config: dict, net: SwapNet) -> dict:
    if sorted(config["data"]["sides"]) != ["dst", "src"]:
        raise UserError(f"data.sides={config['data']['sides']}: training needs data=src_dst")
    if (sampling := config["data"]["sampling"]) not in SAMPLINGS:
        raise UserError(f"data.sampling={sampling}: expected one of {', '.join(SAMPLINGS)}")
    facesets, eyes_mouth = {}, config["loss"]["eyes_mouth"] > 0
    for side in ("src", "dst"):
        folder, rebuilt = Path(config["data"][side]["aligned"]), net.target_specs[side].values()
        facesets[side] = load_faceset(folder, side, net.input_specs[side], rebuilt, eyes_mouth)
    return facesets


def _src_eyes(config: dict, net: SwapNet) -> list:
    """What conversion must know of src's faces (`faces/align.py`), as JSON."""
    folder = Path(config["data"]["src"]["aligned"])
    return read_eyes(folder, "src", net.output_spec.face_type).tolist()
