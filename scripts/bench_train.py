"""Times our training step against the same network in PyTorch, in turn, in one process.

    python scripts/bench_train.py model=h64 batch_size=16        (overrides of train.py)

Ours includes drawing the batch and the augmentation; PyTorch's gets its faces ready made.
Prints a table and writes benchmarks/train_<model>_batch<size>_<device>.json.
"""

import json
import os
import re
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the GPU is shared with PyTorch

import jax
import jax.numpy as jnp
import numpy as np
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from odfs_jax import devices as hardware
from odfs_jax.config import config_dir, register_schemas
from odfs_jax.data.batches import make_batches
from odfs_jax.data.faceset import OVERSAMPLING, Faceset
from odfs_jax.losses import make_loss
from odfs_jax.nets import build_net
from odfs_jax.training.optimizer import make_optimizer
from odfs_jax.training.state import init_state, replicated, split_over
from odfs_jax.training.step import make_step

WARM_UP = 2
PAIRS = int(os.environ.get("BENCH_PAIRS", "7"))


def main() -> None:
    config = compose_config(sys.argv[1:])
    hardware.prepare(config["hardware"])
    device = jax.local_devices()[0]
    peak = matmul_peak()
    ours, flops, compile_seconds = make_our_step(config, device)
    from torch_reference import make_torch_step  # after JAX has its threads

    model = config["model"]
    rate = config["optimizer"]["learning_rate"]
    theirs = make_torch_step(model["resolution"], model["args"], config["batch_size"], rate)
    times = time_in_turn({"odfs_jax": ours, "torch": theirs})
    ratios = [a / b for a, b in zip(times["odfs_jax"], times["torch"], strict=True)]
    step = statistics.median(times["odfs_jax"])
    report = {
        "device": device.device_kind,
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "model": model["name"],
        "batch_size": config["batch_size"],
        "pairs": PAIRS,
        "odfs_jax_ms": round(1e3 * step, 2),
        "torch_ms": round(1e3 * statistics.median(times["torch"]), 2),
        "ratio_median": round(statistics.median(ratios), 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
        "pairs_per_second": round(config["batch_size"] / step, 1),
        "gflop_per_step": round(flops / 1e9, 1),
        "tflop_per_second": round(flops / step / 1e12, 3),
        "matmul_peak_tflop_per_second": round(peak / 1e12, 3),
        "floor_ms": round(1e3 * flops / peak, 1),
        "compile_seconds": round(compile_seconds, 1),
    }
    write(report)


def compose_config(overrides: list[str]) -> dict:
    """The settings that train.py would get."""
    register_schemas()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        return OmegaConf.to_container(compose("train", overrides), resolve=True)


def make_our_step(config: dict, device: jax.Device):
    """(step(), its floating-point operations by XLA's count, seconds to compile)."""
    model, batch_size = config["model"], config["batch_size"]
    net = build_net(model)
    tx = make_optimizer(config["optimizer"], config["iterations"])
    size = OVERSAMPLING * model["resolution"]
    rng = np.random.default_rng(0)
    cut = np.array([[size / model["resolution"], 0, 0], [0, size / model["resolution"], 0]])
    faceset = Faceset(
        rng.integers(0, 256, (64, size, size, 4), np.uint8),
        np.repeat(cut[None].astype(np.float32), 64, axis=0),
        np.zeros(64, np.float32),
        net.inputs["src"],
    )
    facesets = {"src": faceset, "dst": faceset}
    batches = make_batches(facesets, jax.random.key(0), batch_size, split_over([device]))
    start = time.perf_counter()
    state = jax.jit(lambda: init_state(net, tx, 0), out_shardings=replicated([device]))()
    step = make_step(net, make_loss(config["loss"]), tx, config["augment"], [device])
    lowered = step.lower(state, batches(0))
    flops = lowered.cost_analysis()["flops"]  # before cuDNN's calls hide their operations from XLA
    lowered.compile()
    seconds = time.perf_counter() - start
    current = [state]

    def run() -> None:
        current[0], metrics = step(current[0], batches(0))
        jax.block_until_ready((current[0], metrics))

    return run, flops, seconds


def matmul_peak() -> float:
    """FLOP/s of a large float32 matrix product at JAX's default precision: the best of ten."""
    size = 2048 if jax.default_backend() == "cpu" else 8192
    a = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(jnp.matmul)
    return (
        2
        * size**3
        / min(time_in_turn({"matmul": lambda: product(a, a).block_until_ready()}, 10)["matmul"])
    )


def time_in_turn(runs: dict, count: int = PAIRS) -> dict[str, list[float]]:
    """Seconds of `count` runs of each, in turn, after a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(WARM_UP + count):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if number >= WARM_UP:
                times[name].append(time.perf_counter() - start)
    return times


def write(report: dict) -> None:
    device = re.sub(r"[^a-z0-9]+", "_", report["device"].lower()).strip("_")
    folder = Path(
        os.environ.get("BENCH_OUT", Path(__file__).resolve().parent.parent / "benchmarks")
    )
    folder.mkdir(exist_ok=True)
    name = f"train_{report['model']}_batch{report['batch_size']}_{device}.json"
    path = folder / name
    path.write_text(json.dumps(report, indent=2) + "\n")
    for name, value in report.items():
        print(f"{name:>30}  {value}")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
