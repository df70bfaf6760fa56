"""The real command as a process of its own: stopped, killed, and gone on with."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from odfs_jax import cli

SCRIPT = Path(cli.__file__).parents[1] / "train.py"
PATIENCE = 240  # seconds


@contextlib.contextmanager
def started(arguments: list[str], log: Path) -> Iterator[subprocess.Popen]:
    """`train.py` with stderr in `log`; it does not outlive the block."""
    same = {
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        # as in this process (QUICK in conftest.py): a run that goes on here needs the same programs
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    with log.open("w") as stderr:
        command = [sys.executable, str(SCRIPT), *arguments]
        process = subprocess.Popen(command, stderr=stderr, env=os.environ | same)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def wait_for(condition, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.05)


@pytest.mark.parametrize(
    "number", [signal.SIGHUP, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 15))]
)
def test_a_signal_saves_and_ends_with_0(workspace, overrides, read_checkpoint, tmp_path, number):
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("run under nohup, which the program started here inherits")
    log = tmp_path / "log"
    with started(overrides(workspace, "log_every=1", "preview_every=1000000"), log) as process:
        wait_for(lambda: "[       3]" in log.read_text(), process, log)
        process.send_signal(number)
        assert process.wait(PATIENCE) == 0, log.read_text()
    text = log.read_text()
    assert "Traceback" not in text and f"{signal.Signals(number).name}: saving" in text
    state, _, history = read_checkpoint(workspace / "models" / "h64")
    assert text.splitlines()[-1] == f"iteration {int(state.step)} saved"
    assert history.rows[-1][0] == int(state.step) >= 3
