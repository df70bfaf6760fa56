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
from odfs_jax.training.setup import Setup, make_setup
from odfs_jax.training.state import replicated, split_over


def compose_config(overrides: list[str]) -> dict:
    """The settings that train.py would get."""
    return OmegaConf.to_container(compose("train", overrides), resolve=True)


def make_our_step(config: dict, device: jax.Device) -> tuple[Callable, dict, Compiled]:
    """(step(how_many), operations, bytes and seconds to compile by XLA, the compiled step)."""
    setup, size = make_setup(config), OVERSAMPLING * config["model"]["resolution"]
    rng = np.random.default_rng(0)
    cut = np.array([[OVERSAMPLING, 0, 0], [0, OVERSAMPLING, 0]], np.float32)
    faces = rng.integers(0, 256, (64, size, size, 4 + (config["loss"]["eyes_mouth"] > 0)), np.uint8)
    facesets = {
        side: Faceset(faces, np.repeat(cut[None], 64, axis=0), np.zeros(64, np.float32), view)
        for side, view in setup.net.input_specs.items()
    }
    key, parts = jax.random.key(0), split_over([device])
    batches = make_batches(facesets, key, config["batch_size"], parts)
    state = jax.jit(setup.fresh, out_shardings=replicated([device]))()
    step = setup.step([device])
    start = time.perf_counter()
    compiled = step.lower(state, batches(0)).compile()
    seconds, memory = time.perf_counter() - start, compiled.memory_analysis()
    size_in_bytes = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    facts = {
        "gflop_per_step": round(count_operations(setup, (state, batches(0))) / 1e9, 1),
        "step_gigabytes": round(size_in_bytes / 1e9, 3),
        "compile_seconds": round(seconds, 1),
    }
    current = [state]

    def run(steps: int = 1) -> None:
        for _ in range(steps):
            current[0], metrics = step(current[0], batches(0))
        jax.block_until_ready((current[0], metrics))

    return run, facts, compiled


def count_operations(setup: Setup, inputs: tuple) -> float:
    """Of this device's step, by XLA's count for a CPU, the only one that it makes of a program
    that is not compiled; in a compiled one cuDNN's calls hide theirs."""
    step = setup.step(jax.local_devices(backend="cpu")[:1])
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), inputs)
    return step.lower(*shapes).cost_analysis()["flops"]
