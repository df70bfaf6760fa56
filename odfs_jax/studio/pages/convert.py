"""`/convert`: merge settings tried out on single frames, written as shots, and the conversion."""

import contextlib
import inspect
import os
from dataclasses import fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

from fastapi import FastAPI
from fastapi.responses import FileResponse, Response
from nicegui import ui
from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, Field

from odfs_jax.config import MergeConfig, compose
from odfs_jax.conversion.convert import ANCHORS
from odfs_jax.conversion.masks import KEPT
from odfs_jax.conversion.merge import CHOICES, RANGES
from odfs_jax.conversion.modes import MODES
from odfs_jax.conversion.shots import (
    MAX_RAMP,
    SUFFIX,
    parse_shots,
    ramp_merges,
    read_entries,
    write_shots,
)
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.explain import comments_of
from odfs_jax.saved_model import find_model, steps_in
from odfs_jax.studio.face_index import PoseIndex, version_of
from odfs_jax.studio.frame_cache import FrameCache, jpeg
from odfs_jax.studio.jobs import Jobs
from odfs_jax.studio.layout import page, script
from odfs_jax.studio.results import keep_result, result_path
from odfs_jax.studio.worker import PreviewSource, Worker, check_merges, render_preview
from odfs_jax.studio.workspace import StudioWorkspace

JOB = "convert"
ONE_OF = CHOICES | {"anchor": ANCHORS}
SOME_OF = {"keep": KEPT}
IN_FRAMES = ("color_smoothing", "motion_blur")  # the other numbers are per cent
Text = Annotated[str, Field(max_length=200)]
Value = bool | int | float | Text | None
Settings = dict[Text, Value | list[Text] | dict[Text, Value]]  # some keys of a `MergeConfig`


class PreviewRequest(BaseModel):
    """A frame of dst, and the merge settings that differ from the defaults of `convert.py`."""

    model: str
    frame: Annotated[int, Field(ge=0)]
    merge: Settings = {}
    before: Settings = {}  # those of the shot before, in a ramp
    ramp: Annotated[int, Field(ge=0, le=MAX_RAMP)] = 0  # its frames
    step: Annotated[int, Field(ge=0)] = 0  # which of them this is, from 0
    tinted: bool = False  # what is new is red


class ShotList(BaseModel):
    """All shots, and the version of the shots file that they replace."""

    model: str
    version: str
    shots: Annotated[list[Settings], Field(max_length=10_000)]


class ConvertRequest(BaseModel):
    """The model that a conversion is started with, and what becomes of the result that is there."""

    model: str
    earlier: Literal["refuse", "keep", "replace"] = "refuse"


def register(
    app: FastAPI,
    workspace: StudioWorkspace,
    jobs: Jobs,
    frame_cache: FrameCache,
    worker: Worker,
    index: PoseIndex,
) -> None:
    """Adds the page and the routes that its script calls to `app`."""

    @ui.page("/convert", api_router=app.router)
    def convert(model: str = "") -> None:
        with page(workspace, "/convert"):
            start = {"model": model, "workspace": str(workspace.root.resolve())}
            script("convert", **start, fields=merge_fields(), base=_plain(_command().merge))

    _shots(app, workspace, frame_cache, worker)
    _previews(app, workspace, frame_cache, worker, index)
    _job(app, workspace, jobs, frame_cache)


def _shots(
    app: FastAPI, workspace: StudioWorkspace, frame_cache: FrameCache, worker: Worker
) -> None:
    @app.get("/api/convert/shots")
    def shots() -> dict[str, Any]:
        """The models that can convert, what dst is, and its file of shots."""
        path, reader, command = _shots_file(workspace), frame_cache.reader("dst"), _command()
        entries = read_entries(path) if path.is_file() else []
        parse_shots(path, entries, command.merge)
        shot_list = {"file": path.name, "version": version_of(path), "shots": entries}
        rate = reader.rate or float(command.output.fps)
        return {"models": _models(workspace), "count": reader.count, "rate": rate} | shot_list

    @app.post("/api/convert/shots")
    def write(shot_list: ShotList) -> dict[str, Any]:
        """Replaces the file; refuses when it has another version by now."""
        path, base = _shots_file(workspace), _command().merge
        parsed = parse_shots(path, shot_list.shots, base)
        merges = list({shot.settings: _plain(shot.merge) for shot in parsed}.values())
        worker.submit(check_merges, _preview_source(workspace, shot_list.model), merges).result()
        if version_of(path) != shot_list.version:
            raise UserError(f"{path.name} was changed meanwhile; load the page again to see it")
        write_shots(path, shot_list.shots, base)
        return {"version": version_of(path)}


def _previews(
    app: FastAPI,
    workspace: StudioWorkspace,
    frame_cache: FrameCache,
    worker: Worker,
    index: PoseIndex,
) -> None:
    @app.post("/api/convert/still")
    def preview(request: PreviewRequest) -> Response:
        """The frame with its faces merged in."""
        source, number = _preview_source(workspace, request.model), request.frame
        settings = _merge_of(request)
        frame_cache.frame("dst", number)  # raises BadFileError when it is broken
        near = (number - 1, number, number + 1)  # the neighbors show how the face moves
        starts, names = tuple(f"{one:05d}_" for one in near), set()
        with contextlib.suppress(OSError):  # no folder: the worker says so
            files = os.listdir(source.aligned)
            names.update(
                name for name in files if name.startswith(starts) and name.endswith(".png")
            )
        for one in near:
            names.update(index.names(one))
        rendered = worker.submit(
            render_preview, source, number, sorted(names), settings, request.tinted
        )
        return Response(
            rendered.result(), media_type="image/jpeg", headers={"cache-control": "no-store"}
        )


def _job(app: FastAPI, workspace: StudioWorkspace, jobs: Jobs, frame_cache: FrameCache) -> None:
    @app.post("/api/convert/start")
    def start(request: ConvertRequest) -> dict[str, Any]:
        """Starts `convert.py data=dst` in a process of its own, which outlives the studio.

        A result is never replaced unasked; one that is kept becomes result.1.mp4, and so on.
        """
        name = find_model(workspace.root / "models", _known(workspace, request.model)).name
        path = result_path(workspace)
        if path.exists() and not jobs.find(JOB).running:
            if request.earlier == "refuse":
                raise UserError(f"{path.name} is there already; say whether it is to be kept")
            if request.earlier == "keep":
                keep_result(path)
        jobs.start(JOB, "convert", {"data": "dst", "name": name})
        return {}

    @app.post("/api/convert/stop")
    def stop() -> dict[str, Any]:
        """Sends Ctrl-C to the conversion."""
        jobs.stop(JOB)
        return {}

    @app.get("/api/convert/job")
    def job() -> dict[str, Any]:
        """The state of the conversion, and `result`, the version of the file it made."""
        status, path = jobs.find(JOB), result_path(workspace)
        known = {"running": status.running, "code": status.code, "log": status.log}
        known |= {"seconds": status.seconds, "progress": status.progress}
        is_there = path.exists() and not status.running
        return known | {
            "result": version_of(path) if is_there else None,
            "path": str(path),
            "is_clip": bool(path.suffix),
            "size": path.stat().st_size if is_there and path.suffix else None,
        }

    @app.get("/api/convert/result/{number}")
    def result(number: int) -> Response:
        """Frame `number` of the result."""
        frame = frame_cache.open(result_path(workspace)).read(number)
        return Response(jpeg(frame), media_type="image/jpeg", headers={"cache-control": "no-cache"})

    @app.get("/api/convert/clip")
    def clip() -> FileResponse:
        """The result, when it is a clip."""
        path = result_path(workspace)
        if not path.is_file():
            raise BadFileError(path.name, "no such file")
        return FileResponse(path, headers={"cache-control": "no-cache"})


@lru_cache
def _command() -> DictConfig:
    """The settings of `python convert.py data=dst`; not to be changed."""
    return compose("convert", ["data=dst"])


def _merge_of(request: PreviewRequest) -> dict[str, Any]:
    """The settings of the frame of `request`, which may be in a ramp. Raises UserError."""
    entries = [request.before | {"from": 0}, request.merge | {"from": 1, "ramp": request.ramp}]
    before, shot = parse_shots(None, entries, _command().merge)
    in_ramp = ramp_merges(before.merge, shot).get(shot.start + request.step)
    return _plain(shot.merge if in_ramp is None else in_ramp)


def _plain(merge: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(merge, resolve=True)


def _shots_file(workspace: StudioWorkspace) -> Path:
    """`dst.shots.yaml`, the file of shots that `convert.py` reads by default."""
    clip = workspace.clip("dst")
    return workspace.root / f"{clip.name if clip.is_dir() else clip.stem}{SUFFIX}"


def _models(workspace: StudioWorkspace) -> list[str]:
    """The models with a checkpoint that swap faces."""
    found = workspace.models(masks=False)
    return [name for name in found if steps_in(workspace.model(name))]


def _known(workspace: StudioWorkspace, model: str) -> str:
    workspace.model(model)  # raises UserError when there is none
    return model


def _preview_source(workspace: StudioWorkspace, model: str) -> PreviewSource:
    clip, folder = workspace.clip("dst"), workspace.model(model)
    version = (steps_in(folder)[-1:], clip.stat().st_mtime_ns, clip.stat().st_size)
    return PreviewSource(folder, clip, workspace.faces("dst"), str(version))


def merge_fields() -> list[dict[str, Any]]:
    """The merge settings as fields of a form, read from the schema, so that new ones appear.

    Each has a name, a kind, and as help the comment in the YAML. `kind` is number (with low, high,
    step, unit), choice or several (with options), or words. Options of a mode are called
    `args.<name>` and have its `mode`.
    """
    found = [{"name": "mode", "kind": "choice", "options": list(MODES)}]
    found += _mode_fields() + _dataclass_fields(MergeConfig)
    help_of = comments_of("merge", "overlay").keys | comments_of("merge", "hist_match").keys
    return [field | {"help": help_of.get(field["name"], "")} for field in found]


def _dataclass_fields(config: type, prefix: str = "") -> list[dict[str, Any]]:
    """The fields of a dataclass, including those of nested dataclasses."""
    hints, found = get_type_hints(config), []
    for field in fields(config):
        name, kind = f"{prefix}{field.name}", hints[field.name]
        if is_dataclass(kind):
            found += _dataclass_fields(kind, f"{name}.")
        elif name not in ("mode", "args"):
            found.append({"name": name} | _field_kind(name, kind))
    return found


def _field_kind(name: str, kind: Any) -> dict[str, Any]:
    if name in ONE_OF:
        return {"kind": "choice", "options": list(ONE_OF[name])}
    if name in SOME_OF:
        return {"kind": "several", "options": list(SOME_OF[name])}
    if kind is bool:
        return {"kind": "choice", "options": [True, False]}
    if kind in (int, float):
        low, high = RANGES.get(name, (None, None))
        step = 1 if kind is int or high is None or high - low > 10 else 0.05
        unit = "frames" if name in IN_FRAMES else "%"
        return {"kind": "number", "low": low, "high": high, "step": step, "unit": unit}
    return {"kind": "words"}


def _mode_fields() -> list[dict[str, Any]]:
    """The options of each merge mode; None means the default of the model."""
    found = []
    for mode, build in MODES.items():
        for name, option in inspect.signature(build).parameters.items():
            kinds = get_args(option.annotation) or (option.annotation,)
            field = _field_kind(f"args.{name}", kinds[0])
            if field["kind"] == "choice":
                field["options"] = [None, *field["options"]]
            found.append({"name": f"args.{name}", "mode": mode} | field)
    return found
