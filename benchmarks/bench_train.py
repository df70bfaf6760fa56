"""Times our training step against the same network in PyTorch, in turn, on one machine.

    python benchmarks/bench_train.py model=h64 batch_size=16 [--report FILE.json]

Ours draws the batch, augments and trains; PyTorch gets its faces ready made. Each has a process of
its own, so that the one's idle threads do not spin beside the other's, and steps only when told.
KEY=VALUE are overrides of train.py.
"""

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the GPU is shared with PyTorch

import jax
import jax.numpy as jnp
from common import parse, show
from measured_step import compose_config, make_our_step
from references import torch_swap

from odfs_jax.cli import use_huge_pages
from odfs_jax.nets import PRECISIONS
from odfs_jax.runtime import devices as hardware

WARM_UP = 1  # blocks
# Steps in a row, sent ahead as the training loop does. The first of a CPU's finds cold caches, of a
# GPU's an idle device: sending a step takes a millisecond that later ones hide.
BLOCK, BLOCK_ON_GPU = 4, 32
PAIRS = 9  # of blocks


def main() -> None:
    options = parse(__doc__, pairs=PAIRS, overrides=True)
    use_huge_pages()  # as train.py does; PyTorch's process inherits it
    config = compose_config(options.overrides)
    hardware.prepare(config["hardware"])
    device = jax.local_devices()[0]
    peak = matmul_peak(PRECISIONS[config["precision"]])
    ours, facts, _ = make_our_step(config, device)
    block = BLOCK if device.platform == "cpu" else BLOCK_ON_GPU
    with torch_process(config) as theirs:
        runs = {"odfs_jax": partial(ours, block), "odfs_jax_alone": ours}
        blocks = time_in_turn(
            runs | ({"torch": partial(theirs, block)} if theirs else {}), options.pairs
        )
    alone = statistics.median(blocks.pop("odfs_jax_alone"))
    times = {name: [t / block for t in seconds] for name, seconds in blocks.items()}
    step = statistics.median(times["odfs_jax"])
    report = {
        "device": device.device_kind,
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "model": config["model"]["name"],
        "batch_size": config["batch_size"],
        "precision": config["precision"],
        "pairs": options.pairs,
        "steps_in_a_row": block,
        "odfs_jax_ms": round(1e3 * step, 2),
        **compared(times),
        "samples_per_second": round(config["batch_size"] / step, 1),
        "tflop_per_second": round(facts["gflop_per_step"] / step / 1e3, 3),
        "matmul_peak_tflop_per_second": round(peak / 1e12, 3),
        "share_of_peak": round(1e9 * facts["gflop_per_step"] / step / peak, 3),
        "floor_ms": round(1e12 * facts["gflop_per_step"] / peak, 1),
        **facts,
        "single_step_ms": round(1e3 * alone, 2),
    }
    show(report, options.report)


def compared(times: dict[str, list[float]]) -> dict:
    """What the pairs say; nothing where PyTorch has no such network."""
    if "torch" not in times:
        return {}
    ratios = [a / b for a, b in zip(times["odfs_jax"], times["torch"], strict=True)]
    return {
        "torch_ms": round(1e3 * statistics.median(times["torch"]), 2),
        "ratio_median": round(statistics.median(ratios), 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
        "ratio_of_fastest": round(min(times["odfs_jax"]) / min(times["torch"]), 3),
    }


@contextmanager
def torch_process(config: dict) -> Iterator[Callable[[int], None] | None]:
    """step(how_many) of the same network in a process of its own; None: PyTorch has none here."""
    model = config["model"]
    if model["net"] not in torch_swap.NETS or model["width"] != 1:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    worker = context.Process(target=torch_swap.serve, args=(there, config), daemon=True)
    worker.start()
    there.close()

    def step(steps: int) -> None:
        here.send(steps)
        here.recv()

    yield step
    here.close()
    worker.join()


def matmul_peak(dtype: jnp.dtype) -> float:
    """FLOP/s of large matrix products at JAX's default precision: the best of ten blocks."""
    size = 2048 if jax.default_backend() == "cpu" else 8192
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(jnp.matmul)
    times = time_in_turn(
        {"m": lambda: jax.block_until_ready([product(a, a) for _ in range(BLOCK)])}, 10
    )
    return 2 * size**3 * BLOCK / min(times["m"])


def time_in_turn(runs: dict, count: int) -> dict[str, list[float]]:
    """Seconds of `count` runs of each, in turn, after a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(WARM_UP + count):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if number >= WARM_UP:
                times[name].append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    main()
