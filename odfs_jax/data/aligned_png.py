"""The aligned face PNG: one face, with everything known about it in a JSON text chunk.

The chunk is data from outside: it is parsed as JSON, checked field by field and never unpickled.
A new optional field needs no new VERSION, since unknown keys are kept; raise VERSION when a field
becomes required or changes its meaning.
"""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from odfs_jax.data import atomic
from odfs_jax.data.media import png
from odfs_jax.errors import BadFileError
from odfs_jax.faces.types import FaceType

KEYWORD = "odfs"
VERSION = 1
MAX_SIZE = 8192  # pixels; larger headers are refused before anything is decoded


@dataclass(frozen=True)
class Source:
    """The origin of a face: file name, frame number, time, and the face in frame pixels."""

    file: str
    frame: int
    pts: int | None  # presentation time in the stream's time base; None for pictures
    width: int
    height: int
    rect: tuple[float, float, float, float]  # left, top, right, bottom
    landmarks: np.ndarray  # [68, 2]


@dataclass(frozen=True)
class Pose:
    """Head pose in the frame, in degrees.

    yaw > 0 turns to the picture's right, pitch > 0 looks up, roll > 0 is counter-clockwise.
    """

    yaw: float
    pitch: float
    roll: float


@dataclass(frozen=True)
class FaceData:
    """The data of an aligned PNG. `extra` has unknown keys, kept when the file is rewritten.

    `size` is the side of the square picture, pixels. A `mark_only` picture is the whole frame;
    there `size` is the longer side.
    """

    face_type: FaceType
    size: int
    landmarks: np.ndarray  # [68, 2] in aligned pixels
    source: Source
    pose: Pose
    detector: str
    landmarker: str
    score: float
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the picture."""
        if self.face_type is FaceType.MARK_ONLY:
            return self.source.height, self.source.width
        return self.size, self.size


def write_face(path: Path, image: np.ndarray, face: FaceData) -> None:
    """Writes `image` (uint8 RGB [*shape, 3]) and `face` to `path` atomically."""
    if image.shape != (*face.shape, 3) or image.dtype != np.uint8:
        raise ValueError(f"image {image.shape} {image.dtype} does not fit size {face.shape}")
    atomic.write_bytes(path, png.with_text(png.encode(image), KEYWORD, _to_json(face)))


def read_face(path: Path) -> FaceData:
    """The face data in the PNG at `path`; the picture is not decoded. Raises BadFileError."""
    return _parse(path, _read(path))


def read_image_and_face(path: Path) -> tuple[np.ndarray, FaceData]:
    """The picture, uint8 RGB [*shape, 3], and the data of an aligned PNG. Raises BadFileError."""
    content = _read(path)
    face = _parse(path, content)
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise BadFileError(path, "the picture in this PNG cannot be decoded")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), face


def rewrite_data(path: Path, face: FaceData) -> None:
    """Replaces the data of the aligned PNG at `path`; the pixels are not encoded again."""
    atomic.write_bytes(path, png.with_text(_read(path), KEYWORD, _to_json(face)))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadFileError(path, f"cannot be read ({error.strerror})") from error


def _to_json(face: FaceData) -> str:
    fields = {f.name: getattr(face, f.name) for f in dataclasses.fields(face) if f.name != "extra"}
    source = dataclasses.asdict(face.source) | {"landmarks": _rounded(face.source.landmarks)}
    fields |= {
        "version": VERSION,
        "face_type": face.face_type.value,
        "landmarks": _rounded(face.landmarks),
        "source": source,
        "pose": dataclasses.asdict(face.pose),
    }
    return json.dumps(face.extra | fields, allow_nan=False)


def _rounded(points: np.ndarray) -> list[list[float]]:
    return np.round(np.asarray(points, np.float64), 4).tolist()


def _parse(path: Path, content: bytes) -> FaceData:
    try:
        text = png.read_text(content, KEYWORD)
        if text is None:
            raise ValueError("no face data in this PNG (not an aligned face of odfs-jax)")
        face = _face(_object(json.loads(text), "face data"))
        if max(face.shape) != face.size or png.image_size(content) != face.shape[::-1]:
            raise ValueError(f"picture {png.image_size(content)} is not size {face.size}")
        return face
    except (ValueError, RecursionError) as error:  # JSONDecodeError is a ValueError
        raise BadFileError(path, str(error) or "face data nested too deeply") from error


def _face(data: dict[str, Any]) -> FaceData:
    if data.get("version") != VERSION:
        raise ValueError(f"face data version {_shown(data.get('version'))}, expected {VERSION}")
    known = {f.name for f in dataclasses.fields(FaceData)} | {"version"}
    pose = _object(data.get("pose"), "pose")
    return FaceData(
        face_type=_face_type(data.get("face_type")),
        size=_integer(data.get("size"), "size", 1, MAX_SIZE),
        landmarks=_points(data.get("landmarks"), "landmarks"),
        source=_source(_object(data.get("source"), "source")),
        pose=Pose(*(_number(pose.get(k), f"pose.{k}") for k in ("yaw", "pitch", "roll"))),
        detector=_string(data.get("detector"), "detector"),
        landmarker=_string(data.get("landmarker"), "landmarker"),
        score=_number(data.get("score"), "score"),
        extra={k: v for k, v in data.items() if k not in known},
    )


def _source(data: dict[str, Any]) -> Source:
    file = _string(data.get("file"), "source.file")
    if Path(file).name != file or file in ("", ".", ".."):
        raise ValueError(f"source.file {_shown(file)} is not a plain file name")
    rect = data.get("rect")
    if not isinstance(rect, list) or len(rect) != 4:
        raise ValueError("source.rect is not a list of four numbers")
    pts = data.get("pts")
    return Source(
        file=file,
        frame=_integer(data.get("frame"), "source.frame", 0, 1 << 40),
        pts=None if pts is None else _integer(pts, "source.pts", -(1 << 62), 1 << 62),
        width=_integer(data.get("width"), "source.width", 1, 1 << 17),
        height=_integer(data.get("height"), "source.height", 1, 1 << 17),
        rect=tuple(_number(v, "source.rect") for v in rect),
        landmarks=_points(data.get("landmarks"), "source.landmarks"),
    )


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not a JSON object")
    return value


def _shown(value: Any) -> str:
    """`value` for an error message, shortened: data from outside may be megabytes long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _string(value: Any, name: str) -> str:
    if not isinstance(value, str) or len(value) > 1024:
        raise ValueError(f"{name} is not a short string")
    return value


def _integer(value: Any, name: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} {_shown(value)} is not an integer in {low}..{high}")
    return value


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} {_shown(value)} is not a number")
    if abs(value) > 1e9 or not math.isfinite(value):
        raise ValueError(f"{name} {_shown(value)} is out of range")
    return float(value)


def _points(value: Any, name: str) -> np.ndarray:
    if not isinstance(value, list) or len(value) != 68:
        raise ValueError(f"{name} is not a list of 68 points")
    if not all(isinstance(point, list) and len(point) == 2 for point in value):
        raise ValueError(f"{name} has a point that is not a pair")
    return np.array([[_number(c, name) for c in point] for point in value], np.float64)


def _face_type(value: Any) -> FaceType:
    names = [t.value for t in FaceType]
    if value not in names:
        raise ValueError(f"face_type {_shown(value)} is not one of {', '.join(names)}")
    return FaceType(value)
