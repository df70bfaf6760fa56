"""Commands that the studio starts. Each is a process of its own and outlives the studio."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from odfs_jax.config import quoted
from odfs_jax.data import atomic, foreign
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.runtime.processes import own_command
from odfs_jax.runtime.progress import LINES_VARIABLE
from odfs_jax.studio.workspace import StudioWorkspace

TAIL = 8192  # bytes of a log that are shown
MAX_IDENTITY = 4096  # bytes of a file that identifies a process
IDENTITY = ("pid", "created")
LINES = "1"  # seconds between a command's lines of progress
PROGRESS = re.compile(r"(\d{1,12})/(\d{1,12}) \w+ .*?, (\d{1,12}) s left")  # `runtime/progress.py`


@dataclass(frozen=True)
class JobStatus:
    """The last command of a kind: exit `code` (None: running, or not known), log, seconds."""

    running: bool
    code: int | None
    log: str
    seconds: float

    @property
    def progress(self) -> tuple[int, int, int] | None:
        """(done, of how many, seconds left) as the log says last; None: it does not say."""
        lines = PROGRESS.findall(self.log)
        return tuple(map(int, lines[-1])) if lines else None


class Jobs:
    """The commands of a workspace by kind, such as `convert`: one of each at a time.

    `<workspace>/studio/jobs/<kind>.log` is what it printed; `<kind>.json` identifies its process,
    so that a studio that is started again finds it.
    """

    def __init__(self, workspace: StudioWorkspace) -> None:
        self._folder = workspace.own / "jobs"
        self._root = workspace.root
        self._children: dict[str, subprocess.Popen] = {}

    def start(self, kind: str, command: str, settings: dict[str, str | int | float]) -> None:
        """Starts `odfs <command>` in the workspace; `settings` are texts or numbers by key.

        Raises UserError when one runs.
        """
        if self.find(kind).running:
            raise UserError(f"{kind}: one is running already")
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{kind}.log"
        path.unlink(missing_ok=True)  # a link in a stranger's workspace may lead to another file
        with path.open("xb") as log:
            process = subprocess.Popen(
                own_command(command, *arguments(self._root, settings)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the studio alone
                env=os.environ | {LINES_VARIABLE: LINES},
            )
        self._children[kind] = process
        identity = {"pid": process.pid, "created": psutil.Process(process.pid).create_time()}
        atomic.write_text(self._folder / f"{kind}.json", json.dumps(identity))

    def find(self, kind: str) -> JobStatus:
        """The last command of `kind`; one that never ran has no log."""
        child = self._children.get(kind)
        code = child.poll() if child else None
        # A command that is about to end has no command line any more, so that only its parent
        # can tell that it is not over yet.
        waits = child is not None and code is None
        process = psutil.Process(child.pid) if waits else self._process(kind)
        text = tail(self._folder / f"{kind}.log")
        since = time.time() - process.create_time() if process else 0.0
        return JobStatus(process is not None, code, text, since)

    def stop(self, kind: str) -> None:
        """Sends Ctrl-C to the command if it runs."""
        process = self._process(kind)
        if process:
            os.kill(process.pid, signal.SIGINT)

    def _process(self, kind: str) -> psutil.Process | None:
        """The running command of `kind`; no other process, whatever the file says."""
        path = self._folder / f"{kind}.json"
        try:
            identity = foreign.mapping(foreign.read_json(path, MAX_IDENTITY), "it", IDENTITY)
            process = psutil.Process(foreign.integer(identity["pid"], "pid", 1, 1 << 31))
            created = foreign.number(identity["created"], "created", 0, 1 << 40)
            is_same = abs(process.create_time() - created) < 1
            is_ours = {*own_command()} <= {*process.cmdline()}
            is_dead = process.status() == psutil.STATUS_ZOMBIE
            return process if is_same and is_ours and not is_dead else None
        except (BadFileError, ValueError, psutil.Error):
            return None


def arguments(workspace: Path, settings: Mapping[str, str | int | float]) -> list[str]:
    """The command line of a command in `workspace`; texts in `settings` stand for themselves."""
    settings = {"workspace": str(workspace)} | settings
    return [
        f"{key}={quoted(value) if isinstance(value, str) else value}"
        for key, value in settings.items()
    ]


def tail(path: Path) -> str:
    """The end of a log; empty when there is none."""
    try:
        with foreign.open_regular(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            return file.read(TAIL).decode(errors="replace")
    except (BadFileError, OSError):
        return ""
