"""Several swaps: `odfs-swap jobs=FOLDER` works through a folder of job files (`job_folder`).

A job file holds settings of `odfs-swap`, src, dst and out among them. `jobs=LIST.yaml`, a list of
such settings, is put into the folder LIST/ first, each job once, however often that is said.
"""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from odfs_jax.config import STAGES, fitting, quoted
from odfs_jax.data import atomic, foreign
from odfs_jax.data.job_folder import (
    LOGS,
    STATES,
    STOPPED,
    claim,
    job_files,
    make_folders,
    run_job,
)
from odfs_jax.data.lock import locked
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.runtime.output import say
from odfs_jax.runtime.processes import own_command

OF_A_JOB = ("src", "dst", "out", "workspace", "truth")  # what no two jobs have in common
MAX_FILE, MAX_VALUES = 1 << 20, 100_000
KEY = re.compile(r"[a-z_]\w*(\.\w+)*", re.ASCII)


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
    make_folders(folder)
    if path.is_file():
        queue_list(path, folder)
    common = arguments_of({key: config[key] for key in config if key not in (*OF_A_JOB, "jobs")})
    while (job := claim(folder)) is not None:
        try:
            if run_job(job, folder, lambda path: command_of(path, common)) == STOPPED:
                raise KeyboardInterrupt
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


def command_of(path: Path, common: list[str]) -> list[str]:
    """The command line of the job at `path`, with `common` settings. Raises BadFileError."""
    return own_command("swap", *fitting(common, arguments_of(read_job(path))))


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
