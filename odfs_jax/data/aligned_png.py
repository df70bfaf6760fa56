"""The aligned face PNG: one face, with everything known about it in a JSON text chunk.

The chunk is data from outside: it is parsed as JSON, checked field by field and never unpickled.
A new optional field needs no new VERSION, since unknown keys are kept; raise VERSION when a field
becomes required or changes its meaning.
"""

import base64
import dataclasses
import json
import math
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from odfs_jax.data import atomic, foreign
from odfs_jax.data.media import png
from odfs_jax.data.parallel import READING
from odfs_jax.errors import BadFileError
from odfs_jax.faces.types import FaceType

KEYWORD = "odfs"
VERSION = 1
MAX_SIZE = 8192  # pixels; larger headers are refused before anything is decoded
MAX_BYTES = 4 * MAX_SIZE**2  # of a file: more than a PNG of the largest face can need
MAX_POLYGONS, MAX_POINTS = 100, 1000  # of a face, of a polygon
MAX_MASK, MAX_MASK_BYTES = 1024, 1 << 18  # pixels a side; bytes of the PNG


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
class Polygon:
    """An area that somebody drew on the picture: of the face (`include`), or of what hides it."""

    include: bool
    points: np.ndarray  # [n, 2] in aligned pixels; files keep them as float32


@dataclass(frozen=True)
class FaceData:
    """The data of an aligned PNG. `extra` has unknown keys, kept when the file is rewritten.

    `polygons` and `mask` are there where somebody or a program has said which part of the picture
    is the face: the areas to include less those to exclude; and an 8-bit gray PNG, 255 on the face,
    which covers the whole picture at any size.

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
    polygons: tuple[Polygon, ...] = ()
    mask: bytes | None = None
    mask_maker: str | None = None  # which network found `mask`; None: it came from elsewhere

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
    READING.claim(math.prod(face.shape))
    try:
        return png.decode(content), face
    except ValueError as error:
        raise BadFileError(path, str(error)) from error


def rewrite_data(path: Path, face: FaceData) -> None:
    """Replaces the data of the aligned PNG at `path`; the pixels are not encoded again."""
    atomic.write_bytes(path, png.with_text(_read(path), KEYWORD, _to_json(face)))


def _read(path: Path) -> bytes:
    return foreign.read_bytes(path, MAX_BYTES)


def _to_json(face: FaceData) -> str:
    optional = ("extra", "polygons", "mask", "mask_maker")
    names = (f.name for f in dataclasses.fields(face) if f.name not in optional)
    fields = {name: getattr(face, name) for name in names}
    source = dataclasses.asdict(face.source) | {"landmarks": _rounded(face.source.landmarks)}
    fields |= {
        "version": VERSION,
        "face_type": face.face_type.value,
        "landmarks": _rounded(face.landmarks),
        "source": source,
        "pose": dataclasses.asdict(face.pose),
    }
    if face.polygons:
        fields["polygons"] = [
            {"include": area.include, "points": _single(area.points)} for area in face.polygons
        ]
    if face.mask is not None:
        fields["mask"] = base64.b64encode(face.mask).decode()
    if face.mask_maker is not None:
        fields["mask_maker"] = face.mask_maker
    return json.dumps(face.extra | fields, allow_nan=False)


def _rounded(points: np.ndarray) -> list[list[float]]:
    return np.round(np.asarray(points, np.float64), 4).tolist()


def _single(points: np.ndarray) -> list[list[float]]:
    """`points` as float32, each by its shortest decimal: nothing is lost when it is read again."""
    return np.asarray(points).astype(np.float32).astype(str).astype(np.float64).tolist()


def _parse(path: Path, content: bytes) -> FaceData:
    try:
        text = png.read_text(content, KEYWORD)
        if text is None:
            raise ValueError("no face data in this PNG (not an aligned face of odfs-jax)")
        face = _face(foreign.mapping(foreign.parse_known_json(text), "face data"))
        foreign.check_plain(face.extra)
        if max(face.shape) != face.size or png.image_size(content) != face.shape[::-1]:
            raise ValueError(f"picture {png.image_size(content)} is not size {face.size}")
        return face
    except ValueError as error:
        raise BadFileError(path, str(error)) from error


def _face(data: dict[str, Any]) -> FaceData:
    if data.get("version") != VERSION:
        found = foreign.shown(data.get("version"))
        raise ValueError(f"face data version {found}, expected {VERSION}")
    known = {f.name for f in dataclasses.fields(FaceData)} | {"version"}
    pose = foreign.mapping(data.get("pose"), "pose")
    return FaceData(
        face_type=_face_type(data.get("face_type")),
        size=foreign.integer(data.get("size"), "size", 1, MAX_SIZE),
        landmarks=foreign.numbers(data.get("landmarks"), "landmarks", (68, 2)),
        source=_source(foreign.mapping(data.get("source"), "source")),
        pose=Pose(*(foreign.number(pose.get(k), f"pose.{k}") for k in ("yaw", "pitch", "roll"))),
        detector=foreign.text(data.get("detector"), "detector"),
        landmarker=foreign.text(data.get("landmarker"), "landmarker"),
        score=foreign.number(data.get("score"), "score"),
        extra={k: v for k, v in data.items() if k not in known},
        polygons=() if "polygons" not in data else _polygons(data["polygons"]),
        mask=None if "mask" not in data else _mask(data["mask"]),
        mask_maker=foreign.text(data["mask_maker"], "mask_maker") if "mask_maker" in data else None,
    )


def _polygons(value: Any) -> tuple[Polygon, ...]:
    areas = [foreign.mapping(a, "polygons") for a in _some(value, "polygons", MAX_POLYGONS)]
    for area in areas:
        if type(area.get("include")) is not bool:
            found = foreign.shown(area.get("include"))
            raise ValueError(f"polygons.include {found} is not true or false")
    lists = [_some(area.get("points"), "polygons.points", MAX_POINTS) for area in areas]
    points = [
        foreign.numbers(one, "polygons.points", (len(one), 2), limit=2 * MAX_SIZE) for one in lists
    ]
    return tuple(Polygon(area["include"], place) for area, place in zip(areas, points, strict=True))


def _some(value: Any, name: str, most: int) -> list[Any]:
    if not 1 <= len(foreign.listing(value, name)) <= most:
        raise ValueError(f"{name} is a list of {len(value)}, not of 1 to {most}")
    return value


def _mask(value: Any) -> bytes:
    """The PNG in base64. Its header and checksums are read; the pixels are not decoded."""
    text = foreign.text(value, "mask", 2 * MAX_MASK_BYTES)
    try:
        content = base64.b64decode(text, validate=True)
        width, height = png.image_size(content)
        kind = struct.unpack_from("BB", png.chunks(content)[0][1], 8)  # bits, 0 for gray
    except ValueError as error:
        raise ValueError(f"mask: {error}") from error
    if len(content) > MAX_MASK_BYTES:
        raise ValueError(f"mask of {len(content)} bytes, more than {MAX_MASK_BYTES}")
    if not (1 <= width <= MAX_MASK and 1 <= height <= MAX_MASK) or kind != (8, 0):
        raise ValueError(
            f"mask of {width}x{height}; expected 8-bit gray, at most {MAX_MASK} a side"
        )
    return content


def _source(data: dict[str, Any]) -> Source:
    pts = data.get("pts")
    return Source(
        file=foreign.plain_name(data.get("file"), "source.file"),
        frame=foreign.integer(data.get("frame"), "source.frame", 0, 1 << 40),
        pts=None if pts is None else foreign.integer(pts, "source.pts", -(1 << 62), 1 << 62),
        width=foreign.integer(data.get("width"), "source.width", 1, 1 << 17),
        height=foreign.integer(data.get("height"), "source.height", 1, 1 << 17),
        rect=tuple(
            foreign.number(v, "source.rect")
            for v in foreign.listing(data.get("rect"), "source.rect", 4)
        ),
        landmarks=foreign.numbers(data.get("landmarks"), "source.landmarks", (68, 2)),
    )


def _face_type(value: Any) -> FaceType:
    names = [t.value for t in FaceType]
    if value not in names:
        raise ValueError(f"face_type {foreign.shown(value)} is not one of {', '.join(names)}")
    return FaceType(value)
