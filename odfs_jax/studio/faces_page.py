"""`/faces`: thumbnails of a faceset, a map of its poses, sort keys, trash and undo."""

from concurrent.futures import Future
from typing import Annotated, Any

from fastapi import FastAPI
from fastapi.responses import FileResponse, Response
from nicegui import ui
from pydantic import BaseModel, Field

from odfs_jax.curation.rename import move_to_trash, restore_from_trash
from odfs_jax.data.aligned_png import FaceData, read_face
from odfs_jax.errors import UserError
from odfs_jax.studio import heavy
from odfs_jax.studio.jobs import Jobs
from odfs_jax.studio.poses import PoseIndex, pngs, version_of
from odfs_jax.studio.room import Room, checked_side
from odfs_jax.studio.shell import page, script
from odfs_jax.studio.thumbs import thumbnail

FOREVER = {"cache-control": "private, max-age=31536000, immutable"}  # the address has the version
ORDERS = (
    "blur", "motion_blur", "hist", "hist_dissim", "hist_blur", "face", "face_dissim", "face_yaw",
    "face_pitch", "brightness", "hue", "ssim", "origname", "source_size", "identity", "best",
)  # fmt: skip


class Chosen(BaseModel):
    """Faces of a side, by name."""

    side: str
    names: Annotated[list[str], Field(max_length=200_000)]


class By(BaseModel):
    """A side and a sort key."""

    side: str
    by: str


def register(
    app: FastAPI, room: Room, jobs: Jobs, worker: heavy.Worker, indices: dict[str, PoseIndex]
) -> None:
    """The page and what its script calls."""

    @ui.page("/faces")
    def faces(side: str = "src", trashed: bool = False) -> None:
        with page(room, "/faces"):
            start = {"side": side if side in ("src", "dst") else "src", "trashed": trashed}
            script("faces", **start, orders=ORDERS)

    _files(app, room)
    _moves(app, room)
    _orders(app, room, jobs, worker)
    _poses(app, indices)


def _files(app: FastAPI, room: Room) -> None:
    @app.get("/api/faces/{side}")
    def listing(side: str, trashed: bool = False) -> dict[str, Any]:
        """Names and versions of all PNGs, by name."""
        folder = room.faces(side, trashed)
        found = sorted((p.name, version_of(p)) for p in pngs(folder))
        return {"names": [name for name, _ in found], "versions": [v for _, v in found]}

    @app.get("/api/faces/{side}/thumb/{name}")
    def thumb(side: str, name: str, trashed: bool = False) -> Response:
        content = thumbnail(room.face(side, name, trashed), room.own / "thumbs")
        return Response(content, media_type="image/jpeg", headers=FOREVER)

    @app.get("/api/faces/{side}/image/{name}")
    def image(side: str, name: str, trashed: bool = False) -> FileResponse:
        return FileResponse(room.face(side, name, trashed), media_type="image/png", headers=FOREVER)

    @app.get("/api/faces/{side}/data/{name}")
    def data(side: str, name: str, trashed: bool = False) -> dict[str, Any]:
        return _shown(read_face(room.face(side, name, trashed)))


def _moves(app: FastAPI, room: Room) -> None:
    @app.post("/api/faces/trash")
    def trash(chosen: Chosen) -> dict[str, Any]:
        """Moves faces to the trash; `names` are those they have there."""
        moved = move_to_trash([room.face(chosen.side, name) for name in chosen.names])
        return {"names": [now.name for _, now in moved]}

    @app.post("/api/faces/restore")
    def restore(chosen: Chosen) -> dict[str, Any]:
        """The reverse of `trash`."""
        files = [room.face(chosen.side, name, trashed=True) for name in chosen.names]
        return {
            "names": [now.name for _, now in restore_from_trash(files, room.faces(chosen.side))]
        }


def _orders(app: FastAPI, room: Room, jobs: Jobs, worker: heavy.Worker) -> None:
    asked: dict[tuple[str, str], Future] = {}

    @app.post("/api/faces/order")
    def order(wish: By) -> dict[str, Any]:
        """The names by a key, `names` None while it is being found out."""
        key = (checked_side(wish.side), wish.by)
        if key not in asked:
            asked[key] = worker.submit(heavy.order, room.faces(wish.side), *key)
        if not asked[key].done():
            return {"names": None}
        return {"names": asked.pop(key).result()}

    @app.get("/api/faces/{side}/sheets/{by}")
    def sheets(side: str, by: str) -> Response:
        """Contact sheets before and after a sort."""
        found = worker.submit(heavy.sheets, room.faces(side), side, by).result()
        return Response(found, media_type="image/png", headers={"cache-control": "no-store"})

    @app.post("/api/faces/sort")
    def sort(wish: By) -> dict[str, Any]:
        """Renames the files to the order; `by` undo takes the last renaming back."""
        if wish.by != "undo" and wish.by not in ORDERS:
            raise UserError(f"by={wish.by!r:.40}: expected one of {', '.join(ORDERS)}")
        what = "undo=true" if wish.by == "undo" else f"by={wish.by}"
        settings = [f"data={checked_side(wish.side)}", what, "hardware.devices=cpu"]
        jobs.start(f"sort-{wish.side}", "sort", settings)
        return {}

    @app.get("/api/faces/{side}/sorting")
    def sorting(side: str) -> dict[str, Any]:
        job = jobs.find(f"sort-{checked_side(side)}")
        return {"running": job.running, "code": job.code, "log": job.log}


def _poses(app: FastAPI, indices: dict[str, PoseIndex]) -> None:
    @app.get("/api/faces/{side}/poses")
    def poses(side: str) -> dict[str, Any]:
        """{name: [yaw, pitch, score, frame]} as far as it is known; how many are to be read."""
        found, missing = indices[checked_side(side)].look()
        return {"poses": found, "missing": missing}


def _shown(face: FaceData) -> dict[str, Any]:
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
