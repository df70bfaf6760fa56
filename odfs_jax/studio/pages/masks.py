"""`/masks`: polygons drawn on aligned faces, of what is face and of what hides it."""

from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI
from fastapi.responses import Response
from nicegui import ui
from pydantic import BaseModel, Field

from odfs_jax.data.aligned_png import (
    MAX_POINTS,
    MAX_POLYGONS,
    MAX_SIZE,
    FaceData,
    Polygon,
    read_face,
    rewrite_data,
)
from odfs_jax.data.lock import locked
from odfs_jax.data.media import png
from odfs_jax.data.stored_masks import stored_mask
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.faces.hull import face_mask
from odfs_jax.studio.layout import page, script
from odfs_jax.studio.pose_index import version_of
from odfs_jax.studio.workspace import SIDES, StudioWorkspace

Coordinate = Annotated[float, Field(ge=-2 * MAX_SIZE, le=2 * MAX_SIZE, allow_inf_nan=False)]
Corner = Annotated[list[Coordinate], Field(min_length=2, max_length=2)]


class DrawnArea(BaseModel):
    """A polygon in aligned pixels: of the face (`include`), or of what hides it."""

    include: bool
    points: Annotated[list[Corner], Field(min_length=3, max_length=MAX_POINTS)]


class DrawnFace(BaseModel):
    """All polygons of a face, and the version of its file that they were drawn on."""

    version: str
    polygons: Annotated[list[DrawnArea], Field(max_length=MAX_POLYGONS)]


def register(app: FastAPI, workspace: StudioWorkspace) -> None:
    """Adds the page and the routes that its script calls to `app`."""

    @ui.page("/masks")
    def masks(side: str = "dst", name: str = "") -> None:
        with page(workspace, "/masks"):
            script("masks", side=side if side in SIDES else "dst", face=name)

    @app.get("/api/masks/{side}/{name}")
    def drawn(side: str, name: str) -> dict[str, Any]:
        """The `polygons` of a face, and the `version` of its file."""
        path = workspace.face(side, name)
        version = version_of(path)
        polygons = [
            {"include": area.include, "points": area.points.tolist()}
            for area in read_face(path).polygons
        ]
        return {"polygons": polygons, "version": version}

    @app.get("/api/masks/{side}/{name}/base")
    def base(side: str, name: str) -> Response:
        """A gray PNG: what counts where nothing is drawn, the stored mask or the points' hull."""
        path = workspace.face(side, name)
        try:
            content = png.encode(_base(read_face(path)))
        except ValueError as error:
            raise BadFileError(path, str(error)) from error
        return Response(content, media_type="image/png", headers={"cache-control": "no-store"})

    @app.post("/api/masks/{side}/{name}")
    def save(side: str, name: str, face: DrawnFace) -> dict[str, Any]:
        """Writes the polygons into the PNG; returns the new `version` of its file."""
        path = workspace.face(side, name)
        areas = tuple(Polygon(area.include, np.array(area.points)) for area in face.polygons)
        with locked(workspace.faces(side), "drawing masks"):
            if version_of(path) != face.version:
                raise UserError(f"{name}: was changed or renamed meanwhile; reload the page")
            rewrite_data(path, replace(read_face(path), polygons=areas))
            return {"version": version_of(path)}


def _base(face: FaceData) -> np.ndarray:
    found = stored_mask(replace(face, polygons=()))
    return face_mask(face.landmarks, *face.shape, brows=True) if found is None else found
