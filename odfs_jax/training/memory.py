"""How large a batch fits: the step is compiled, and XLA asked, before anything is allocated."""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import jax

from odfs_jax.data.batches import batch_shapes, stored_bytes
from odfs_jax.data.faceset import Faceset
from odfs_jax.errors import UserError
from odfs_jax.runtime.devices import free_memory
from odfs_jax.runtime.distributed import replicated, split_over
from odfs_jax.training.checkpoint import Checkpoints
from odfs_jax.training.objectives import make_objective
from odfs_jax.training.objectives.base import Objective
from odfs_jax.training.step import Step

log = logging.getLogger(__name__)

# Share of the free memory that stays free: gaps between buffers, batches in flight, the preview.
MARGIN = 0.08
MAX_AUTO_BATCH = 64  # pairs a device that batch_size=auto takes; more hardly speed up learning
FIRST_PROBES = (4, 8)  # batches, in units, whose need predicts that of others
MAX_PROBES = 5  # further ones that are compiled

# Settings that need less memory, from the cheapest in time to all of them.
REMEDIES = (
    {"remat": "decoders"},
    {"remat": "decoders", "optimizer.moments": "bfloat16"},
    {"remat": "decoders", "optimizer.moments": "bfloat16", "precision": "bfloat16"},
)


class TooLargeError(UserError):
    """A batch that does not fit into the memory."""


@dataclass(frozen=True)
class Need:
    """What training takes of one device, in bytes."""

    parameters: int
    optimizer: int  # and all else that is kept from step to step
    activations: int  # the batch, and all that lives only within a step
    faces: int  # the facesets, where they lie on the device

    @property
    def total(self) -> int:
        return self.parameters + self.optimizer + self.activations + self.faces

    def __str__(self) -> str:
        parts = {
            "parameters": self.parameters,
            "optimizer": self.optimizer,
            "activations": self.activations,
            "faces": self.faces,
        }
        return ", ".join(f"{name} {size / 1e9:.2f}" for name, size in parts.items())


@dataclass(frozen=True)
class MemoryPlanner:
    """Finds what batches of `facesets` need, and what fits into `free` bytes of each device."""

    objective: Objective
    facesets: dict[str, Faceset]
    devices: list[jax.Device]
    free: int

    def need(self, step: Step, batch_size: int) -> Need:
        """XLA's figures for `step`, which this compiles; the loop then finds it compiled."""
        copies, parts = replicated(self.devices), split_over(self.devices)
        state = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=copies),
            self.objective.state_shapes,
        )
        batch = batch_shapes(
            self.facesets, batch_size, parts, self.objective.config["steps_per_dispatch"]
        )
        xla = step.lower(state, batch).compile().memory_analysis()
        used = xla.argument_size_in_bytes + xla.output_size_in_bytes - xla.alias_size_in_bytes
        used += xla.temp_size_in_bytes + xla.generated_code_size_in_bytes
        kept, parameters = _bytes(state), _bytes(state.params)
        faces, on_device = stored_bytes(self.facesets, self.devices[0])
        return Need(parameters, kept - parameters, used - kept, faces if on_device else 0)

    def largest(self, step: Step) -> int:
        """The largest batch size that fits, at most MAX_AUTO_BATCH pairs a device; 0 for none."""
        unit = len(self.devices) * self.objective.config["accumulate"]
        most = max(1, MAX_AUTO_BATCH // self.objective.config["accumulate"])
        return unit * largest_that_fits(lambda n: self.need(step, n * unit).total, self.free, most)

    def remedy(self, batch_size: int) -> str | None:
        """The first of REMEDIES with which `batch_size` fits, as the command line takes it."""
        for changes in REMEDIES:
            objective = make_objective(_changed(self.objective.config, changes))
            planner = replace(self, objective=objective)
            if planner.need(objective.make_step(self.devices), batch_size).total <= self.free:
                return " ".join(f"{key}={value}" for key, value in changes.items())
        return None


def plan_batch(
    objective: Objective, step: Step, facesets: dict[str, Faceset], devices: list[jax.Device]
) -> int:
    """The batch size to train with, the configured one or the largest that fits.

    Logs what it takes. Raises TooLargeError, which says what would fit. Several processes need a
    number, which is not checked, since none of them sees all devices.
    """
    config = objective.config
    wanted = config["batch_size"]
    if jax.process_count() > 1:
        if wanted == "auto":
            raise UserError("batch_size=auto: several processes need a number")
        return wanted
    there, limit = free_memory(devices), config["hardware"]["memory_gb"]
    if limit is not None:
        there = min(there, int(limit * 1e9))
    planner = MemoryPlanner(objective, facesets, devices, int((1 - MARGIN) * there))
    size = planner.largest(step) if wanted == "auto" else wanted
    smallest = len(devices) * config["accumulate"]
    need = planner.need(step, size or smallest)
    if need.total > planner.free:
        raise TooLargeError(_too_large(planner, step, size or smallest, need))
    free = (there - need.total) / 1e9
    log.info("memory: batch_size=%d takes %.2f GB, %.2f GB stay free", size, need.total / 1e9, free)
    log.info("of them %s", need)
    return size


def _too_large(planner: MemoryPlanner, step: Step, size: int, need: Need) -> str:
    log.info("batch_size=%d does not fit; looking for what does", size)
    largest, remedy = planner.largest(step), planner.remedy(size)
    fits = [f"batch_size={largest}"] if largest else []
    fits += [f"batch_size={size} with {remedy}"] if remedy else []
    return (
        f"batch_size={size} takes {need.total / 1e9:.2f} GB ({need}) of each device, "
        f"{planner.free / 1e9:.2f} GB may be used; what fits: {' or '.join(fits) or 'nothing'}"
    )


def largest_that_fits(need: Callable[[int], int], free: int, most: int) -> int:
    """The largest n of 1..`most` with need(n) <= `free`, 0 when there is none.

    `need` is costly, and nearly a straight line that bends upwards. So a line through two points
    that fit, or two that do not, ends at or above the answer, and one across it at or below.
    Where `need` bends downwards what is found fits but may not be the largest.
    """
    known = {n: need(n) for n in sorted({min(n, most) for n in FIRST_PROBES})}
    for _ in range(MAX_PROBES):
        good = sorted(n for n in known if known[n] <= free)
        bad = sorted(n for n in known if known[n] > free)
        low = good[-1] if good else 0
        bounds = [_crossing(known, ends, free) for ends in (good[-2:], bad[:2]) if ends[1:]]
        high = min([bad[0] - 1 if bad else most, *bounds])
        if high <= low:
            break
        guess = high
        if good and len(bad) == 1:  # which may lie far beyond the bend: a second one shows it
            guess = (max(low, _crossing(known, [low, *bad], free)) + high + 1) // 2
        known[guess] = need(guess)
    return max((n for n in known if known[n] <= free), default=0)


def _crossing(known: dict[int, int], ends: list[int], free: int) -> int:
    """Where the line through the `known` values at two `ends` reaches `free`, rounded down."""
    first, last = ends[0], ends[-1]
    rise = (known[last] - known[first]) / max(1, last - first)
    return int(first + (free - known[first]) // rise) if rise > 0 else sys.maxsize


def _changed(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict:
    changed = dict(config)
    for key, value in changes.items():
        group, _, name = key.rpartition(".")
        changed |= {group: changed[group] | {name: value}} if group else {name: value}
    return changed


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def is_out_of_memory(error: Exception) -> bool:
    """True for the error with which JAX reports that a device's memory is full."""
    return "RESOURCE_EXHAUSTED" in str(error)


@contextmanager
def explained(config: Mapping[str, Any], checkpoints: Checkpoints) -> Iterator[None]:
    """Turns a device's lack of memory into a UserError: what is saved, and what to change."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        last = checkpoints.latest()
        saved = "nothing was saved" if last is None else f"iteration {last} is saved"
        lean = " ".join(f"{key}={value}" for key, value in REMEDIES[-1].items())
        raise UserError(
            f"the device ran out of memory with batch_size={config['batch_size']}; {saved}; "
            f"try a smaller batch_size, or {lean}"
        ) from error
