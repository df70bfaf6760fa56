"""A folder of job files, one folder a state: jobs that run one after the other, whoever looks on.

drafted/NAME.yaml      not to be done yet: nobody looks there
queued/                to be done, in the order of names
running/               a worker is at it, or was when it was killed
done/, failed/         how it ended; what the job's command printed is logs/NAME.log

Any number of workers, on one host or several, may work on a folder. A worker claims a job by
moving its file to running/, and the file is locked (flock) until the job's own process has ended,
whatever becomes of the worker. A file in running/ without a lock is taken over.
"""

import fcntl
import logging
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from odfs_jax.data import atomic, foreign
from odfs_jax.data.lock import is_at, open_there, refusal
from odfs_jax.errors import UserError
from odfs_jax.runtime.output import say

log = logging.getLogger(__name__)

STATES = ("drafted", "queued", "running", "done", "failed")
LOGS = "logs"
STOPPED = 130  # exit code of a command that was asked to stop
TAIL = 4096  # bytes of a log in which the last line is looked for


class Job(NamedTuple):
    """A claimed job: its file in running/, and the descriptor that holds the lock on it."""

    path: Path
    handle: int


def make_folders(folder: Path) -> None:
    """Makes `folder` and those of the states in it. Raises UserError where it cannot be written."""
    atomic.check_writable(folder)
    for name in (*STATES, LOGS):
        (folder / name).mkdir(parents=True, exist_ok=True)


def claim(folder: Path) -> Job | None:
    """The next job to do: one that is queued, else one whose worker is gone. None: there is none.

    Those come last, for they may be what ended their workers.
    """
    for queued in job_files(folder / "queued"):
        running = folder / "running" / queued.name
        if running.exists():
            log.warning("%s: a job of this name is in running/; not begun", queued)
            continue
        try:
            os.rename(queued, running)
        except FileNotFoundError:  # another worker was faster
            continue
        if job := lock(running):
            return job
    for running in job_files(folder / "running"):
        if job := lock(running):
            log.warning("%s: its worker is gone; taken over", running)
            return job
    return None


def lock(path: Path) -> Job | None:
    """The job of the file at `path`; None where it is somebody's, or no longer there."""
    handle = open_there(path, os.O_RDWR)
    if handle is None:
        return None
    with suppress(OSError):
        if refusal(handle, fcntl.LOCK_EX) is None and is_at(handle, path):
            return Job(path, handle)
    os.close(handle)
    return None


def is_at_work(path: Path) -> bool:
    """True while a process works on the job of the file at `path`, in running/."""
    handle = open_there(path, os.O_RDONLY)
    if handle is None:
        return False
    try:
        return refusal(handle, fcntl.LOCK_SH) is not None
    finally:
        os.close(handle)


def run_job(job: Job, folder: Path, command_of: Callable[[Path], list[str]]) -> int:
    """Does a job in a process of its own, which inherits the lock, and files it by how it ended.

    `command_of` reads the job's file, and returns the command line or raises a UserError. Returns
    the exit code; a job that was STOPPED stays in running/. Raises KeyboardInterrupt when this
    process was asked to stop too.
    """
    name = job.path.stem
    record, interrupted = folder / LOGS / f"{name}.log", False
    say(f"{name}: running, {record}")
    try:
        command = command_of(job.path)
    except UserError as error:
        with atomic.appending(record) as file:
            file.write(f"{error}\n".encode())
        code = 2
    else:
        with atomic.appending(record) as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                pass_fds=(job.handle,),
            )
        while (code := process.poll()) is None:
            try:
                process.wait()
            except KeyboardInterrupt:  # Ctrl-C, which the job has got too: it saves
                interrupted = True
    if code != STOPPED:
        state = "failed" if code else "done"
        os.rename(job.path, folder / state / job.path.name)
        say(f"{name}: {state}" + (f" (exit code {code}): {last_line(record)}" if code else ""))
    if interrupted:
        raise KeyboardInterrupt
    return code


def job_files(folder: Path) -> Iterator[Path]:
    """The job files in `folder`, by name."""
    found = (path for path in folder.glob("*.yaml") if not path.name.startswith("."))
    yield from sorted(found)


def last_line(path: Path) -> str:
    """The last line of a log."""
    with foreign.open_regular(path) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
        lines = file.read(TAIL).decode(errors="replace").splitlines()
    return next((line for line in reversed(lines) if line.strip()), "it printed nothing")
