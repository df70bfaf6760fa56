"""The app: every page of the studio and the routes that its scripts call."""

import json
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from nicegui import app as nicegui_app
from nicegui import ui
from starlette.staticfiles import StaticFiles

from odfs_jax.data import foreign
from odfs_jax.errors import BadFileError, UserError, printable
from odfs_jax.runtime import devices
from odfs_jax.studio.face_index import PointIndex, PoseIndex
from odfs_jax.studio.frame_cache import FrameCache
from odfs_jax.studio.jobs import Jobs
from odfs_jax.studio.layout import STATIC
from odfs_jax.studio.pages import convert, debug, extract, faces, home, masks, train
from odfs_jax.studio.queue import Queue
from odfs_jax.studio.worker import COMPILE_FAST, Worker
from odfs_jax.studio.workspace import SIDES, StudioWorkspace


class AsciiResponse(JSONResponse):
    """JSON of any texts: file names may be no Unicode, which UTF-8 cannot hold."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def build(workspace: StudioWorkspace, config: dict[str, Any]) -> FastAPI:
    """The app that serves `workspace`. `config` has the fields of a `StudioConfig`."""
    app = FastAPI(openapi_url=None, default_response_class=AsciiResponse)
    app.mount("/studio", StaticFiles(directory=STATIC))

    @app.exception_handler(UserError)
    async def refused(_request: Request, error: UserError) -> JSONResponse:
        return AsciiResponse({"error": str(error)}, 404 if isinstance(error, BadFileError) else 400)

    @app.exception_handler(RequestValidationError)
    async def malformed(_request: Request, error: RequestValidationError) -> JSONResponse:
        """In a line, without the input, which need not be a text that can be sent back."""
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return AsciiResponse({"error": f"{foreign.shown(where)}: {printable(first['msg'])}"}, 422)

    on_cpu = config["hardware"] | {"devices": "cpu"}  # cards are for training
    devices.prepare(on_cpu)
    worker = Worker(on_cpu)
    preview_worker = Worker(on_cpu, COMPILE_FAST)  # so that no preview waits for a sort
    for process in (worker, preview_worker):
        nicegui_app.on_shutdown(process.close)
    jobs, frame_cache = Jobs(workspace), FrameCache(workspace)
    indices = {side: PoseIndex(workspace, side, worker) for side in SIDES}
    queue = Queue(workspace, jobs)
    home.register(app, workspace, jobs, queue)
    faces.register(app, workspace, jobs, worker, indices)
    points = {side: PointIndex(workspace, side, worker) for side in SIDES}
    extract.register(app, workspace, frame_cache, indices, points, config)
    masks.register(app, workspace, worker)
    train.register(app, workspace, jobs, queue)
    convert.register(app, workspace, jobs, frame_cache, preview_worker, indices["dst"])
    debug.register(app, workspace)
    ui.run_with(
        app,
        title="odfs-jax studio",
        dark=None,  # as the browser's own
        favicon=STATIC / "favicon.svg",
        tailwind=False,
        show_welcome_message=False,
    )
    return app
