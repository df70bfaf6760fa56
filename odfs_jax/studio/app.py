"""The app: every page of the studio and the routes that its scripts call."""

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from nicegui import app as nicegui_app
from nicegui import ui
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from odfs_jax.data import foreign
from odfs_jax.errors import BadFileError, UserError, printable
from odfs_jax.runtime import devices
from odfs_jax.studio.face_index import PointIndex, PoseIndex
from odfs_jax.studio.frame_cache import FrameCache
from odfs_jax.studio.jobs import Jobs
from odfs_jax.studio.layout import STATIC, WORKSPACES
from odfs_jax.studio.pages import (
    convert,
    debug,
    extract,
    faces,
    home,
    masks,
    train,
    workspaces,
)
from odfs_jax.studio.queue import Queue
from odfs_jax.studio.worker import COMPILE_FAST, Worker
from odfs_jax.studio.workspace import SIDES, StudioWorkspace, Workspaces

# Seconds for which a page is known that does not answer, perhaps because a training takes the whole
# machine. One that is forgotten loads again, and what was typed, chosen or to be undone is lost.
RECONNECT = 30.0


class AsciiResponse(JSONResponse):
    """JSON of any texts: file names may be no Unicode, which UTF-8 cannot hold."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Workers:
    """The processes that all workspaces share."""

    faces: Worker
    previews: Worker  # of its own, so that no preview waits for a sort


def build(served: StudioWorkspace | Workspaces, config: dict[str, Any]) -> FastAPI:
    """The app that serves a workspace at /, or each of several at /w/NAME/ and their list at /.

    `config` has the fields of a `StudioConfig`.
    """
    on_cpu = config["hardware"] | {"devices": "cpu"}  # cards are for training
    devices.prepare(on_cpu)
    workers = Workers(Worker(on_cpu), Worker(on_cpu, COMPILE_FAST))
    for process in (workers.faces, workers.previews):
        nicegui_app.on_shutdown(process.close)
    if isinstance(served, StudioWorkspace):
        app = _workspace_app(served, config, workers)
    else:
        app = _new_app()
        workspaces.register(app, served)
        app.mount(WORKSPACES, _Apps(served, config, workers))
    app.mount("/studio", StaticFiles(directory=STATIC))
    ui.run_with(
        app,
        title="odfs-jax studio",
        dark=None,  # as the browser's own
        favicon=STATIC / "favicon.svg",
        tailwind=False,
        reconnect_timeout=RECONNECT,
        show_welcome_message=False,
    )
    return app


class _Apps:
    """The ASGI app below /w: the app of each workspace, made when it is first asked for."""

    def __init__(self, served: Workspaces, config: dict[str, Any], workers: Workers) -> None:
        self._served, self._config, self._workers = served, config, workers
        self._apps: dict[str, FastAPI] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name, slash, rest = scope["path"].removeprefix(f"{WORKSPACES}/").partition("/")
        try:
            workspace = self._served.workspace(name)
        except BadFileError as error:
            await AsciiResponse({"error": str(error)}, 404)(scope, receive, send)
            return
        if not slash:
            await RedirectResponse(f"{WORKSPACES}/{quote(name)}/")(scope, receive, send)
            return
        if name not in self._apps:
            self._apps[name] = _workspace_app(workspace, self._config, self._workers)
        # As if it were alone: its pages find each other by relative addresses.
        await self._apps[name](scope | {"path": f"/{rest}", "root_path": ""}, receive, send)


def _workspace_app(workspace: StudioWorkspace, config: dict[str, Any], workers: Workers) -> FastAPI:
    """The pages of one workspace, with what these share: its jobs, its clips, what it measures."""
    app = _new_app()
    jobs, frame_cache, worker = Jobs(workspace), FrameCache(workspace), workers.faces
    indices = {side: PoseIndex(workspace, side, worker) for side in SIDES}
    queue = Queue(workspace, jobs)
    home.register(app, workspace, jobs, queue)
    faces.register(app, workspace, jobs, worker, indices)
    points = {side: PointIndex(workspace, side, worker) for side in SIDES}
    extract.register(app, workspace, frame_cache, indices, points, config)
    masks.register(app, workspace, worker)
    train.register(app, workspace, jobs, queue)
    convert.register(app, workspace, jobs, frame_cache, workers.previews, indices["dst"])
    debug.register(app, workspace)
    return app


def _new_app() -> FastAPI:
    """An app without routes that answers mistakes with one line."""
    # A page's relative addresses hold at its own address only, so that /faces/ is none.
    app = FastAPI(openapi_url=None, default_response_class=AsciiResponse, redirect_slashes=False)

    @app.exception_handler(UserError)
    async def refused(_request: Request, error: UserError) -> JSONResponse:
        return AsciiResponse({"error": str(error)}, 404 if isinstance(error, BadFileError) else 400)

    @app.exception_handler(RequestValidationError)
    async def malformed(_request: Request, error: RequestValidationError) -> JSONResponse:
        """In a line, without the input, which need not be a text that can be sent back."""
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return AsciiResponse({"error": f"{foreign.shown(where)}: {printable(first['msg'])}"}, 422)

    return app
