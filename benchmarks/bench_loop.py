"""Times the training loop against its bare step: the share of a run that is not steps.

    python benchmarks/bench_loop.py WORKSPACE model=h64 batch_size=4 [--report FILE.json]

One real run on the aligned faces of WORKSPACE (`make demo` leaves workspace/demo), its model in a
temporary folder. Blocks of the loop's own iterations - drawing the batch, metrics, log, control
files - and blocks of the step alone, on the same state, come in turn. Previews and checkpoints are
left out: at their default intervals they are less than a thousandth of a run. KEY=VALUE are
overrides of train.py.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from common import parse, show
from omegaconf import DictConfig, OmegaConf

from odfs_jax.cli import use_huge_pages
from odfs_jax.config import compose
from odfs_jax.training.train import train

BLOCK = 10  # iterations, as many as from one line of the log to the next
PAIRS = 7  # of blocks


class Timed:
    """A step; after each BLOCK of the loop's calls it times as many of its own."""

    def __init__(self, step: Callable) -> None:
        self._step = step
        self._calls, self._start = 0, 0.0
        self.loop: list[float] = []  # seconds of each block
        self.bare: list[float] = []

    def __call__(self, state: Any, batch: Any) -> tuple[Any, Any]:
        if self._calls and self._calls % BLOCK == 0:
            jax.block_until_ready(state)
            end = time.perf_counter()
            self.loop.append(end - self._start)
            for _ in range(BLOCK):
                state, metrics = self._step(state, batch)
            jax.block_until_ready((state, metrics))
            self.bare.append(time.perf_counter() - end)
        if self._calls % BLOCK == 0:
            self._start = time.perf_counter()
        self._calls += 1
        return self._step(state, batch)


def main() -> None:
    options = parse(__doc__, "workspace", pairs=PAIRS, overrides=True)
    use_huge_pages()
    timed: list[Timed] = []

    def wrap(step: Callable) -> Timed:
        timed.append(Timed(step))
        return timed[-1]

    with tempfile.TemporaryDirectory() as folder:
        config = settings(options.workspace.absolute(), folder, options.pairs, options.overrides)
        train(config, wrap_step=wrap)
    loop, bare = timed[0].loop[1:], timed[0].bare[1:]  # the first of each finds cold caches
    device = jax.local_devices()[0].device_kind
    show({
        "device": device,
        "cores": os.cpu_count(),
        "model": config.model.name,
        "batch_size": config.batch_size,
        "block": BLOCK,
        "pairs": len(bare),
        "loop_ms": round(1e3 * statistics.median(loop) / BLOCK, 2),
        "step_ms": round(1e3 * statistics.median(bare) / BLOCK, 2),
        "overhead": round(statistics.median(a / b for a, b in zip(loop, bare, strict=True)) - 1, 4),
        "overhead_of_fastest": round(min(loop) / min(bare) - 1, 4),
    }, options.report)  # fmt: skip


def settings(workspace: Path, folder: str, pairs: int, overrides: list[str]) -> DictConfig:
    """Those of a run on the faces of `workspace` that writes into `folder` only."""
    sides = [f"data.{side}.aligned={workspace / side / 'aligned'}" for side in ("src", "dst")]
    count = f"iterations={BLOCK * (pairs + 1) + 1}"  # the last call ends the last pair
    config = compose("train", [f"workspace={folder}", *sides, count, "preview_every=0", *overrides])
    OmegaConf.resolve(config)
    return config


if __name__ == "__main__":
    main()
