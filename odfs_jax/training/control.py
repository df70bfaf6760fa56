"""How a run is watched and steered from outside: files in `control/` of the model's folder.

status.json     written by the run every second: where it stands (`Control._status`)
lock            held by the run as long as it lives, whatever kills it
save, refresh, next, stop    empty files; whoever may write here asks for one by making it

Nothing but the four names is taken, only from the run's own user, and no content is read. The run
needs nobody who watches; a thread of its own does all of this, the loop looks at a set.
"""

import fcntl
import json
import os
import stat
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import psutil

from odfs_jax.errors import UserError

COMMANDS = ("save", "refresh", "next", "stop")
POLL = 0.2  # seconds between two looks at the folder
STATUS = 1.0  # seconds between two writes of the status
TRIES = 5  # to own the folder, POLL seconds apart
WINDOW = 30  # statuses that the rate is measured over
FOLDER = "control"


class Control:
    """The run's end. `asked` holds the commands that wait; the loop discards what it has done."""

    def __init__(
        self, folder: Path, facts: dict[str, Any], memory: Callable[[], int], leads: bool = True
    ) -> None:
        """`facts` go into the status as they are; `memory` gives the bytes in use.

        Of several processes of a run only the one that `leads` has anything to do with files.
        """
        self._leads = leads
        self.asked: set[str] = set()
        self.step = facts["step"]  # the loop moves it
        self._folder = folder / FOLDER
        self._facts = facts | {"pid": os.getpid(), "started": time.time()}
        self._memory = memory
        self._steps: deque = deque(maxlen=WINDOW)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def __enter__(self) -> Self:
        """Raises UserError when another process trains the same model."""
        if not self._leads:
            return self
        self._folder.mkdir(parents=True, exist_ok=True)
        os.chmod(self._folder, 0o700)
        self._lock = (self._folder / "lock").open("w")
        self._own()
        self._take()  # what was asked of an earlier run
        self.asked.clear()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._leads:
            return
        self._over.set()
        self._thread.join()
        self._write("stopped")
        self._lock.close()

    def _own(self) -> None:
        for _ in range(TRIES):
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:  # perhaps only `is_running`, which lets go at once
                time.sleep(POLL)
        self._lock.close()
        raise UserError(f"{self._folder.parent}: another process trains this model; stop it first")

    def _run(self) -> None:
        written = 0.0
        while not self._over.wait(POLL):
            self._take()
            if time.monotonic() - written >= STATUS:
                written = time.monotonic()
                self._steps.append((written, self.step))
                self._write("training")

    def _take(self) -> None:
        for name in COMMANDS:
            path = self._folder / name
            try:
                found = path.lstat()
            except OSError:
                continue
            if stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid():
                path.unlink(missing_ok=True)
                self.asked.add(name)

    def _write(self, state: str) -> None:
        """A full disk must not end the run: whoever watches then sees an old status."""
        status = self._facts | {
            "state": state,
            "step": self.step,
            "steps_per_second": self._rate(),
            "memory": self._memory(),
            "written": time.time(),
        }
        try:
            _replace(self._folder / "status.json", json.dumps(status))
        except OSError:
            return

    def _rate(self) -> float:
        if len(self._steps) < 2:
            return 0.0
        (since, first), (now, last) = self._steps[0], self._steps[-1]
        return (last - first) / (now - since)


def memory_in_use(devices: list) -> Callable[[], int]:
    """Gives the bytes in use: of the first of JAX's `devices`, or of this process on a CPU."""
    device, process = devices[0], psutil.Process()
    if device.platform == "cpu":
        return lambda: process.memory_info().rss
    return lambda: device.memory_stats()["bytes_in_use"]


def send(folder: Path, command: str) -> None:
    """Asks the run of the model in `folder` for one of COMMANDS. Raises UserError."""
    if command not in COMMANDS:
        raise UserError(f"{command!r:.40}: expected one of {', '.join(COMMANDS)}")
    if not is_running(folder):
        raise UserError(f"{folder.name}: nothing trains this model now")
    (folder / FOLDER / command).touch(mode=0o600)


def is_running(folder: Path) -> bool:
    """True while a process trains the model in `folder`."""
    try:
        with (folder / FOLDER / "lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def read_status(folder: Path) -> dict[str, Any] | None:
    """What the run said last, None when it never said anything that can be read."""
    try:
        status = json.loads((folder / FOLDER / "status.json").read_text())
    except (OSError, ValueError):
        return None
    return status if isinstance(status, dict) else None


def _replace(path: Path, text: str) -> None:
    """Readers see the old or the new text; not synced to the disk, for it is old in a second."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".status-")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    os.replace(name, path)
