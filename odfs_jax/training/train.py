"""Training from start to stop, read top to bottom: `train(config)`."""

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, closing, nullcontext, suppress
from pathlib import Path
from typing import Any

import jax
from omegaconf import DictConfig, OmegaConf

from odfs_jax import saved_model
from odfs_jax.data import atomic
from odfs_jax.data.batches import make_batches
from odfs_jax.errors import UserError
from odfs_jax.runtime import devices as hardware
from odfs_jax.runtime import distributed
from odfs_jax.training.backups import back_up_when_due, backups_in, rollback
from odfs_jax.training.checkpoint import Checkpoints, check_start, read_history, start
from odfs_jax.training.console import Console
from odfs_jax.training.control import (
    Control,
    check_preview,
    memory_in_use,
    preview_window,
    stop_requests,
)
from odfs_jax.training.memory import explained, is_out_of_memory, plan_batch
from odfs_jax.training.metrics import MetricLogger
from odfs_jax.training.not_finite import ON_NAN, NotFiniteError, slower
from odfs_jax.training.objectives import make_objective
from odfs_jax.training.optimizers import gradient_norms, learning_rate
from odfs_jax.training.preview import make_debug, make_preview
from odfs_jax.training.stages import Stage, from_iteration, read_stages
from odfs_jax.training.step import Step

log = logging.getLogger(__name__)

PICTURES = {"refresh", "next"}  # the commands that ask for a preview
IN_FLIGHT = 2  # steps sent to the device and not finished: enough to keep it busy, few to wait for


def train(
    config: DictConfig, wrap_step: Callable[[Step], Step] = lambda step: step
) -> float | None:
    """Trains until the target iteration or a stop request; saves, and resumes what it finds.

    Returns what a sweep minimizes, `History.score` of all that is saved.

    `config` is a `TrainConfig`. The loop calls `wrap_step(step)` in place of its step; benchmarks
    and tests time and watch it so. A run whose numbers overflow ends with a NotFiniteError, or with
    on_nan=rollback goes on from its last checkpoint at a lower rate. With `rollback` nothing is
    trained: see `backups.rollback`. Raises UserError for what the user can mend.
    """
    if config.rollback is not None:
        rollback(Path(config.workspace) / "models" / config.name, config.rollback)
        return None
    hardware.prepare(config.hardware)
    distributed.join(config.hardware)
    if config.on_nan not in ON_NAN:
        raise UserError(f"on_nan={config.on_nan}: expected {' or '.join(ON_NAN)}")
    folder = Path(config.workspace) / "models" / config.name
    stages = read_stages(config)
    for stage in from_iteration(stages, saved_model.latest_step(folder) or 0):
        if stage.changes:
            changes = ", ".join(f"{key}={value}" for key, value in stage.changes.items())
            log.info("from iteration %d on: %s", stage.start, changes)
        goes_on = _train_stage(stage, folder, wrap_step)
        if not goes_on:
            break
        for later in stages:
            later.config["reset"] = []  # done and saved
    return read_history(folder / "checkpoints" / str(saved_model.latest_step(folder))).score()


def _train_stage(stage: Stage, folder: Path, wrap_step: Callable[[Step], Step]) -> bool:
    """One stage of `train`, as often as on_nan=rollback says; True when the next one follows."""
    config = dict(stage.config)
    tries = config["nan_tries"] if config["on_nan"] == "rollback" else 0
    while True:
        before = saved_model.latest_step(folder)
        try:
            stopped = _train(dict(config), stage.end, wrap_step)
            reached = saved_model.latest_step(folder)
            return not stopped and reached == stage.end != config["iterations"]
        except NotFiniteError as error:
            if not tries:
                raise
            log.warning("%s", error)
            reset = config["reset"] if error.saved == before else []  # else it is done and saved
        # Here the memory of what failed is free again.
        tries -= 1
        config = slower(config) | {"reset": reset}
        rate = config["optimizer"]["learning_rate"]
        log.warning("rollback: again with optimizer.learning_rate=%g; tries left: %d", rate, tries)


def _train(
    config: dict[str, Any], stage_end: int | None, wrap_step: Callable[[Step], Step]
) -> bool:
    """One try of `train`, up to the iteration `stage_end` if that is before the target.

    True when it was asked to stop.
    """
    # ---------------------------------------------------------------- what is trained, and on what
    check_preview(config["preview"])
    folder = Path(config["workspace"]) / "models" / config["name"]
    atomic.check_writable(folder)
    objective = make_objective(config)
    devices = hardware.choose(config["hardware"])
    all_devices = distributed.all_devices(devices)
    main_process = distributed.is_main_process()  # it alone writes files
    hardware.check_batch(config["batch_size"], all_devices, config["accumulate"])
    facesets = objective.load_facesets()

    with ExitStack() as run:
        # ------------------------------------------------------------ the step, the state, the data
        control = run.enter_context(Control(folder, enabled=main_process))  # locks the folder
        commands = control.commands
        checkpoints = run.enter_context(closing(Checkpoints(folder)))
        run.enter_context(explained(config, checkpoints))
        console = run.enter_context(Console(enabled=main_process))
        if checkpoints.latest() is None and (kept := backups_in(folder)):
            raise UserError(f"{folder}: no checkpoint, but backups; give rollback={kept[0].name}")
        check_start(checkpoints, objective)
        step = objective.make_step(all_devices)
        with console.waiting("compiling", "compiled"):
            config["batch_size"] = plan_batch(objective, step, facesets, devices)
        step = wrap_step(step)
        state, history = start(checkpoints, objective, devices)
        if main_process:
            atomic.write_text(folder / "config.yaml", OmegaConf.to_yaml(config))
        steps = config["steps_per_dispatch"]
        batches = make_batches(
            facesets,
            jax.random.key(config["seed"]),
            config["batch_size"],
            distributed.split_over(devices),
            steps=steps,
            sampling=config["data"]["sampling"],
        )
        preview = make_preview(objective, facesets)
        measure = objective.make_measure()
        evaluate_every = config["evaluate_every"] or config["log_every"]
        del facesets  # now on the device, or held by `batches`

        # ---------------------------------------------------------------- who watches, who steers
        number, target = int(state.step), config["iterations"]
        if stage_end is not None:
            target = min(target, stage_end) if target else stage_end
        facts = {"step": number, "target": target, "batch_size": config["batch_size"]}
        facts |= hardware.facts(devices)
        memory = memory_in_use(devices)
        control.begin(facts, memory)
        captions = objective.captions()

        def state_of(step: int) -> dict[str, float]:
            rate = learning_rate(config["optimizer"], config["iterations"], step)
            return {"optimizer/learning_rate": rate, "memory/gigabytes": memory() / 1e9}

        logger = MetricLogger(folder, config["batch_size"], number, history, captions, state_of)
        run.enter_context(closing(logger))
        logger.begin(config)
        console.follow(
            target, config["batch_size"], lambda: control.step, control.rate, lambda: logger.last
        )
        run.enter_context(preview_window(folder, config["preview"]))
        debug = make_debug(folder, objective) if config["debug"] and main_process else None
        metadata = {"exported_net": objective.exported} | objective.metadata()
        sample = 0  # which faces the preview shows

        def check_finite() -> None:
            if logger.not_finite is not None:
                at, name = logger.not_finite
                raise NotFiniteError(at, f"the loss {name}", checkpoints.latest(), config)

        def back_up() -> None:
            checkpoints.finish()  # the write before, which the next one would wait for anyway
            if main_process:
                back_up_when_due(folder, config["backups"], config["backup_minutes"])

        def save_state() -> None:
            logger.finish()  # the checkpoint's history has every loss so far
            check_finite()
            back_up()
            checkpoints.save(int(state.step), state, config, metadata, logger.history)

        def save() -> None:
            """A checkpoint and `preview.png`; both are written while the loop goes on."""
            picture = preview(state.eval_params, sample)
            save_state()
            logger.keep(int(state.step), picture)

        # ------------------------------------------------------------------------ the steady loop
        # The host runs IN_FLIGHT dispatches ahead and waits for nothing else: what is read back
        # from the device is read by the threads of the logger and of the checkpoints.
        done = bool(target) and number >= target
        if done:
            log.info("already at iteration %d of %d; give a higher iterations=", number, target)
        elif target and (target - number) % steps:
            raise UserError(
                f"iterations={target}: expected {number} and a multiple of "
                f"steps_per_dispatch={steps}"
            )
        try:
            with nullcontext() if done else stop_requests() as stop_requested:
                in_flight: deque = deque()
                stop, dispatch, saved_at = done, 0, time.monotonic()
                while not (stop or (target and number >= target)):
                    batch = batches(number)
                    if debug and (not dispatch or _due(number, steps, config["preview_every"])):
                        debug(number, state, batch)
                    state, metrics = step(state, batch)
                    del batch  # its memory is free once the step has run
                    number, dispatch = number + steps, dispatch + 1
                    logger.add(metrics)
                    in_flight.append(metrics)
                    if len(in_flight) > IN_FLIGHT:
                        jax.block_until_ready(in_flight.popleft())
                    evaluate_due = measure and _due(number, steps, evaluate_every)
                    if _due(number, steps, config["log_every"]) or evaluate_due:
                        measured = measure(state.eval_params) if evaluate_due else None
                        logger.write(number, measured, gradient_norms(state))
                    if _due(number, steps, config["preview_every"]) or commands & PICTURES:
                        sample += "next" in commands
                        commands -= PICTURES
                        logger.picture(number, preview(state.eval_params, sample))
                    stop = stop_requested() or "stop" in commands
                    save_due = time.monotonic() - saved_at >= config["save_minutes"] * 60
                    lost = logger.not_finite is not None
                    stop, save_due, lost = distributed.any_process(
                        dispatch, metrics, stop, save_due or "save" in commands, lost
                    )
                    if lost:
                        logger.finish()
                        check_finite()
                    if save_due:
                        commands.discard("save")
                        save()
                        saved_at = time.monotonic()
                    control.step = number
                if not done:
                    measured = measure and measure(state.eval_params)
                    logger.write(number, measured, gradient_norms(state))
                    save()
                    logger.finish()  # the preview is there
                    back_up()
        except jax.errors.JaxRuntimeError as error:
            leaves = jax.tree.leaves(state)
            # A step that fails after it began takes its state's memory along.
            if is_out_of_memory(error) and not any(leaf.is_deleted() for leaf in leaves):
                with suppress(jax.errors.JaxRuntimeError):
                    jax.block_until_ready(leaves)
                    save_state()
                    checkpoints.finish()
            raise

        # -------------------------------------------------------------------------------- the end
        logger.finish()
        log.info("iteration %d saved", checkpoints.latest())
        return stop and not done


def _due(number: int, steps: int, every: int) -> bool:
    """True when a multiple of `every` was reached within the last `steps`."""
    return every > 0 and number // every > (number - steps) // every
