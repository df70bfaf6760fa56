"""Several swaps: `odfs-swap jobs=FOLDER` works through a folder of job files, one folder a state.

drafted/NAME.yaml      not to be done yet: nobody looks there
queued/                to be done, in the order of names
running/               a worker is at it, or was when it was killed
done/, failed/         how it ended; what the job's command printed is logs/NAME.log

A job file holds settings of `odfs-swap`, src, dst and out among them. `jobs=LIST.yaml`, a list of
such settings, is put into the folder LIST/ first, each job once, however often that is said.

Any number of workers, on one host or several, may work on a folder. A worker claims a job by
moving its file to running/, and the file is locked (flock) until the job's own process has ended,
whatever becomes of the worker. A file in running/ without a lock is taken over.
"""

import fcntl
import hashlib
import json
import logging
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from omegaconf import DictConfig, OmegaConf

from odfs_jax.config import STAGES, fitting, quoted
from odfs_jax.data import atomic, foreign
from odfs_jax.data.lock import locked
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.runtime.output import say
from odfs_jax.runtime.processes import own_command

log = logging.getLogger(__name__)

STATES = ("drafted", "queued", "running", "done", "failed")
LOGS = "logs"
OF_A_JOB = ("src", "dst", "out", "workspace", "truth")  # what no two jobs have in common
MAX_FILE, MAX_VALUES = 1 << 20, 100_000
KEY = re.compile(r"[a-z_]\w*(\.\w+)*", re.ASCII)
STOPPED = 130  # exit code of a command that was asked to stop
TAIL = 4096  # bytes of a log in which the last line is looked for


class Job(NamedTuple):
    """A claimed job: its file in running/, and the descriptor that holds the lock on it."""

    path: Path
    handle: int


def run_jobs(config: DictConfig) -> None:
    """Works through `config.jobs`, a folder or a list, until nothing is left to claim.

    Other settings of the `SwapConfig` hold for all jobs that have none of their own. Raises
    UserError when a job failed, now or before, which stops no other; KeyboardInterrupt when the
    running one was asked to stop, which stays in running/.
    """
    given = [key for key in OF_A_JOB if config[key] is not None]
    if given:
        raise UserError(f"{given[0]}: belongs to a single job, and not beside jobs={config.jobs}")
    path = Path(config.jobs)
    folder = path if path.is_dir() else path.with_suffix("")
    if not path.exists():
        raise UserError(f"jobs={path}: no such file or folder")
    atomic.check_writable(folder)
    for name in (*STATES, LOGS):
        (folder / name).mkdir(parents=True, exist_ok=True)
    if path.is_file():
        queue_list(path, folder)
    common = arguments_of({key: config[key] for key in config if key not in (*OF_A_JOB, "jobs")})
    while (job := claim(folder)) is not None:
        try:
            run_job(job, folder, common)
        finally:
            os.close(job.handle)
    counts = {state: len(list(job_files(folder / state))) for state in STATES}
    say(f"{folder}: " + ", ".join(f"{count} {state}" for state, count in counts.items()))
    if counts["failed"]:
        names = ", ".join(path.stem for path in job_files(folder / "failed"))
        raise UserError(
            f"{folder / 'failed'}: {counts['failed']} jobs failed: {names}; why is in "
            f"{folder / LOGS}; move them to {folder / 'queued'} to try again"
        )


def queue_list(path: Path, folder: Path) -> None:
    """Puts the jobs of the list `path` into queued/ of `folder`, but those that it has already."""
    jobs = read_list(path)
    with locked(folder, "queueing jobs"):
        # A job moves from state to state in this order, so that none is missed meanwhile.
        known = {file.stem.rpartition("-")[2] for s in STATES for file in job_files(folder / s)}
        for number, job in enumerate(jobs):
            digest = hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:12]
            if digest in known:
                continue
            known.add(digest)
            result = re.sub(r"[^\w.]", "_", Path(job["out"]).stem)[:60]
            name = f"{number:04d}-{result}-{digest}.yaml"
            atomic.write_text(folder / "queued" / name, yaml.safe_dump(job, sort_keys=False))


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
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), os.lstat(path)):
            return Job(path, handle)
    except OSError:
        pass
    os.close(handle)
    return None


def run_job(job: Job, folder: Path, common: list[str]) -> None:
    """Does a job in a process of its own, which inherits the lock, and files it by how it ended.

    Raises KeyboardInterrupt when it, or this process, was asked to stop.
    """
    name = job.path.stem
    record, interrupted = folder / LOGS / f"{name}.log", False
    say(f"{name}: running, {record}")
    try:
        settings = arguments_of(read_job(job.path))
    except UserError as error:
        with atomic.appending(record) as file:
            file.write(f"{error}\n".encode())
        code = 2
    else:
        with atomic.appending(record) as file:
            process = subprocess.Popen(
                own_command("swap", *fitting(common, settings)),
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
    if code == STOPPED:
        raise KeyboardInterrupt
    state = "failed" if code else "done"
    os.rename(job.path, folder / state / job.path.name)
    say(f"{name}: {state}" + (f" (exit code {code}): {last_line(record)}" if code else ""))
    if interrupted:
        raise KeyboardInterrupt


def job_files(folder: Path) -> Iterator[Path]:
    """The job files in `folder`, by name."""
    found = (path for path in folder.glob("*.yaml") if not path.name.startswith("."))
    yield from sorted(found)


def read_list(path: Path) -> list[dict[str, Any]]:
    """The jobs in the list at `path`. Raises BadFileError."""
    content = foreign.read_yaml(path, MAX_FILE, MAX_VALUES)
    try:
        return [checked(job) for job in foreign.listing(content, "it")]
    except ValueError as error:
        raise BadFileError(path, f"no list of jobs ({error})") from error


def read_job(path: Path) -> dict[str, Any]:
    """The job at `path`. Raises BadFileError."""
    content = foreign.read_yaml(path, MAX_FILE, MAX_VALUES)
    try:
        return checked(content)
    except ValueError as error:
        raise BadFileError(path, f"no job ({error})") from error


def checked(job: Any) -> dict[str, Any]:
    """`job`, settings of a single swap by plain keys. Raises ValueError."""
    settings = foreign.mapping(job, "a job", ("src", "dst", "out"))
    for key, value in settings.items():
        if not KEY.fullmatch(key) or key == "jobs":
            raise ValueError(f"{foreign.shown(key)} is no setting of a job")
        values = value if isinstance(value, list) else [value]
        if any(isinstance(item, dict | list) for item in values):
            raise ValueError(f"{key} is neither a value nor a list of values")
    for key in ("src", "dst", "out"):
        foreign.text(settings[key], key, 4096)
    return settings


def arguments_of(settings: dict[str, Any], prefix: str = "") -> list[str]:
    """`settings` as a command line of `odfs-swap` has them."""
    arguments = []
    for key, value in settings.items():
        if OmegaConf.is_config(value):
            value = OmegaConf.to_container(value, resolve=True)
        if isinstance(value, dict):
            arguments += arguments_of(value, f"{prefix}{key}.")
        elif isinstance(value, list) and key in STAGES:
            arguments += [f"{key}.{setting}" for setting in value]
        elif isinstance(value, list):
            arguments += [f"{prefix}{key}=[{','.join(map(written, value))}]"]
        else:
            arguments += [f"{prefix}{key}={written(value)}"]
    return arguments


def written(value: bool | int | float | str | None) -> str:
    """`value` in Hydra's grammar."""
    return quoted(value) if isinstance(value, str) else json.dumps(value)


def last_line(path: Path) -> str:
    """The last line of a log."""
    with foreign.open_regular(path) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
        lines = file.read(TAIL).decode(errors="replace").splitlines()
    return next((line for line in reversed(lines) if line.strip()), "it printed nothing")
