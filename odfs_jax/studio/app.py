"""The app: every page of the studio and the routes that its scripts call."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from nicegui import app as nicegui_app
from nicegui import ui
from starlette.staticfiles import StaticFiles

from odfs_jax.errors import BadFileError, UserError
from odfs_jax.runtime import devices
from odfs_jax.studio import convert_page, debug_page, extract_page, faces_page, train_page
from odfs_jax.studio.clips import Clips
from odfs_jax.studio.heavy import QUICK, Worker
from odfs_jax.studio.jobs import Jobs
from odfs_jax.studio.poses import PoseIndex
from odfs_jax.studio.room import SIDES, Room
from odfs_jax.studio.shell import STATIC, home


def build(room: Room, config: dict[str, Any]) -> FastAPI:
    """The app over `room` with those settings of `config` that a `StudioConfig` has."""
    app = FastAPI(openapi_url=None)
    app.mount("/studio", StaticFiles(directory=STATIC))

    @app.exception_handler(UserError)
    async def refused(_request: Request, error: UserError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 404 if isinstance(error, BadFileError) else 400)

    on_cpu = config["hardware"] | {"devices": "cpu"}  # cards are for training
    devices.prepare(on_cpu)
    worker = Worker(on_cpu)
    merger = Worker(on_cpu, QUICK)  # its own: a sort keeps nobody from seeing a frame
    for process in (worker, merger):
        nicegui_app.on_shutdown(process.close)
    jobs, clips = Jobs(room), Clips(room)
    indices = {side: PoseIndex(room, side, worker) for side in SIDES}
    home(room)
    faces_page.register(app, room, jobs, worker, indices)
    extract_page.register(app, room, clips, indices, config)
    train_page.register(app, room)
    convert_page.register(app, room, jobs, clips, merger, indices["dst"])
    debug_page.register(app, room)
    ui.run_with(
        app,
        title="odfs-jax studio",
        dark=None,  # as the browser's own
        favicon=STATIC / "favicon.svg",
        tailwind=False,
        show_welcome_message=False,
    )
    return app
