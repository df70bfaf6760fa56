"""The queue of a workspace: commands that run one after the other, whether a studio runs or not.

`<workspace>/queue/` is a folder of job files (`data/job_folder.py`): {command: train, choices:
{...}}, with the choices that the studio's forms offer. Nothing else is taken from a file or a
browser, and the workspace is always the queue's own. `odfs queue workspace=PATH` is the worker: a
process of its own, which ends when nothing is left to do.
"""

import logging
import os
import re
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Literal

import psutil
import yaml
from omegaconf import DictConfig
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from odfs_jax.curation.sort_keys import SORT_KEYS
from odfs_jax.data import foreign
from odfs_jax.data.atomic import write_text
from odfs_jax.data.job_folder import (
    LOGS,
    STATES,
    STOPPED,
    claim,
    is_at_work,
    job_files,
    make_folders,
    run_job,
)
from odfs_jax.data.lock import locked
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.runtime.processes import own_command
from odfs_jax.studio.jobs import Jobs, arguments, tail
from odfs_jax.studio.results import keep_result, result_path
from odfs_jax.studio.runs import Choices
from odfs_jax.studio.workspace import StudioWorkspace

log = logging.getLogger(__name__)

FOLDER = KIND = "queue"  # in the workspace; of the worker among the studio's jobs
LARGEST, MOST_VALUES = 1 << 16, 1000  # bytes and values of a job file
# A file's name: the number is the job's place, the rest its own name, which stays.
NAME = re.compile(r"(?P<number>\d{6,15})-(?P<job>[a-z]+-[0-9a-f]{8})", re.ASCII)
LINES = 8  # of a job's log that are shown
FINISHED = 20  # jobs that are done or failed, the last ones, that are shown
POLL, PATIENCE = 0.5, 2.0  # seconds between two looks of the worker, and until it ends


class JobChoices(BaseModel):
    """What can be chosen for a command; other keys are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)

    def settings(self) -> dict[str, Any]:
        """The settings of the command line by key. Raises UserError for what cannot be chosen."""
        raise NotImplementedError

    def said(self) -> str:
        """The job in words."""
        raise NotImplementedError


class Extract(JobChoices):
    side: Literal["src", "dst", "src_dst"]

    def settings(self) -> dict[str, Any]:
        return {"data": self.side}

    def said(self) -> str:
        return f"extract {self.side.replace('_', ' and ')}"


class Sort(JobChoices):
    side: Literal["src", "dst"]
    by: str
    keep: int | None = Field(None, ge=1, le=10_000_000)

    def settings(self) -> dict[str, Any]:
        if self.by not in SORT_KEYS:
            raise UserError(f"by={self.by!r:.80}: expected one of {', '.join(SORT_KEYS)}")
        keep = {} if self.keep is None else {"keep": self.keep}
        return {"data": self.side, "by": self.by} | keep

    def said(self) -> str:
        return f"sort {self.side} by {self.by}" + (f", keep {self.keep}" if self.keep else "")


class Train(JobChoices):
    name: str
    model: str
    preset: str | None = None
    batch_size: int | None = None
    iterations: int | None = None
    more: str = ""

    def settings(self) -> dict[str, Any]:
        return Choices(**self.model_dump()).settings()

    def said(self) -> str:
        words = [f"train {self.name}", self.model, self.preset, self.more]
        words += [f"{self.iterations:,} iterations"] if self.iterations else []
        return ", ".join(word for word in words if word)


class Convert(JobChoices):
    model: str

    def settings(self) -> dict[str, Any]:
        """Of a model that is there, or comes from a training before it in the queue."""
        return {"data": "dst", "name": Choices(self.model, "h64").settings()["name"]}

    def said(self) -> str:
        return f"convert with {self.model}"


class Evaluate(JobChoices):
    def settings(self) -> dict[str, Any]:
        return {"data": "dst"}

    def said(self) -> str:
        return "evaluate the result"


COMMANDS: dict[str, type[JobChoices]] = {
    "extract": Extract,
    "sort": Sort,
    "train": Train,
    "convert": Convert,
    "evaluate": Evaluate,
}


def read(command: Any, choices: Any) -> JobChoices:
    """The choices of a job. Raises UserError naming what is not taken."""
    if not isinstance(command, str) or command not in COMMANDS:
        raise UserError(f"command {command!r:.80}: expected one of {', '.join(COMMANDS)}")
    try:
        job = COMMANDS[command].model_validate(choices)
        job.settings()  # which refuses what pydantic does not know
        return job
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or command
        raise UserError(f"{foreign.shown(where)}: {first['msg']}") from None


def read_job(path: Path) -> tuple[str, JobChoices]:
    """(command, choices) of the job at `path`. Raises BadFileError."""
    try:
        content = foreign.read_yaml(path, LARGEST, MOST_VALUES)
        job = foreign.mapping(content, "a job", ("command", "choices"), ("command", "choices"))
        return job["command"], read(job["command"], job["choices"])
    except (ValueError, UserError) as error:
        raise BadFileError(path, f"no job of the queue ({error})") from error


class Queue:
    """The studio's end of the queue."""

    def __init__(self, workspace: StudioWorkspace, jobs: Jobs) -> None:
        self._jobs = jobs
        self.folder = workspace.root / FOLDER

    @property
    def running(self) -> bool:
        """True while a worker that a studio has started is there."""
        return self._jobs.find(KIND).running

    def run(self) -> None:
        """Starts a worker unless one is there."""
        if not self.running:
            self._jobs.start(KIND, "queue", {})

    def add(self, command: str, choices: dict[str, Any], draft: bool = False) -> str:
        """Puts a job at the end and has the queue run, or puts it among the drafts.

        Returns its name. Raises UserError.
        """
        job = read(command, choices)
        with self._changing():
            name = f"{command}-{secrets.token_hex(4)}"
            content = {"command": command, "choices": job.model_dump()}
            folder = self.folder / ("drafted" if draft else "queued")
            path = folder / _file(self._next(), name)
            write_text(path, yaml.safe_dump(content, sort_keys=False))
        if not draft:
            self.run()
        return name

    def look(self) -> list[dict[str, Any]]:
        """The jobs in the order in which they are shown: running, queued, drafted, finished.

        Each has `name`, `state`, what it is `said` to be, and the end of its `log`. A job in
        running/ that nobody works on is `interrupted`.
        """
        rows = []
        for state in ("running", "queued", "drafted"):
            for path in self._files(state):
                at_work = state != "running" or is_at_work(path)
                rows.append(self._row(path, state if at_work else "interrupted"))
        finished = [(path, state) for state in ("done", "failed") for path in self._files(state)]
        finished.sort(key=lambda pair: _changed(pair[0]), reverse=True)
        return rows + [self._row(path, state) for path, state in finished[:FINISHED]]

    def move(self, name: str, state: str) -> None:
        """Puts a job at the end of the queue, which runs then, or among the drafts.

        Raises UserError.
        """
        if state not in ("queued", "drafted"):
            raise UserError(f"{state!r:.40}: expected queued or drafted")
        with self._changing():
            path = self._find(name)
            self._rename(path, self.folder / state / _file(self._next(), name))
        if state == "queued":
            self.run()

    def shift(self, name: str, by: int) -> None:
        """Moves a queued job one place earlier (-1) or later (1). Raises UserError."""
        with self._changing():
            files = self._files("queued")
            names = list(map(_job, files))
            if name not in names:
                raise UserError(f"{name!r:.80}: not in the queue any more")
            at = names.index(name)
            other = at + (1 if by > 0 else -1)
            if not 0 <= other < len(files):
                return
            first = min(at, other)
            # Those from there on get new numbers, in their new order: none is ever missing.
            later = files[first:]
            later[0], later[1] = later[1], later[0]
            for number, path in enumerate(later, self._next()):
                self._rename(path, path.with_name(_file(number, _job(path))))

    def remove(self, name: str) -> None:
        """Deletes a job that does not run, and its log. Raises UserError."""
        with self._changing():
            path = self._find(name)
            path.unlink(missing_ok=True)
            self._log(path).unlink(missing_ok=True)

    def stop(self, name: str) -> None:
        """Sends Ctrl-C to the running job: it saves what it has, and the next one begins.

        Raises UserError when it does not run.
        """
        running = [path for path in self._files("running") if _job(path) == name]
        if not (running and is_at_work(running[0])):
            raise UserError(f"{name!r:.80}: does not run")
        command = name.partition("-")[0]
        for process in holders(running[0].resolve()):
            with suppress(psutil.Error):  # it has just ended
                if {*own_command(command)} <= {*process.cmdline()}:
                    process.send_signal(signal.SIGINT)

    def _row(self, path: Path, state: str) -> dict[str, Any]:
        try:
            said = read_job(path)[1].said()
        except (BadFileError, OSError) as error:
            said = str(error)
        lines = tail(self._log(path)).strip().splitlines()
        return {"name": _job(path), "state": state, "said": said, "log": lines[-LINES:]}

    def _files(self, state: str) -> list[Path]:
        """Those whose names this module gave."""
        return [path for path in job_files(self.folder / state) if NAME.fullmatch(path.stem)]

    def _find(self, name: str) -> Path:
        """The file of a job that does not run. Raises UserError."""
        for state in STATES:
            for path in self._files(state):
                if _job(path) == name:
                    if state == "running" and is_at_work(path):
                        raise UserError(f"{name}: runs now; stop it first")
                    return path
        raise UserError(f"{name!r:.80}: no such job")

    def _next(self) -> int:
        """A number above those of all jobs."""
        names = [NAME.fullmatch(path.stem) for state in STATES for path in self._files(state)]
        return 1 + max((int(name["number"]) for name in names), default=0)

    def _log(self, path: Path) -> Path:
        return self.folder / LOGS / f"{path.stem}.log"

    def _rename(self, old: Path, new: Path) -> None:
        """Moves a job's file, and its log. Raises UserError when a worker was faster."""
        try:
            os.rename(old, new)
        except FileNotFoundError:
            raise UserError(f"{_job(old)}: it was begun meanwhile") from None
        with suppress(FileNotFoundError):
            os.rename(self._log(old), self._log(new))

    def _changing(self) -> AbstractContextManager[None]:
        make_folders(self.folder)
        return locked(self.folder, "changing the queue")


def queue(config: DictConfig) -> None:
    """Works through the queue of a `QueueConfig`'s workspace until nothing is left to do.

    Raises UserError when another process does so already, KeyboardInterrupt when it was stopped.
    """
    workspace = StudioWorkspace(Path(config.workspace))
    if not workspace.root.is_dir():
        raise UserError(f"workspace={workspace.root}: no such folder")
    folder = workspace.root / FOLDER
    make_folders(folder)

    def command_of(path: Path) -> list[str]:
        command, choices = read_job(path)
        settings = choices.settings()
        if command == "convert" and (result := result_path(workspace)).exists():
            keep_result(result)
        return own_command(command, *arguments(workspace.root, settings))

    idle = 0.0
    with locked(folder / "running", "working through the queue"):
        while True:
            # A job whose worker was killed goes on without one; no second one beside it.
            orphaned = any(map(is_at_work, job_files(folder / "running")))
            job = None if orphaned else claim(folder)
            if job is None:
                if idle >= PATIENCE:
                    return  # right after a look: what is queued just now is not left behind
                idle = 0.0 if orphaned else idle + POLL
                time.sleep(POLL)
                continue
            idle = 0.0
            try:
                if run_job(job, folder, command_of) == STOPPED:
                    os.rename(job.path, folder / "drafted" / job.path.name)
            finally:
                os.close(job.handle)


def _file(number: int, job: str) -> str:
    return f"{number:06d}-{job}.yaml"


def _job(path: Path) -> str:
    """The job's own name, of a file that `NAME` describes."""
    return NAME.fullmatch(path.stem)["job"]


def _changed(path: Path) -> float:
    try:
        return path.stat().st_ctime
    except FileNotFoundError:
        return 0.0


def holders(path: Path) -> Iterator[psutil.Process]:
    """The processes of this user that have the file at `path` open."""
    for process in psutil.process_iter():
        try:
            own = process.uids().real == os.getuid()
            if own and any(file.path == str(path) for file in process.open_files()):
                yield process
        except psutil.Error:
            continue
