"""`/extract`: faces placed by hand where the detector found none, or a doubtful one."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import FastAPI
from fastapi.responses import Response
from nicegui import ui
from pydantic import BaseModel, Field

from odfs_jax.curation.rename import move_to_trash
from odfs_jax.data.aligned_png import read_face
from odfs_jax.data.media.frame_io import FrameReader
from odfs_jax.data.media.frames import Frame
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.extraction.extract import checked_face_type
from odfs_jax.extraction.journal import ExtractionJournal
from odfs_jax.extraction.landmarkers import build_landmarker
from odfs_jax.extraction.manual_landmarks import SquareLandmarks
from odfs_jax.extraction.writing import accept_faces
from odfs_jax.faces.align import alignment_matrix
from odfs_jax.studio.face_index import PointIndex, PoseIndex
from odfs_jax.studio.frame_cache import FrameCache, jpeg
from odfs_jax.studio.layout import page, script
from odfs_jax.studio.workspace import SIDES, StudioWorkspace, checked_side

T = TypeVar("T")
Number = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Point = Annotated[list[Number], Field(min_length=2, max_length=2)]
Points = Annotated[list[Point], Field(min_length=68, max_length=68)]


class Square(BaseModel):
    """A square in a frame: its center and size, pixels."""

    side: str
    frame: int
    x: Number
    y: Number
    size: Annotated[float, Field(ge=8, le=20000, allow_inf_nan=False)]


class AcceptedFaces(BaseModel):
    """The landmarks of faces accepted in a frame, and the names of the PNGs they replace."""

    side: str
    frame: int
    faces: Annotated[list[Points], Field(max_length=64)]
    replaced: Annotated[list[str], Field(max_length=64)] = []


def register(
    app: FastAPI,
    workspace: StudioWorkspace,
    frame_cache: FrameCache,
    indices: dict[str, PoseIndex],
    points: dict[str, PointIndex],
    config: dict[str, Any],
) -> None:
    """Adds the page and the routes that its script calls to `app`."""

    @ui.page("/extract", api_router=app.router)
    def extract(side: str = "dst", show: str = "") -> None:
        with page(workspace, "/extract"):
            start = {"side": side if side in SIDES else "dst", "show": show, "size": config["size"]}
            script("extract", **start, workspace=str(workspace.root.resolve()))

    _register_frames(app, workspace, frame_cache, indices)

    @app.get("/api/points/{side}")
    def curves(side: str) -> dict[str, Any]:
        """`rows` {frame: `read_points` of its largest face}; how many files are `missing`."""
        rows, missing = points[checked_side(side)].by_frame()
        return {"rows": rows, "missing": missing}

    _register_points(app, workspace, frame_cache, config)


def _register_frames(
    app: FastAPI, workspace: StudioWorkspace, frame_cache: FrameCache, indices: dict[str, PoseIndex]
) -> None:
    """Routes that read: frames, what is known of them, their faces."""

    @app.get("/api/frames/{side}")
    def frames(side: str) -> dict[str, Any]:
        return _listing(workspace.faces(side), frame_cache.reader(side), indices[side])

    @app.get("/api/frames/{side}/{number}")
    def frame(side: str, number: int) -> Response:
        content = jpeg(frame_cache.frame(side, number))
        return Response(content, media_type="image/jpeg", headers={"cache-control": "no-cache"})

    @app.get("/api/frames/{side}/{number}/faces")
    def faces(side: str, number: int) -> dict[str, Any]:
        return {
            "faces": _faces_of(
                workspace.faces(side), frame_cache.frame(side, number), indices[side]
            )
        }


def _register_points(
    app: FastAPI, workspace: StudioWorkspace, frame_cache: FrameCache, config: dict[str, Any]
) -> None:
    """Routes that compute: landmarks in a square, the crop of landmarks, aligned faces."""
    size = config["size"]
    face_type = checked_face_type(config["face_type"], size)
    find, one = SquareLandmarks(build_landmarker(config["landmarks"])), Lock()

    def aligned(points: np.ndarray) -> dict[str, Any]:
        matrix = _refusing_bad_points(alignment_matrix, points, face_type, size)
        return {"points": np.round(points, 3).tolist(), "matrix": matrix.tolist()}

    @app.post("/api/landmarks")
    def landmarks(square: Square) -> dict[str, Any]:
        image = frame_cache.frame(square.side, square.frame).image
        middle = np.array([square.x, square.y])
        with one:
            points = _refusing_bad_points(find, image, middle, square.size)
        return aligned(points)

    @app.post("/api/align")
    def align(points: Points) -> dict[str, Any]:
        return aligned(np.array(points))

    @app.post("/api/accept")
    def accept(accepted: AcceptedFaces) -> dict[str, Any]:
        frame = frame_cache.frame(accepted.side, accepted.frame)
        folder = workspace.faces(accepted.side)
        old = [workspace.face(accepted.side, name) for name in accepted.replaced]
        folder.mkdir(parents=True, exist_ok=True)
        points = [np.array(face) for face in accepted.faces]
        how = (face_type, size, find.landmarker.name)
        paths = _refusing_bad_points(accept_faces, folder, frame, points, *how)
        move_to_trash(old)
        return {"names": [path.name for path in paths]}


def _refusing_bad_points(function: Callable[..., T], *args: Any) -> T:
    """Calls `function(*args)`; a ValueError, for points that are no face, becomes a UserError."""
    try:
        return function(*args)
    except ValueError as error:
        raise UserError(str(error)) from error


def _listing(folder: Path, reader: FrameReader, index: PoseIndex) -> dict[str, Any]:
    """What is known of the frames: `noted` {number: [faces, lowest score, doubtful, reason]}.

    It comes from the journal of extraction and from the faces in the folder; `missing` of these are
    still to be read. Frames of which nothing is known are left out.
    """
    rows, missing = index.look()
    faces, scores = Counter(), {}
    for _, _, score, frame in rows.values():
        faces[int(frame)] += 1
        scores[int(frame)] = min(score, scores.get(int(frame), 1.0))
    noted = {frame: [count, scores[frame], False, ""] for frame, count in faces.items()}
    for done in ExtractionJournal.read(folder).frames.values():
        why = "; ".join(f"left out: {face.reason}" for face in done.dropped)
        known = (faces[done.frame], scores.get(done.frame, 1.0))
        noted[done.frame] = [*known, done.doubtful, why if done.doubtful else ""]
    return {"count": reader.count, "clip": reader.path.name, "noted": noted, "missing": missing}


def _faces_of(folder: Path, frame: Frame, index: PoseIndex) -> list[dict[str, Any]]:
    """The aligned faces of a frame: name and points in frame pixels."""
    names = {path.name for path in folder.glob(f"{frame.index:05d}_*.png")}
    found = []
    for name in sorted(names.union(index.names(frame.index))):
        try:
            face = read_face(folder / name)
        except BadFileError:
            continue  # deleted meanwhile, or a bad file, which the page of faces shows
        if (face.source.file, face.source.frame) == (frame.file, frame.index):
            points = face.source.landmarks.tolist()
            found.append({"name": name, "points": points, "detector": face.detector})
    return found
