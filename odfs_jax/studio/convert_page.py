"""`/convert`: merge settings tried out on single frames, written as shots, and the conversion."""

from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI
from fastapi.responses import FileResponse, Response
from nicegui import ui
from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, Field

from odfs_jax.config import compose
from odfs_jax.conversion.convert import find_model
from odfs_jax.conversion.shots import SUFFIX, parse_shots, read_entries, write_shots
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.studio import heavy
from odfs_jax.studio.clips import Clips, jpeg
from odfs_jax.studio.form import merge_fields
from odfs_jax.studio.jobs import Jobs
from odfs_jax.studio.poses import PoseIndex, version_of
from odfs_jax.studio.room import Room
from odfs_jax.studio.shell import page, script

KIND = "convert"  # of the job
Text = Annotated[str, Field(max_length=200)]
Value = bool | int | float | Text | None
Settings = dict[Text, Value | list[Text] | dict[Text, Value]]  # some keys of a `MergeConfig`


class Wish(BaseModel):
    """A frame of dst, and what the merge settings are where they differ from the command's."""

    model: str
    frame: Annotated[int, Field(ge=0)]
    merge: Settings = {}


class Plan(BaseModel):
    """All shots, and the version of the file that they are to replace."""

    model: str
    version: str
    shots: Annotated[list[Settings], Field(max_length=10_000)]


class Start(BaseModel):
    """The model to convert with."""

    model: str


def register(
    app: FastAPI, room: Room, jobs: Jobs, clips: Clips, worker: heavy.Worker, index: PoseIndex
) -> None:
    """The page and what its script calls."""

    @ui.page("/convert")
    def convert(model: str = "") -> None:
        with page(room, "/convert"):
            script("convert", model=model, fields=merge_fields(), base=_plain(_command().merge))

    _shots(app, room, clips, worker)
    _stills(app, room, clips, worker, index)
    _job(app, room, jobs, clips)


def _shots(app: FastAPI, room: Room, clips: Clips, worker: heavy.Worker) -> None:
    @app.get("/api/convert/shots")
    def shots() -> dict[str, Any]:
        """The models that can convert, dst's number of frames, and its file of shots."""
        path, reader = _shots_file(room), clips.reader("dst")
        entries = read_entries(path) if path.is_file() else []
        parse_shots(path, entries, _command().merge)
        plan = {"file": path.name, "version": version_of(path), "shots": entries}
        return {"models": _models(room), "count": reader.count, "clip": reader.path.name} | plan

    @app.post("/api/convert/shots")
    def write(plan: Plan) -> dict[str, Any]:
        """Replaces the file, unless somebody else has meanwhile."""
        path, base = _shots_file(room), _command().merge
        merges = [_plain(shot.merge) for shot in parse_shots(path, plan.shots, base)]
        worker.submit(heavy.check_merges, _stills_of(room, plan.model), merges).result()
        if version_of(path) != plan.version:
            raise UserError(f"{path.name} was changed meanwhile; load the page again to see it")
        write_shots(path, plan.shots, base)
        return {"version": version_of(path)}


def _stills(app: FastAPI, room: Room, clips: Clips, worker: heavy.Worker, index: PoseIndex) -> None:
    @app.post("/api/convert/still")
    def still(wish: Wish) -> Response:
        """The frame with its faces merged in."""
        of, number = _stills_of(room, wish.model), wish.frame
        (*_, shot) = parse_shots(None, [wish.merge | {"from": 0}], _command().merge)
        clips.frame("dst", number)  # says what is wrong with it
        names = set()
        for near in (number - 1, number, number + 1):  # the neighbours show how the face moves
            names.update(path.name for path in of.aligned.glob(f"{near:05d}_*.png"))
            names.update(index.names(near))
        made = worker.submit(heavy.still, of, number, sorted(names), _plain(shot.merge)).result()
        return Response(made, media_type="image/jpeg", headers={"cache-control": "no-store"})


def _job(app: FastAPI, room: Room, jobs: Jobs, clips: Clips) -> None:
    @app.post("/api/convert/start")
    def start(wish: Start) -> dict[str, Any]:
        """Starts `convert.py data=dst`: a process of its own, which outlives the studio."""
        name = find_model(room.root / "models", _known(room, wish.model)).name
        jobs.start(KIND, "convert", ["data=dst", f"name={name}"])
        return {}

    @app.post("/api/convert/stop")
    def stop() -> dict[str, Any]:
        """Ctrl-C to it."""
        jobs.stop(KIND)
        return {}

    @app.get("/api/convert/job")
    def job() -> dict[str, Any]:
        """What is known of the conversion, and `result`, the version of what it made."""
        now, path = jobs.find(KIND), _result(room, clips)
        made = version_of(path) if path.exists() and not now.running else None
        known = {"running": now.running, "code": now.code, "log": now.log}
        return known | {"seconds": now.seconds, "result": made, "file": path.name}

    @app.get("/api/convert/result/{number}")
    def result(number: int) -> Response:
        """Frame `number` of the result."""
        frame = clips.open(_result(room, clips)).read(number)
        return Response(jpeg(frame), media_type="image/jpeg", headers={"cache-control": "no-cache"})

    @app.get("/api/convert/clip")
    def clip() -> FileResponse:
        """The result, when it is a clip."""
        path = _result(room, clips)
        if not path.is_file():
            raise BadFileError(path.name, "no such file")
        return FileResponse(path, headers={"cache-control": "no-cache"})


def _command() -> DictConfig:
    """What `python convert.py data=dst` has without more words."""
    return compose("convert", ["data=dst"])


def _plain(merge: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(merge, resolve=True)


def _shots_file(room: Room) -> Path:
    """`dst.shots.yaml`, which `convert.py` finds by itself."""
    clip = room.clip("dst")
    return room.root / f"{clip.name if clip.is_dir() else clip.stem}{SUFFIX}"


def _models(room: Room) -> list[str]:
    """The models with a checkpoint."""
    return [name for name in room.models() if _steps(room.model(name))]


def _steps(model_dir: Path) -> list[int]:
    found = (model_dir / "checkpoints").glob("*")
    return sorted(int(path.name) for path in found if path.name.isdigit())


def _known(room: Room, model: str) -> str:
    room.model(model)  # says when there is none
    return model


def _stills_of(room: Room, model: str) -> heavy.StillsOf:
    clip, folder = room.clip("dst"), room.model(model)
    version = (_steps(folder)[-1:], clip.stat().st_mtime_ns, clip.stat().st_size)
    return heavy.StillsOf(folder, clip, room.faces("dst"), str(version))


def _result(room: Room, clips: Clips) -> Path:
    """Where `convert.py` puts the result."""
    return room.root / ("result" if clips.reader("dst").is_folder else "result.mp4")
