"""`/`: where the work in this workspace stands, the next step as one button, and the queue."""

import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI
from nicegui import ui
from pydantic import BaseModel

from odfs_jax.curation.sort_keys import SORT_KEYS
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.extraction.journal import JOURNAL, ExtractionJournal
from odfs_jax.studio.face_index import version_of
from odfs_jax.studio.jobs import Jobs
from odfs_jax.studio.layout import page, script
from odfs_jax.studio.queue import Queue
from odfs_jax.studio.results import Made, find_made
from odfs_jax.studio.workspace import SIDES, StudioWorkspace
from odfs_jax.training import control
from odfs_jax.training.backups import checkpoints_in

JOB = "extract"


class NewJob(BaseModel):
    """A job for the queue; `queue.read` checks its `choices`."""

    command: str
    choices: dict[str, Any]
    draft: bool = False


class Change(BaseModel):
    """What is to become of a job: another `state`, or a place earlier (-1) or later (1)."""

    name: str
    state: str | None = None
    by: Literal[-1, 1] | None = None


class Named(BaseModel):
    """A job of the queue."""

    name: str


def register(app: FastAPI, workspace: StudioWorkspace, jobs: Jobs, queue: Queue) -> None:
    """Adds the page and the routes that its script calls to `app`."""
    _register_queue(app, workspace, queue)

    @ui.page("/", api_router=app.router)
    def home() -> None:
        with page(workspace, "/"):
            script("home", orders={name: key.help for name, key in SORT_KEYS.items()})

    @app.get("/api/home")
    def state() -> dict[str, Any]:
        """The `steps` of the work, in order, what is `next`, and the job that runs from here."""
        return look(workspace, jobs)

    @app.post("/api/home/extract")
    def extract() -> dict[str, Any]:
        """Starts `extract.py` for the sides that have a clip and no faces."""
        sides = _sides_to_extract(workspace)
        if not sides:
            raise UserError("both sides have faces; python extract.py overwrite=true replaces them")
        jobs.start(JOB, "extract", {"data": "_".join(sides)})
        return {}

    @app.post("/api/home/stop")
    def stop() -> dict[str, Any]:
        """Sends Ctrl-C to the extraction; the next one goes on where it stopped."""
        jobs.stop(JOB)
        return {}


def _register_queue(app: FastAPI, workspace: StudioWorkspace, queue: Queue) -> None:
    @app.get("/api/queue")
    def show() -> dict[str, Any]:
        """The `jobs` of the queue, as `Queue.look` has them, whether its worker is `running`, and
        the `models` that swap faces.
        """
        models = workspace.models(masks=False)
        return {"jobs": queue.look(), "running": queue.running, "models": models}

    @app.post("/api/queue/add")
    def add(job: NewJob) -> dict[str, Any]:
        """Puts a job at the end of the queue, or among the drafts."""
        return {"name": queue.add(job.command, job.choices, job.draft)}

    @app.post("/api/queue/change")
    def change(request: Change) -> dict[str, Any]:
        """Moves a job to another state, or within the queue."""
        if request.by is not None:
            queue.shift(request.name, request.by)
        elif request.state is not None:
            queue.move(request.name, request.state)
        return {}

    @app.post("/api/queue/remove")
    def remove(job: Named) -> dict[str, Any]:
        """Deletes a job that does not run."""
        queue.remove(job.name)
        return {}

    @app.post("/api/queue/stop")
    def stop_job(job: Named) -> dict[str, Any]:
        """Sends Ctrl-C to the running job; the next one begins."""
        queue.stop(job.name)
        return {}

    @app.post("/api/queue/run")
    def run() -> dict[str, Any]:
        """Starts the worker, where jobs wait and none is there."""
        queue.run()
        return {}


def look(workspace: StudioWorkspace, jobs: Jobs) -> dict[str, Any]:
    """`steps` [{name, page, state, done}], `next` {text, label, page} and `job` {running, log}.

    A `next` without a page starts extraction; without a label there is nothing to press.
    """
    clips = {side: _clip(workspace, side) for side in SIDES}
    faces = {side: len(workspace.face_files(side)) for side in SIDES}
    doubtful = _doubtful(workspace, "dst")
    run = _latest_run(workspace)
    result = find_made(workspace)
    job = jobs.find(JOB)
    fixes = f", {_frames(doubtful)} of dst without a clear one" if doubtful else ""
    steps = [
        _step("Clips", None, ", ".join(clips.values()), all(map(bool, _found(workspace).values()))),
        _step(
            "Faces",
            "faces",
            f"{faces['src']} of src, {faces['dst']} of dst{fixes}",
            all(faces.values()),
        ),
        _step("Train", "train", _run_state(run), run is not None and run.saved > 0),
        _step("Convert", "convert", _result_state(result), result is not None),
    ]
    return {
        "steps": steps,
        "next": _next(workspace, faces, doubtful, run, result, job.running),
        "job": {"running": job.running, "log": job.log if job.running or job.code else ""},
    }


def _step(name: str, page: str | None, state: str, done: bool) -> dict[str, Any]:
    return {"name": name, "page": page, "state": state, "done": done}


def _found(workspace: StudioWorkspace) -> dict[str, Path | None]:
    """The clip of each side, None where there is none, or more than one."""
    found: dict[str, Path | None] = {}
    for side in SIDES:
        try:
            found[side] = workspace.clip(side)
        except UserError:
            found[side] = None
    return found


def _clip(workspace: StudioWorkspace, side: str) -> str:
    try:
        return workspace.clip(side).name
    except UserError as error:
        return str(error)


def _sides_to_extract(workspace: StudioWorkspace) -> list[str]:
    found = _found(workspace)
    return [side for side in SIDES if found[side] and not workspace.face_files(side)]


def _doubtful(workspace: StudioWorkspace, side: str) -> int:
    folder = workspace.faces(side)
    return _count_doubtful(folder, version_of(folder / JOURNAL))


@lru_cache(maxsize=256)
def _count_doubtful(folder: Path, _version: str) -> int:
    """Read once a version: the page asks every two seconds, and a journal has a line a frame."""
    try:
        return len(ExtractionJournal.read(folder).doubtful())
    except BadFileError:  # extract.py says so when it goes on
        return 0


@dataclass(frozen=True)
class _Run:
    """A training run: the `step` it is at, its `target` (0: none), when it last `saved` a model."""

    name: str
    step: int
    target: int
    saved: float  # seconds since 1970; 0: never
    running: bool


def _latest_run(workspace: StudioWorkspace) -> _Run | None:
    """Of the models that swap faces the run that is under way, else the one that saved last."""
    runs = []
    for name in workspace.models(masks=False):
        folder = workspace.model(name)
        status, checkpoints = control.read_status(folder) or {}, checkpoints_in(folder)
        running = control.is_running(folder)
        saved_step = checkpoints[0].step if checkpoints else 0
        step = status.get("step", saved_step) if running else saved_step
        saved = checkpoints[0].saved if checkpoints else 0.0
        runs.append(_Run(name, step, status.get("target", 0), saved, running))
    return max(runs, key=lambda run: (run.running, run.saved), default=None)


def _run_state(run: _Run | None) -> str:
    if run is None:
        return "no model yet"
    of = f" of {run.target:,}" if run.target else ""
    return f"{run.name}: {run.step:,}{of} iterations{', running' if run.running else ''}"


def _result_state(result: Made | None) -> str:
    if result is None:
        return "no result yet"
    where = f" in {result.folder}" if result.folder else ""
    return f"{result.name}{where}, {_age(time.time() - result.made)} old"


def _frames(count: int) -> str:
    return "1 frame" if count == 1 else f"{count} frames"


def _age(seconds: float) -> str:
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{max(0, seconds):.0f} seconds"


def _next(
    workspace: StudioWorkspace,
    faces: dict[str, int],
    doubtful: int,
    run: _Run | None,
    result: Made | None,
    extracting: bool,
) -> dict[str, str | None]:
    def step(text: str, label: str | None = None, page: str | None = None) -> dict[str, str | None]:
        return {"text": text, "label": label, "page": page}

    root, todo = workspace.root, _sides_to_extract(workspace)
    if extracting:
        return step("Faces are being extracted.")
    if todo:
        return step("The clips are here. Next come their faces.", f"Extract {' and '.join(todo)}")
    if lacking := [side for side in SIDES if not faces[side]]:
        what = " and ".join(f"{side}.mp4" for side in lacking)
        return step(f"Put {what} into {root}: src is who is put in, dst where.")
    if run is not None and run.running:
        return step(f"{run.name} is being trained.", "Watch the training", "train")
    if run is None or not run.saved:
        if doubtful:
            has = "has" if doubtful == 1 else "have"
            text = f"{_frames(doubtful)} of dst {has} no clear face and would stay unchanged."
            return step(text, "Place them by hand", "extract?side=dst&show=doubtful")
        return step("Throw faces out that are not src or not sharp, then train.", "Train", "train")
    if result is None:
        return step("There is a model.", "Try it on dst and convert", "convert")
    if result.made < run.saved:
        text = f"{run.name} has learned more since {result.name} was made."
        return step(text, "Try it on dst and convert", "convert")
    if result.folder:
        text = f"odfs-swap made {result.name}, in {result.folder}."
        return step(text, "Try other settings", "convert")
    return step(f"{result.name} is newer than the model.", "See the result", "convert")
