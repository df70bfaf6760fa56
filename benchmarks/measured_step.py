"""The training step of `bench_train.py` and `profile_train.py`, on faces of noise."""

import math
import time
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn
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
    """Of this device's step, products and sums of its convolutions and matrix products.

    They are read off JAX's own program, each as often as its loop runs. XLA's count of a lowered
    program has the body of a loop once, and in a compiled one cuDNN's calls hide theirs.
    """
    step = objective.make_step(jax.local_devices()[:1])
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), inputs)
    return operations(jax.make_jaxpr(step)(*shapes).jaxpr)


def operations(jaxpr: Jaxpr) -> float:
    """Products and sums of all convolutions and matrix products in `jaxpr`, those of loops too.

    Of several branches the longest counts, of a `while` loop one turn.
    """
    total = 0
    for equation in jaxpr.eqns:
        given = equation.params
        inner = [operations(part) for part in subjaxprs(given.values())]
        if equation.primitive.name == "cond":
            total += max(inner)
        else:
            total += sum(inner) * given.get("length", 1)  # of a scan
        if equation.primitive.name in PRODUCTS:
            total += 2 * equation.outvars[0].aval.size * PRODUCTS[equation.primitive.name](equation)
    return total


def subjaxprs(values: Iterable) -> Iterator[Jaxpr]:
    """The programs among the parameters of an operation, also in tuples."""
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from subjaxprs(value)
        elif isinstance(value, (ClosedJaxpr, Jaxpr)):
            yield getattr(value, "jaxpr", value)


def _dot_products(equation: JaxprEqn) -> int:
    """How many products make a value of a matrix product's result."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    return math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)


def _conv_products(equation: JaxprEqn) -> float:
    """The same of a convolution: its kernel's values, without those that meet a stride's zeros."""
    kernel, numbers = equation.invars[1].aval.shape, equation.params["dimension_numbers"]
    _, channels, *sides = (kernel[axis] for axis in numbers.rhs_spec)
    return channels * math.prod(sides) / math.prod(equation.params["lhs_dilation"])


PRODUCTS = {"dot_general": _dot_products, "conv_general_dilated": _conv_products}
