"""`/debug`: the pictures that extraction, training and conversion leave with `debug=true`."""

from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse
from nicegui import ui

from odfs_jax.studio.layout import page, script
from odfs_jax.studio.workspace import StudioWorkspace, is_shown


def register(app: FastAPI, workspace: StudioWorkspace) -> None:
    """Adds the page and the routes that its script calls to `app`."""

    @ui.page("/debug", api_router=app.router)
    def debug() -> None:
        with page(workspace, "/debug"):
            script("debug")

    @app.get("/api/debug")
    def folders() -> dict[str, Any]:
        """The names of the pictures of each folder, in order."""
        found = {}
        for label, folder in workspace.debug_folders().items():
            found[label] = sorted(path.name for path in folder.iterdir() if is_shown(path))
        return {"folders": found}

    @app.get("/api/debug/picture")
    def picture(folder: str, name: str) -> FileResponse:
        path = workspace.debug_picture(folder, name)
        return FileResponse(path, headers={"cache-control": "no-cache"})
