"""Starting a real studio in a process of its own, and waiting for what it does."""

import base64
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from odfs_jax.studio import queue

ROOT = Path(__file__).parents[2]
PATIENCE = 120  # seconds; the machine may be busy
PIXELS = """() => {
    const image = document.querySelector('img.frame'), canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext('2d').drawImage(image, 0, 0);
    return canvas.toDataURL().split(',')[1];
}"""


class Studio:
    """A running studio; `url` has no slash at its end."""

    def __init__(self, workspace: Path, log: Path, *settings: str, script: str = "studio") -> None:
        self.workspace, self.log = workspace, log
        path = ROOT / "scripts" / "studio.py" if script == "studio" else ROOT / f"{script}.py"
        command = [sys.executable, str(path), f"workspace={workspace}", *settings]
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, env=environment()
            )
        wait_for(lambda: self.process.poll() is not None or "studio: http" in log.read_text(), log)
        found = re.search(r"studio: (http://[^/\s]+)(\S*)", log.read_text())
        assert found, log.read_text()
        self.url, self.page = found.groups()

    def end(self, number: int = signal.SIGINT) -> int:
        """The exit code after `number`."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


def wait_for(
    condition: Callable[[], object], log: Path | None = None, patience: float = PATIENCE
) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, log.read_text() if log else "it never came"
        time.sleep(0.05)


def environment() -> dict[str, str]:
    """That of a command: one CPU, not the many of the tests; compiled quickly, and kept."""
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1"),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": os.path.expanduser("~/.cache/odfs_jax_tests"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


@contextmanager
def ended(studio: Studio) -> Iterator[Studio]:
    """`studio` until the context ends."""
    try:
        yield studio
    finally:
        if studio.process.poll() is None:
            studio.end(signal.SIGKILL)


@contextmanager
def started(workspace: Path, log: Path, *settings: str) -> Iterator[Studio]:
    """A studio of `workspace` until the context ends."""
    settings = ("server.port=0", "hardware.compilation_cache=null", *settings)
    with ended(Studio(workspace, log, *settings)) as studio:
        yield studio


def queued(page) -> str:
    """The job, in words, that the button *Queue* asks for; none is added."""
    page.route("**/api/queue/add", lambda route: route.fulfill(json={"name": ""}))
    with page.expect_request("**/api/queue/add") as asked:
        page.locator("#queue").click()
    return queue.read(**asked.value.post_data_json).said()


def mean_error(points: np.ndarray, exact: np.ndarray) -> float:
    """Mean distance of the points that alignment uses."""
    return float(np.linalg.norm(points - exact, axis=1)[17:].mean())


def shown(page) -> np.ndarray:
    """The frame on /convert, BGR."""
    content = np.frombuffer(base64.b64decode(page.evaluate(PIXELS)), np.uint8)
    return cv2.imdecode(content, cv2.IMREAD_COLOR).astype(int)
