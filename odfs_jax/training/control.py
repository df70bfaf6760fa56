"""How a run is watched and steered from outside: a folder of files, signals, a window.

A run holds the lock of its model's folder (`data/lock.py`). Files in `control/` of that folder:

    status.json     written by the run every second: where it stands
    save, refresh, next, stop    empty files; whoever may write here asks for one by making it

Nothing but the four names is taken, only from the run's own user, and no content is read. The run
needs nobody who watches; a thread of its own does all of this, and the loop looks at a set.

`preview=window` shows the last preview and the losses in an OpenCV window, with the keys of
docs/reference_2018.md section 9:

    s save      p refresh      Space other faces      Enter save and stop      Esc close the window

The window is a process of its own that knows the run by its folder only: the run neither waits for
it nor ends with it.
"""

import json
import logging
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import psutil

from odfs_jax.data import atomic, foreign
from odfs_jax.data.lock import holder, locked
from odfs_jax.data.media.picture_folder import read_picture
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.runtime.processes import own_command
from odfs_jax.training.metrics import PREVIEW, loss_curves, read_losses

log = logging.getLogger(__name__)

COMMANDS = ("save", "refresh", "next", "stop")
POLL = 0.2  # seconds between two looks at the folder
STATUS = 1.0  # seconds between two writes of the status
RATE_STATUSES = 30  # over which the rate is measured
FOLDER = "control"
MAX_STATUS = 1 << 16  # bytes of a status that are read
TEXTS = {"state", "device"}
TIMES = {"steps_per_second", "written", "started"}
STATUS_FACTS = TEXTS | TIMES | {"step", "target", "batch_size", "memory", "memory_limit", "pid"}
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, kill, a terminal that is gone

PREVIEWS = ("none", "window")  # the choices of the setting `preview`
KEYS = {ord("s"): "save", ord("p"): "refresh", ord(" "): "next", 13: "stop", 10: "stop"}
CLOSE_KEY = 27  # Esc
REDRAW = 100  # milliseconds between two looks of the window at the folder
HELP = "s save   p refresh   space next   enter stop"


class Control:
    """The run's end of `control/`, and the lock of the model's folder as long as it is entered.

    `commands` holds those that wait; the loop discards what it has done. `step` is the loop's to
    set, once `begin` was called.
    """

    def __init__(self, folder: Path, enabled: bool = True) -> None:
        """Of several processes of a run one is `enabled`; the others touch no files."""
        self._enabled = enabled
        self.commands: set[str] = set()
        self.step = 0
        self._model, self._folder = folder, folder / FOLDER
        self._lock = ExitStack()
        self._facts: dict[str, Any] = {}
        self._memory: Callable[[], int] = lambda: 0
        self._steps: deque = deque(maxlen=RATE_STATUSES)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def __enter__(self) -> Self:
        """Raises UserError when another process works on the same model."""
        if not self._enabled:
            return self
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock.enter_context(locked(self._model, "training"))
        os.chmod(self._folder, 0o700)
        self._take()  # commands to an earlier run
        self.commands.clear()
        return self

    def begin(self, facts: dict[str, Any], memory: Callable[[], int]) -> None:
        """From now on commands are taken, and the status is written.

        `facts` go into it as they are; `memory` returns the bytes in use.
        """
        self.step, self._memory = facts["step"], memory
        self._facts = facts | {"pid": os.getpid(), "started": time.time()}
        if self._enabled:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self._over.set()
            self._thread.join()
            self._write("stopped")
        self._lock.close()

    def _run(self) -> None:
        written = 0.0
        while not self._over.wait(POLL):
            self._take()
            if time.monotonic() - written >= STATUS:
                written = time.monotonic()
                self._steps.append((written, self.step))
                self._write("training")

    def _take(self) -> None:
        """Moves the commands that lie in the folder to `commands`."""
        for name in COMMANDS:
            path = self._folder / name
            try:
                found = path.lstat()
            except OSError:
                continue
            if stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid():
                path.unlink(missing_ok=True)
                self.commands.add(name)

    def _write(self, state: str) -> None:
        """A full disk must not end the run: whoever watches then sees an old status."""
        status = self._facts | {
            "state": state,
            "step": self.step,
            "steps_per_second": self.rate(),
            "memory": self._memory(),
            "written": time.time(),
        }
        try:
            atomic.write_text(self._folder / "status.json", json.dumps(status), durable=False)
        except OSError:
            return

    def rate(self) -> float:
        """Iterations a second of late; 0 while that is not known."""
        if len(self._steps) < 2:
            return 0.0
        (since, first), (now, last) = self._steps[0], self._steps[-1]
        return (last - first) / (now - since)


def memory_in_use(devices: list) -> Callable[[], int]:
    """A function that returns the bytes in use, of the first device or on a CPU of this process."""
    device, process = devices[0], psutil.Process()
    if device.platform == "cpu":
        return lambda: process.memory_info().rss
    return lambda: device.memory_stats()["bytes_in_use"]


def send(folder: Path, command: str) -> None:
    """Sends one of COMMANDS to the run of the model in `folder`. Raises UserError."""
    if command not in COMMANDS:
        raise UserError(f"{command!r:.40}: expected one of {', '.join(COMMANDS)}")
    if not is_running(folder):
        raise UserError(f"{folder.name}: nothing trains this model now")
    (folder / FOLDER / command).touch(mode=0o600)


def is_running(folder: Path) -> bool:
    """True while a process trains the model in `folder`."""
    return holder(folder) is not None


def read_status(folder: Path) -> dict[str, Any] | None:
    """The last status of the run in `folder`, None where there is none that can be read.

    It may lack any of its keys; those that it has are of the type and in the range of a status.
    """
    try:
        status = foreign.read_json(folder / FOLDER / "status.json", MAX_STATUS)
        status = foreign.mapping(status, "status")
        found: dict[str, Any] = {}
        for name in STATUS_FACTS & status.keys():
            if name in TEXTS:
                found[name] = foreign.text(status[name], name, 200)
            elif name in TIMES:
                found[name] = foreign.number(status[name], name, 0, 1e12)
            else:
                found[name] = foreign.integer(status[name], name, 0, 1 << 53)
    except (BadFileError, ValueError):
        return None
    return found


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """A function that returns True once SIGINT, SIGTERM or SIGHUP came.

    A second SIGINT or SIGTERM kills as usual. A terminal that is gone (SIGHUP) may say so twice,
    and one that `nohup` made the run ignore is ignored. SIGUSR2, with which submitit tells a job
    that its time is nearly over, counts where somebody has a handler for it: that one, which puts
    the job back into the queue, is called when the context ends.
    """
    requested, of_queue = False, False
    before = {number: signal.getsignal(number) for number in (*STOPS, signal.SIGUSR2)}
    caught = [n for n in STOPS if n != signal.SIGHUP or before[n] != signal.SIG_IGN]
    if callable(before[signal.SIGUSR2]):
        caught.append(signal.SIGUSR2)

    def on_signal(number: int, _frame: object) -> None:
        nonlocal requested, of_queue
        requested, of_queue = True, of_queue or number == signal.SIGUSR2
        log.info("%s: saving, then stopping", signal.Signals(number).name)
        for known in caught:
            signal.signal(known, signal.SIG_IGN if known == signal.SIGHUP else before[known])

    for number in caught:
        signal.signal(number, on_signal)
    try:
        yield lambda: requested
    finally:
        for number in caught:
            signal.signal(number, before[number])
    if of_queue:
        signal.raise_signal(signal.SIGUSR2)


def check_preview(preview: str) -> None:
    """Raises UserError when `preview` is no choice, or a window that cannot be shown here."""
    if preview not in PREVIEWS:
        raise UserError(f"preview={preview}: expected one of {', '.join(PREVIEWS)}")
    screens = ("DISPLAY", "WAYLAND_DISPLAY")
    if preview == "window" and sys.platform == "linux" and not any(map(os.environ.get, screens)):
        raise UserError(
            "preview=window: there is no display here (DISPLAY is not set); take preview=none and "
            "watch with: python scripts/studio.py"
        )
    if preview == "window" and not cv2.currentUIFramework():
        raise UserError(
            "preview=window: this OpenCV has no windows (it is opencv-python-headless); take "
            "preview=none and watch with: odfs studio"
        )


@contextmanager
def preview_window(folder: Path, preview: str) -> Iterator[None]:
    """Shows the run in `folder` until the context ends, if `preview` asks for it."""
    if preview != "window":
        yield
        return
    process = subprocess.Popen(own_command("window", str(folder)))
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def press(folder: Path, key: int) -> bool:
    """Sends the command of `key`, a value of `cv2.waitKey`; False when it closes the window."""
    command = KEYS.get(key & 0xFF) if key >= 0 else None
    if command and is_running(folder):
        send(folder, command)
    return key < 0 or key & 0xFF != CLOSE_KEY


def window_picture(folder: Path) -> np.ndarray:
    """The loss curves above the last preview, uint8 BGR [H, W, 3]."""
    try:
        shown = read_picture(folder / PREVIEW)[..., ::-1]
    except BadFileError:  # there is none yet
        shown = np.full((64, 640, 3), 24, np.uint8)
    scale = max(1, round(640 / shown.shape[1]))
    shown = cv2.resize(shown, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    curves = loss_curves(read_losses(folder), shown.shape[1], 120)
    status = read_status(folder) or {}
    text = f"iteration {status.get('step', 0)}   {HELP}"
    cv2.putText(curves, text, (6, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (220,) * 3, 1, cv2.LINE_AA)
    return np.vstack([curves, shown])


def show_window(folder: Path) -> None:
    """Shows the run in `folder` in a window of its own, until it ends or Esc. Raises UserError."""
    check_preview("window")
    title = f"odfs-jax: {folder.name}"
    cv2.namedWindow(title, cv2.WINDOW_AUTOSIZE)
    while is_running(folder):
        cv2.imshow(title, window_picture(folder))
        if not press(folder, cv2.waitKey(REDRAW)):
            break
