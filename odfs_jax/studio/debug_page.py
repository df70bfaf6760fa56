"""`/debug`: the pictures that extraction, training and conversion leave with `debug=true`."""

from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse
from nicegui import ui

from odfs_jax.studio.room import PICTURES, Room
from odfs_jax.studio.shell import page, script


def register(app: FastAPI, room: Room) -> None:
    """The page and what its script calls."""

    @ui.page("/debug")
    def debug() -> None:
        with page(room, "/debug"):
            script("debug")

    @app.get("/api/debug")
    def folders() -> dict[str, Any]:
        """The names of the pictures of each folder, in order."""
        found = {}
        for label, folder in room.debug_folders().items():
            files = (path.name for path in folder.iterdir() if path.suffix in PICTURES)
            found[label] = sorted(name for name in files if not name.startswith("."))
        return {"folders": found}

    @app.get("/api/debug/picture")
    def picture(folder: str, name: str) -> FileResponse:
        path = room.debug_picture(folder, name)
        return FileResponse(path, headers={"cache-control": "no-cache"})
