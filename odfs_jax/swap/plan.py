"""What is trained, chosen for the machine: a preset by memory and speed, iterations by the hours.

The presets are `configs/experiment/demo.yaml`, tuned by what it scores on two CPU cores, and
networks of DeepFaceLab 2.0 with `configs/experiment/swap.yaml`. What these take of a card is
estimated in docs/models.md and asked of the compiled program here; how long an iteration takes is
measured here. From how many iterations on a preset is worth its size is what users of DeepFaceLab
report.
"""

import itertools
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from omegaconf import DictConfig, OmegaConf

from odfs_jax.data import foreign
from odfs_jax.training.memory import TooLargeError
from odfs_jax.training.step import Step
from odfs_jax.training.train import train

DEFAULT_HOURS = 8.0  # of training on a card
USE = 0.92  # share of a card's free memory that training may take
FEWEST, MOST = 100, 500_000  # iterations that hours are turned into
WARPED = (23, 30)  # share of the iterations with a warp; the others sharpen
TRANSFORMED = (2, 3)  # share with faces turned, scaled and moved; in the others features settle
BATCH, LARGE_BATCH = 8, 16
TIMING = ".timing"  # the folder of what is only timed, in a workspace
WARM_UP, TIMED, TIMED_SECONDS = 3, 10, 3.0  # steps before the clock starts; least steps, seconds


@dataclass(frozen=True)
class Preset:
    """Settings of train.py under a name of their own."""

    name: str
    pixels: int
    settings: tuple[str, ...]
    gigabytes: float  # of a card, in float32 at BATCH: docs/models.md
    least: int  # iterations that it is worth its size from; of small: docs/demo.md


PRESETS = {
    preset.name: preset
    for preset in (  # from the smallest
        Preset("small", 80, ("experiment=demo",), 0.5, 3000),
        Preset("medium", 128, ("model=saehd", "experiment=swap"), 2.1, 20_000),
        Preset("large", 192, ("model=saehd_192", "experiment=swap"), 3.2, 40_000),
        Preset("huge", 256, ("model=saehd_256", "experiment=swap"), 4.5, 80_000),
    )
}
AUTO = "auto"


@dataclass(frozen=True)
class Plan:
    """What is trained and why; `seconds` an iteration are None where they were not measured."""

    preset: str
    iterations: int
    batch_size: int
    seconds: float | None
    why: tuple[str, ...]

    def settings(self) -> list[str]:
        """As train.py's command line has them."""
        warped, transformed = (self.iterations * share // of for share, of in (WARPED, TRANSFORMED))
        settings = list(PRESETS[self.preset].settings)
        if self.preset == "small":  # whose rate rises for 100 of 3,000 iterations
            settings.append(f"optimizer.warmup={min(100, self.iterations // 30)}")
        return [
            *settings,
            f"name={self.preset}",
            f"iterations={self.iterations}",
            f"batch_size={self.batch_size}",
            f"augment.warp_until={warped}",
            f"augment.transform_until={transformed}",
            "save_minutes=2",
        ]


def read_plan(noted: Mapping[str, Any], made_of: str) -> Plan | None:
    """The plan that was `noted` for the same settings, `made_of`; None where there is none."""
    if noted.get("of") != made_of:
        return None
    try:
        seconds = noted.get("seconds")
        plan = Plan(
            foreign.text(noted.get("preset"), "preset"),
            foreign.integer(noted.get("iterations"), "iterations", 1, 1 << 31),
            foreign.integer(noted.get("batch_size"), "batch_size", 1, 1 << 20),
            None if seconds is None else foreign.number(seconds, "seconds", 0, 1e6),
            tuple(foreign.text(w, "why") for w in foreign.listing(noted.get("why"), "why")),
        )
    except ValueError:
        return None
    return plan if plan.preset in PRESETS else None


def make_plan(
    preset: str,
    hours: float | None,
    iterations: int | None,
    devices: Sequence[jax.Device],
    free: int,
    measure: Callable[[Plan], float],
) -> Plan:
    """The largest preset that fits into `free` bytes and learns enough in `hours`, or `preset`.

    `iterations` are the user's own, which count in place of hours; `free` are the bytes of each of
    `devices`. `measure(plan)` returns the seconds of an iteration, and raises TooLargeError. Raises
    UserError for a name that is no preset.
    """
    room = USE * free / 1e9
    on_card = devices[0].platform != "cpu"
    small = PRESETS["small"]
    if preset != AUTO:
        candidates = [PRESETS[preset]]
        why = [f"preset={preset}: as given"]
    elif not on_card:
        candidates = [small]
        why = ["small: there is no card, and larger networks take days on a CPU"]
    else:
        candidates = [p for p in PRESETS.values() if p is small or p.gigabytes <= room]
        why = [f"{candidates[-1].name}: the largest for the {room:.1f} GB that may be used"]
    if iterations is not None:
        why += [f"{iterations} iterations: as given"]
    elif hours is None and candidates == [small]:
        iterations = small.least
        why += [f"{iterations} iterations: what the recipe was tuned with; hours= for more"]
    elif hours is None:
        hours = DEFAULT_HOURS
        why += [f"hours={hours:g}: none were given"]
    while True:
        chosen = candidates.pop()
        roomy = chosen is not small and 2 * chosen.gigabytes <= room  # small is tuned with its own
        size = LARGE_BATCH if roomy else BATCH
        size = -(-size // len(devices)) * len(devices)
        if iterations is not None:
            return Plan(chosen.name, iterations, size, None, tuple(why))
        try:
            seconds = measure(Plan(chosen.name, MOST, size, None, ()))
        except TooLargeError:
            if not candidates:
                raise
            why += [f"{candidates[-1].name}: {chosen.name} does not fit into the memory"]
            continue
        possible = int(hours * 3600 / seconds)
        count = min(MOST, max(FEWEST, possible))
        speed = f"{seconds:.3g} s an iteration here, batch {size}"
        if count >= chosen.least or not candidates:
            limit = ""
            if count != possible:
                limit = (
                    f" would be {possible}; {'fewer' if count > possible else 'more'} are no use"
                )
            why += [f"{count} iterations: {hours:g} hours at {speed}{limit}"]
            return Plan(chosen.name, count, size, seconds, tuple(why))
        why += [
            f"{candidates[-1].name}: {chosen.name} would get {count} iterations in {hours:g} hours "
            f"({speed}) and is worth its size from {chosen.least} on"
        ]


class _TimedError(Exception):
    """Ends a run that is only timed, before it saves anything."""


def seconds_per_iteration(config: DictConfig) -> float:
    """Trains a few iterations of a new model with a `TrainConfig`, and times them.

    The model lies in a folder of its own in the workspace, which is removed. Raises TooLargeError
    when the batch does not fit, KeyboardInterrupt when the run is asked to stop.
    """
    config = config.copy()
    OmegaConf.resolve(config)  # the faces stay in the user's workspace
    folder = Path(config.workspace) / TIMING
    config.workspace = str(folder)
    steps = config.steps_per_dispatch
    config.iterations = MOST * steps
    config.save_minutes = math.inf
    config.log_every = config.preview_every = config.evaluate_every = 0
    taken = 0.0

    def timed(step: Step) -> Step:
        calls, start = itertools.count(1), 0.0

        def run(state, batch):
            nonlocal start, taken
            state, metrics = step(state, batch)
            call = next(calls)
            if call < WARM_UP:
                return state, metrics
            jax.block_until_ready(metrics)
            now = time.monotonic()
            if call == WARM_UP:
                start = now
            elif call >= WARM_UP + TIMED and now - start >= TIMED_SECONDS:
                taken = (now - start) / ((call - WARM_UP) * steps)
                raise _TimedError
            return state, metrics

        return run

    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    try:
        train(config, timed)
    except _TimedError:
        return taken
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    raise KeyboardInterrupt
