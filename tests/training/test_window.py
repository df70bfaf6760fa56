"""`preview=window` on a real X display (Xvfb), with keys as a person presses them (xdotool)."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from odfs_jax.training import control, metrics
from odfs_jax.training.control import COMMANDS, Control

ROOT = Path(__file__).parents[2]
PATIENCE = 180  # seconds; the machine may be busy
FACTS = {"step": 5, "target": 40, "batch_size": 4, "device": "cpu", "memory_limit": 10}
KEYS = {"s": "save", "p": "refresh", "space": "next", "Return": "stop"}


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)
    return found


class Screen:
    """A display with one window on it."""

    def __init__(self, display: str) -> None:
        self.environment = os.environ | {"DISPLAY": display, "QT_QPA_PLATFORM": "xcb"}

    def do(self, *words: str) -> str:
        done = subprocess.run(
            ["xdotool", *words], env=self.environment, capture_output=True, text=True
        )
        return done.stdout.strip()

    def press(self, title: str, key: str) -> None:
        """Gives the window the focus, which it takes only once it is shown, and presses `key`."""
        search = ("search", "--onlyvisible", "--name", f"^{title}$")
        window = wait_for(lambda: self.do(*search)).split()[0]
        wait_for(lambda: self.do("windowfocus", "--sync", window, "getwindowfocus") == window)
        self.do("key", key)


@pytest.fixture(scope="module")
def screen():
    """Xvfb; skips where it, or xdotool, is not installed."""
    missing = [name for name in ("Xvfb", "xdotool") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} needed: apt-get install xvfb xdotool")
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1280x800x24"]
    server = subprocess.Popen(
        command, pass_fds=[writing], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(writing)
    with os.fdopen(reading) as display:
        yield Screen(f":{display.readline().strip()}")
    server.terminate()
    server.wait()


def test_keys_pressed_in_the_window_reach_the_run(screen, tmp_path):
    folder = tmp_path / "h64"
    metrics.add_preview(folder, 5, np.full((64, 80, 3), 200, np.uint8))
    with Control(folder) as run:
        run.begin(FACTS, lambda: 7)
        command = [sys.executable, "-m", "odfs_jax", "window", str(folder)]
        process = subprocess.Popen(command, env=screen.environment, cwd=ROOT)
        for key, name in KEYS.items():
            screen.press("odfs-jax: h64", key)
            wait_for(lambda name=name: name in run.commands)
        assert run.commands == set(COMMANDS)
        screen.press("odfs-jax: h64", "Escape")
        assert process.wait(PATIENCE) == 0


@pytest.mark.slow
def test_a_run_is_steered_from_its_window(screen, workspace, overrides):
    """p refreshes, s saves, Enter stops with a checkpoint: as in 2018."""
    more = ("preview=window", "preview_every=0", "save_minutes=1000")
    command = [sys.executable, str(ROOT / "train.py"), *overrides(workspace, *more)]
    flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1")
    changes = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(command, env=screen.environment | changes)
    folder = workspace / "models" / "h64"
    steps = lambda: sorted(p.name for p in (folder / "checkpoints").glob("[0-9]*"))  # noqa: E731
    wait_for(lambda: control.is_running(folder) and len(metrics.read_losses(folder)) > 1)
    assert not metrics.preview_files(folder)
    screen.press("odfs-jax: h64", "p")
    wait_for(lambda: metrics.preview_files(folder))
    assert not steps()
    screen.press("odfs-jax: h64", "s")
    saved = wait_for(steps)
    screen.press("odfs-jax: h64", "Return")
    assert process.wait(PATIENCE) == 0
    assert steps()[-1] == str(metrics.read_losses(folder)[-1]["step"]) and steps() != saved
