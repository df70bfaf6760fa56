"""`/masks`: what of an aligned face is face: drawn, painted, or as a network sees it."""

import base64
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI
from fastapi.responses import Response
from nicegui import ui
from pydantic import BaseModel, Field

from odfs_jax.data import foreign
from odfs_jax.data.aligned_png import (
    MAX_MASK,
    MAX_MASK_BYTES,
    MAX_POINTS,
    MAX_POLYGONS,
    MAX_SIZE,
    Polygon,
    read_face,
    rewrite_data,
)
from odfs_jax.data.lock import locked
from odfs_jax.data.media import png
from odfs_jax.data.stored_masks import BY_HAND, encode_mask
from odfs_jax.errors import UserError
from odfs_jax.faces.hull import face_mask
from odfs_jax.saved_model import BUNDLED, READY_MASK, find_model, latest_step
from odfs_jax.studio.face_index import DoubtIndex, version_of
from odfs_jax.studio.layout import page, script
from odfs_jax.studio.worker import Worker, network_mask
from odfs_jax.studio.workspace import SIDES, StudioWorkspace, checked_side

MOST_SENT = 1 << 21  # letters of a mask that a browser sends: RGBA, and in base64
Coordinate = Annotated[float, Field(ge=-2 * MAX_SIZE, le=2 * MAX_SIZE, allow_inf_nan=False)]
Corner = Annotated[list[Coordinate], Field(min_length=2, max_length=2)]


class DrawnArea(BaseModel):
    """A polygon in aligned pixels: of the face (`include`), or of what hides it."""

    include: bool
    points: Annotated[list[Corner], Field(min_length=3, max_length=MAX_POINTS)]


class DrawnFace(BaseModel):
    """Polygons and mask of a face, and the version of its file that they were drawn on.

    `mask` is a PNG in base64, white on the face; `maker` as in `FaceData`.
    """

    version: str
    polygons: Annotated[list[DrawnArea], Field(max_length=MAX_POLYGONS)]
    mask: Annotated[str, Field(max_length=MOST_SENT)] | None
    maker: Annotated[str, Field(max_length=1024)] | None


class MaskModel(BaseModel):
    """The name of a mask network in the workspace, or of a ready-made one."""

    model: str


def register(app: FastAPI, workspace: StudioWorkspace, worker: Worker) -> None:
    """Adds the page and the routes that its script calls to `app`."""

    @ui.page("/masks", api_router=app.router)
    def masks(side: str = "dst", name: str = "") -> None:
        with page(workspace, "/masks"):
            start = {"side": side if side in SIDES else "dst", "face": name}
            models = workspace.models(masks=True) or [f"{BUNDLED}{READY_MASK}"]
            known = {"models": models, "by_hand": BY_HAND}
            script("masks", **start, **known, workspace=str(workspace.root.resolve()))

    _drawing(app, workspace)
    _networks(app, workspace, worker)


def _drawing(app: FastAPI, workspace: StudioWorkspace) -> None:
    @app.get("/api/masks/{side}/{name}")
    def drawn(side: str, name: str) -> dict[str, Any]:
        """`polygons`, `mask` (a PNG in base64, or None) and `maker`, and the file's `version`."""
        path = workspace.face(side, name)
        version, face = version_of(path), read_face(path)
        polygons = [
            {"include": area.include, "points": area.points.tolist()} for area in face.polygons
        ]
        mask = None if face.mask is None else base64.b64encode(face.mask).decode()
        return {"polygons": polygons, "mask": mask, "maker": face.mask_maker, "version": version}

    @app.get("/api/masks/{side}/{name}/hull")
    def hull(side: str, name: str) -> Response:
        """A gray PNG: what counts where nothing is drawn and nothing stored."""
        face = read_face(workspace.face(side, name))
        content = png.encode(face_mask(face.landmarks, *face.shape, brows=True))
        return Response(content, media_type="image/png", headers={"cache-control": "no-store"})

    @app.post("/api/masks/{side}/{name}")
    def save(side: str, name: str, face: DrawnFace) -> dict[str, Any]:
        """Writes polygons and mask into the PNG; returns the new `version` of its file."""
        path = workspace.face(side, name)
        areas = tuple(Polygon(area.include, np.array(area.points)) for area in face.polygons)
        mask = None if face.mask is None else _gray(face.mask)
        with locked(workspace.faces(side), "drawing masks"):
            if version_of(path) != face.version:
                raise UserError(f"{name}: was changed or renamed meanwhile; reload the page")
            changed = {"polygons": areas, "mask": mask, "mask_maker": mask and face.maker}
            rewrite_data(path, replace(read_face(path), **changed))
            return {"version": version_of(path)}


def _networks(app: FastAPI, workspace: StudioWorkspace, worker: Worker) -> None:
    indices: dict[tuple[str, Path, int], DoubtIndex] = {}

    @app.post("/api/masks/{side}/{name}/network")
    def network(side: str, name: str, chosen: MaskModel) -> dict[str, str]:
        """`mask`: a PNG in base64 of what a network sees in this picture."""
        path, model = workspace.face(side, name), _trained(workspace, chosen.model)
        content = worker.submit(network_mask, *model, path).result()
        return {"mask": base64.b64encode(content).decode()}

    @app.post("/api/doubt/{side}")
    def doubt(side: str, chosen: MaskModel) -> dict[str, Any]:
        """`doubt` {name: 0 .. 1} of the faces that a network has seen, and how many are `missing`.

        The network goes on with the next ones as long as it is asked.
        """
        key = (checked_side(side), *_trained(workspace, chosen.model))
        if key not in indices:
            indices[key] = DoubtIndex(workspace, side, worker, *key[1:])
        found, missing = indices[key].look()
        return {"doubt": {name: share for name, (share,) in found.items()}, "missing": missing}


def _trained(workspace: StudioWorkspace, name: str) -> tuple[Path, int]:
    """The path of a mask network and its last iteration, 0 of a ready-made one. UserError."""
    if name.startswith(BUNDLED):
        return find_model(workspace.root / "models", name, masks=True), 0
    if name not in workspace.models(masks=True):
        raise UserError(f"{foreign.shown(name)}: no such mask network here")
    folder = workspace.model(name)
    step = latest_step(folder)
    if step is None:
        raise UserError(f"{name}: no finished checkpoint; train a while longer")
    return folder, step


def _gray(sent: str) -> bytes:
    """The PNG `sent` in base64 as a face stores it. Raises UserError."""
    try:
        content = base64.b64decode(sent, validate=True)
        width, height = png.image_size(content)
        if max(width, height) > MAX_MASK:
            raise ValueError(f"{width}x{height} pixels, more than {MAX_MASK} a side")
        mask = encode_mask(png.decode(content)[..., 0])
        if len(mask) > MAX_MASK_BYTES:
            raise ValueError(f"{len(mask)} bytes, more than {MAX_MASK_BYTES}")
    except ValueError as error:
        raise UserError(f"mask: {error}") from error
    return mask
