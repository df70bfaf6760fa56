"""`/` of a studio with several workspaces: where the work in each of them stands, and a new one."""

from typing import Any

from fastapi import FastAPI
from nicegui import ui
from pydantic import BaseModel

from odfs_jax.errors import UserError
from odfs_jax.studio.jobs import Jobs
from odfs_jax.studio.layout import page, script
from odfs_jax.studio.pages import convert, home, train
from odfs_jax.studio.queue import KIND as QUEUE
from odfs_jax.studio.workspace import Workspaces

JOBS = (home.JOB, train.JOB, convert.JOB, QUEUE)


class NewWorkspace(BaseModel):
    """The name of a workspace that is to be made."""

    name: str


def register(app: FastAPI, workspaces: Workspaces) -> None:
    """Adds the page and the routes that its script calls to `app`."""

    @ui.page("/", api_router=app.router)
    def overview() -> None:
        with page(workspaces, "/"):
            script("workspaces", folder=str(workspaces.root.resolve()))

    @app.get("/api/workspaces")
    def listing() -> dict[str, Any]:
        """The `workspaces` [{name, next, steps, at_work}], by name."""
        return {"workspaces": [_look(workspaces, name) for name in workspaces.names()]}

    @app.post("/api/workspaces")
    def make(workspace: NewWorkspace) -> dict[str, Any]:
        """Makes an empty workspace."""
        workspaces.make(workspace.name)
        return {}


def _look(workspaces: Workspaces, name: str) -> dict[str, Any]:
    """The `steps` that are done, in words, the `next` one, whether a job is `at_work`."""
    workspace = workspaces.workspace(name)
    jobs = Jobs(workspace)
    try:
        found = home.look(workspace, jobs)
    except (UserError, OSError) as error:  # its folder cannot be read, or was just removed
        return {"name": name, "next": str(error), "steps": [], "at_work": False}
    return {
        "name": name,
        "next": " → ".join(filter(None, (found["next"]["text"], found["next"]["label"]))),
        "steps": [step["state"] for step in found["steps"] if step["done"]],
        "at_work": any(jobs.find(kind).running for kind in JOBS),
    }
