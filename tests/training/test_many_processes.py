"""Several processes train one model: real ones, on this machine's CPU."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from odfs_jax import cli
from odfs_jax.runtime import distributed

SCRIPT = Path(cli.__file__).parents[1] / "train.py"
PATIENCE = 300  # seconds


@contextlib.contextmanager
def started(commands: list[list[str]], devices: int, logs: list[Path]):
    """The commands as processes with `devices` CPU devices each; none outlives the block."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("device_count=8", f"device_count={devices}"),
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
    }
    with contextlib.ExitStack() as stack:
        processes = []
        for command, log in zip(commands, logs, strict=True):
            stderr = stack.enter_context(log.open("w"))
            command = [sys.executable, str(SCRIPT), *command]
            process = subprocess.Popen(command, stderr=stderr, env=environment)
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        yield processes


def pair(overrides) -> list[list[str]]:
    """The command of each of two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    together = (f"hardware.coordinator={address}", "hardware.num_processes=2")
    return [[*overrides, *together, f"hardware.process_id={number}"] for number in range(2)]


def run(commands, devices, logs):
    with started(commands, devices, logs) as processes:
        for process, log in zip(processes, logs, strict=True):
            assert process.wait(PATIENCE) == 0, "\n".join(log.read_text() for log in logs)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(make_workspace, overrides, read_checkpoint, tmp_path):
    """Two devices each, stopped and resumed half way, against one process with four."""
    logs = [tmp_path / "first.log", tmp_path / "second.log"]
    together, alone = make_workspace(), make_workspace()
    for target in (12, 24):
        settings = (
            f"iterations={target}",
            "hardware.multi_gpu=true",
            "preview_every=10",
            "optimizer.learning_rate=5e-5",
        )
        run(pair(overrides(together, *settings)), 2, logs)
    assert "resuming at iteration 12" in logs[0].read_text()
    assert "iteration 24 saved" in logs[0].read_text()
    assert not [line for line in logs[1].read_text().splitlines() if "Gloo" not in line]
    run([overrides(alone, *settings)], 4, logs[:1])
    (ours, _, history), (theirs, *_) = (
        read_checkpoint(w / "models" / "h64") for w in (together, alone)
    )
    assert int(ours.step) == 24 and [step for step, _ in history.rows] == [10, 12, 20, 24]
    pairs = zip(jax.tree.leaves(ours.params), jax.tree.leaves(theirs.params), strict=True)
    gaps = np.concatenate([np.ravel(mine - other) for mine, other in pairs])
    # A parameter goes up to 1.2e-3, 24 steps of 5e-5; Adam makes whole ones of rounding noise too.
    assert np.sqrt(np.mean(gaps**2)) < 1e-5
    assert np.abs(gaps).max() < 1e-4
    folder = together / "models" / "h64"
    assert len(list((folder / "events").iterdir())) == 2  # one of each start
    assert (folder / "preview.png").is_file() and (folder / "config.yaml").is_file()


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all(make_workspace, overrides, read_checkpoint, tmp_path):
    logs = [tmp_path / "first.log", tmp_path / "second.log"]
    workspace = make_workspace()
    with started(pair(overrides(workspace, "log_every=1")), 1, logs) as processes:
        end = time.monotonic() + PATIENCE
        while "[       3]" not in logs[0].read_text():
            assert time.monotonic() < end and processes[0].poll() is None, logs[0].read_text()
            time.sleep(0.05)
        processes[1].send_signal(signal.SIGTERM)
        assert [process.wait(PATIENCE) for process in processes] == [0, 0], logs[1].read_text()
    state, _, history = read_checkpoint(workspace / "models" / "h64")
    assert history.rows[-1][0] == int(state.step) and int(state.step) % distributed.AGREE_EVERY == 0
