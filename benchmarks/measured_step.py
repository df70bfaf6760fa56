"""The training step of `bench_train.py` and `profile_train.py`, on faces of noise."""

import time
from collections.abc import Callable

import jax
import numpy as np
from jax.stages import Compiled
from omegaconf import OmegaConf

from odfs_jax.config import compose
from odfs_jax.data.batches import make_batches
from odfs_jax.data.faceset import OVERSAMPLING, Faceset
from odfs_jax.runtime.distributed import replicated, split_over
from odfs_jax.training.objectives import make_objective
from odfs_jax.training.objectives.base import Objective


def compose_config(overrides: list[str]) -> dict:
    """The settings that train.py would get."""
    return OmegaConf.to_container(compose("train", overrides), resolve=True)


def make_our_step(config: dict, device: jax.Device) -> tuple[Callable, dict, Compiled]:
    """(step(how_many), operations, bytes and seconds to compile by XLA, the compiled step)."""
    objective, size = make_objective(config), OVERSAMPLING * config["model"]["resolution"]
    facesets = {side: faces_of_noise(objective, side, size, count=64) for side in objective.sides}
    key, parts = jax.random.key(0), split_over([device])
    batches = make_batches(facesets, key, config["batch_size"], parts)
    state = jax.jit(objective.init_state, out_shardings=replicated([device]))()
    step = objective.make_step([device])
    start = time.perf_counter()
    compiled = step.lower(state, batches(0)).compile()
    seconds, memory = time.perf_counter() - start, compiled.memory_analysis()
    size_in_bytes = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    facts = {
        "gflop_per_step": round(count_operations(objective, (state, batches(0))) / 1e9, 1),
        "step_gigabytes": round(size_in_bytes / 1e9, 3),
        "compile_seconds": round(seconds, 1),
    }
    current = [state]

    def run(steps: int = 1) -> None:
        for _ in range(steps):
            current[0], metrics = step(current[0], batches(0))
        jax.block_until_ready((current[0], metrics))

    return run, facts, compiled


def faces_of_noise(objective: Objective, side: str, size: int, count: int) -> Faceset:
    """`count` faces of `size` pixels as training holds those of `side`, at OVERSAMPLING."""
    channels = 3 + len(objective.masks)
    images = np.random.default_rng(0).integers(0, 256, (count, size, size, channels), np.uint8)
    matrix = np.array([[OVERSAMPLING, 0, 0], [0, OVERSAMPLING, 0]], np.float32)
    matrices, yaws = np.repeat(matrix[None], count, axis=0), np.zeros(count, np.float32)
    return Faceset(images, matrices, yaws, objective.input_specs[side], objective.masks)


def count_operations(objective: Objective, inputs: tuple) -> float:
    """Of this device's step, by XLA's count for a CPU, the only one that it makes of a program
    that is not compiled; in a compiled one cuDNN's calls hide theirs."""
    step = objective.make_step(jax.local_devices(backend="cpu")[:1])
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), inputs)
    return step.lower(*shapes).cost_analysis()["flops"]
