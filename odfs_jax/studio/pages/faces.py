"""`/faces`: thumbnails of a faceset, a map of its poses, sort keys, trash and undo."""

import contextlib
import hashlib
import os
import tempfile
from concurrent.futures import Future
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
from fastapi import FastAPI
from fastapi.responses import FileResponse, Response
from nicegui import ui
from pydantic import BaseModel, Field

from odfs_jax.curation.rename import move_to_trash, restore_from_trash
from odfs_jax.curation.sort_keys import SORT_KEYS
from odfs_jax.data import foreign
from odfs_jax.data.aligned_png import MAX_BYTES, MAX_SIZE, FaceData, read_face
from odfs_jax.data.media import png
from odfs_jax.data.parallel import READING
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.faces.pose import lacking
from odfs_jax.studio.face_index import PoseIndex, version_of
from odfs_jax.studio.jobs import Jobs
from odfs_jax.studio.layout import page, script
from odfs_jax.studio.worker import Worker, contact_sheets, sorted_faces
from odfs_jax.studio.workspace import SIDES, StudioWorkspace, checked_side

THUMB_SIZE = 128  # pixels
MAX_THUMB = 1 << 20  # bytes of its file
THUMB_QUALITY = 85  # of the JPEG, per cent
FOREVER = {"cache-control": "private, max-age=31536000, immutable"}  # the address has the version


class FaceSelection(BaseModel):
    """The names of selected faces of a side."""

    side: str
    names: Annotated[list[str], Field(max_length=200_000)]


class SortRequest(BaseModel):
    """A side and a sort key."""

    side: str
    by: str


def register(
    app: FastAPI,
    workspace: StudioWorkspace,
    jobs: Jobs,
    worker: Worker,
    indices: dict[str, PoseIndex],
) -> None:
    """Adds the page and the routes that its script calls to `app`."""

    @ui.page("/faces", api_router=app.router)
    def faces(side: str = "src", trashed: bool = False) -> None:
        with page(workspace, "/faces"):
            start = {"side": side if side in SIDES else "src", "trashed": trashed}
            words = ("help", "value", "unit", "group")
            orders = {
                by: {word: getattr(key, word) for word in words} for by, key in SORT_KEYS.items()
            }
            script("faces", **start, orders=orders)

    _files(app, workspace)
    _moves(app, workspace)
    _orders(app, workspace, jobs, worker)
    _poses(app, indices)


def _files(app: FastAPI, workspace: StudioWorkspace) -> None:
    @app.get("/api/faces/{side}")
    def listing(side: str, trashed: bool = False) -> dict[str, Any]:
        """Names and versions of all PNGs, by name, and the version of their `folder`."""
        folder = version_of(workspace.faces(side, trashed))  # before its files: none is missed
        found = sorted((p.name, version_of(p)) for p in workspace.face_files(side, trashed))
        names, versions = [name for name, _ in found], [version for _, version in found]
        return {"names": names, "versions": versions, "folder": folder}

    @app.get("/api/faces/{side}/folder")
    def folder(side: str, trashed: bool = False) -> dict[str, Any]:
        """The version of the folder, which changes when a PNG comes, goes or gets another name."""
        return {"folder": version_of(workspace.faces(side, trashed))}

    @app.get("/api/faces/{side}/thumb/{name}")
    def thumb(side: str, name: str, trashed: bool = False) -> Response:
        content = thumbnail(workspace.face(side, name, trashed), workspace.own / "thumbs")
        return Response(content, media_type="image/jpeg", headers=FOREVER)

    @app.get("/api/faces/{side}/image/{name}")
    def image(side: str, name: str, trashed: bool = False) -> FileResponse:
        return FileResponse(
            workspace.face(side, name, trashed), media_type="image/png", headers=FOREVER
        )

    @app.get("/api/faces/{side}/data/{name}")
    def data(side: str, name: str, trashed: bool = False) -> dict[str, Any]:
        return _describe(read_face(workspace.face(side, name, trashed)))


def _moves(app: FastAPI, workspace: StudioWorkspace) -> None:
    @app.post("/api/faces/trash")
    def trash(selection: FaceSelection) -> dict[str, Any]:
        """Moves faces to the trash; returns the `names` they have there."""
        moved = move_to_trash([workspace.face(selection.side, name) for name in selection.names])
        return {"names": [now.name for _, now in moved]}

    @app.post("/api/faces/restore")
    def restore(selection: FaceSelection) -> dict[str, Any]:
        """Moves faces from the trash back; returns the `names` they have there."""
        files = [workspace.face(selection.side, name, trashed=True) for name in selection.names]
        return {
            "names": [
                now.name for _, now in restore_from_trash(files, workspace.faces(selection.side))
            ]
        }


def _orders(app: FastAPI, workspace: StudioWorkspace, jobs: Jobs, worker: Worker) -> None:
    pending: dict[tuple[str, str], Future] = {}

    @app.post("/api/faces/order")
    def order(request: SortRequest) -> dict[str, Any]:
        """`names` in the order of a key, `values`, `groups`; `names` is None while it sorts."""
        key = (checked_side(request.side), _checked_order(request.by))
        if key not in pending:
            pending[key] = worker.submit(sorted_faces, workspace.faces(request.side), *key)
        if not pending[key].done():
            return {"names": None}
        return pending.pop(key).result()

    @app.get("/api/faces/{side}/sheets/{by}")
    def sheets(side: str, by: str) -> Response:
        """A PNG with the contact sheets before and after a sort."""
        order = side, _checked_order(by)
        found = worker.submit(contact_sheets, workspace.faces(side), *order).result()
        return Response(found, media_type="image/png", headers={"cache-control": "no-store"})

    @app.post("/api/faces/sort")
    def sort(request: SortRequest) -> dict[str, Any]:
        """Starts `sort.py`, which renames the files; `by` undo takes the last sort back."""
        what = {"undo": "true"} if request.by == "undo" else {"by": _checked_order(request.by)}
        settings = {"data": checked_side(request.side), "hardware.devices": "cpu"} | what
        jobs.start(f"sort-{request.side}", "sort", settings)
        return {}

    @app.get("/api/faces/{side}/sorting")
    def sorting(side: str) -> dict[str, Any]:
        job = jobs.find(f"sort-{checked_side(side)}")
        return {"running": job.running, "code": job.code, "log": job.log}


def _checked_order(by: str) -> str:
    if by not in SORT_KEYS:
        raise UserError(f"by={foreign.shown(by, 40)}: expected one of {', '.join(SORT_KEYS)}")
    return by


def _poses(app: FastAPI, indices: dict[str, PoseIndex]) -> None:
    @app.get("/api/faces/{side}/poses")
    def poses(side: str) -> dict[str, Any]:
        """`poses` {name: [yaw, pitch, score, frame]} read so far; how many files are `missing`."""
        found, missing = indices[checked_side(side)].look()
        return {"poses": found, "missing": missing}

    @app.get("/api/poses/lacked")
    def lacked() -> dict[str, Any]:
        return _compare_poses(indices)


def _compare_poses(indices: dict[str, PoseIndex]) -> dict[str, Any]:
    """`lacked` [[yaw, pitch]]: the poses of dst that src lacks, `of` how many; and `missing`."""
    looks = {side: index.look() for side, index in indices.items()}
    poses = {
        side: np.array([row[:2] for row in rows.values()]).reshape(-1, 2)
        for side, (rows, _) in looks.items()
    }
    lacked = poses["dst"][lacking(poses["src"], poses["dst"])]
    missing = sum(left for _, left in looks.values())
    return {"lacked": lacked.tolist(), "of": len(poses["dst"]), "missing": missing}


def _describe(face: FaceData) -> dict[str, Any]:
    """Landmarks, and facts in words, for the page's panel."""
    source = face.source
    where = f"{source.file}, frame {source.frame}" if source.pts is not None else source.file
    return {
        "landmarks": face.landmarks.tolist(),
        "size": face.size,
        "facts": {
            "source": where,
            "frame size": f"{source.width} x {source.height}",
            "box": ", ".join(f"{edge:.0f}" for edge in source.rect),
            "yaw, pitch, roll": ", ".join(
                f"{angle:.1f}°" for angle in (face.pose.yaw, face.pose.pitch, face.pose.roll)
            ),
            "face type": f"{face.face_type.value}, {face.size} px",
            "detector": f"{face.detector}, score {face.score:.3f}",
            "landmarks": face.landmarker,
        },
    }


def thumbnail(path: Path, cache: Path) -> bytes:
    """A JPEG of THUMB_SIZE x THUMB_SIZE pixels of the PNG at `path`. Raises BadFileError.

    It is kept in the folder `cache` under a key of the name, inode, time and size of the file.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise BadFileError(path, f"cannot be read ({error.strerror})") from error
    identity = f"{path.name}\0{status.st_ino}\0{status.st_mtime_ns}\0{status.st_size}"
    key = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    cached = cache / key[:2] / f"{key}.jpg"
    try:
        return foreign.read_bytes(cached, MAX_THUMB)
    except BadFileError:
        content = _render_thumbnail(path)
        with contextlib.suppress(OSError):  # without a cache it is made each time
            _write_cache(cached, content)
        return content


def _render_thumbnail(path: Path) -> bytes:
    content = foreign.read_bytes(path, MAX_BYTES)
    try:
        width, height = png.image_size(content)
        if max(width, height) > MAX_SIZE:
            raise ValueError(f"{width}x{height} pixels")
        with READING.hold(width * height):
            image = png.decode(content)
            small = cv2.resize(image, (THUMB_SIZE, THUMB_SIZE), interpolation=cv2.INTER_AREA)
    except ValueError as error:
        raise BadFileError(path, str(error)) from error
    options = (cv2.IMWRITE_JPEG_QUALITY, THUMB_QUALITY)
    return cv2.imencode(".jpg", small[..., ::-1], options)[1].tobytes()


def _write_cache(path: Path, content: bytes) -> None:
    """Writes the file atomically, but without a sync: it can be made again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.replace(name, path)
