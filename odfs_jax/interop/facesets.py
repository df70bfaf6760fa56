"""Facesets of DeepFaceLab as ours: aligned JPEGs, PNGs of 2018 to 2020, faceset.pak; and ours back.

The face data of such a picture is a pickle, in a segment of the JPEG or a chunk of the PNG. It is
read by `pickles`, then every field is checked, as those of our own aligned PNGs are. Names in it
are a stranger's: only their last part is used. Source: docs/from_deepfacelab.md.
"""

import math
import re
import struct
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import simplejpeg

from odfs_jax.data import aligned_png, atomic, foreign
from odfs_jax.data.aligned_png import (
    MAX_MASK,
    MAX_SIZE,
    FaceData,
    Polygon,
    Pose,
    Source,
    write_face,
)
from odfs_jax.data.lock import require_empty
from odfs_jax.data.media import picture, png
from odfs_jax.data.parallel import cores, parallel_map, read_files
from odfs_jax.data.workspace import image_files
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.faces import pose
from odfs_jax.faces.affine import invert, transform
from odfs_jax.faces.align import alignment_matrix, umeyama
from odfs_jax.faces.types import FaceType
from odfs_jax.interop import pickles
from odfs_jax.runtime.progress import progress

PACKED = "faceset.pak"
MAX_FILE = 1 << 28  # bytes of a picture
MAX_DATA = 1 << 20  # bytes of its face data; a JPEG's are less
MAX_INDEX = 1 << 30  # bytes of what a faceset.pak says of its faces
DATA_SEGMENT, START_OF_SCAN = 0xEF, 0xDA  # JPEG markers; the first is APP15
FIRST_SEGMENT = 0xE0  # APP0
MAX_SEGMENT = (1 << 16) - 3  # bytes of what a segment holds, less the two of its length
MAX_MASK_PNG = 50_000  # bytes; a larger mask is written as a JPEG
QUALITY, MASK_QUALITY = 95, 90  # of the JPEGs that are written
DATA_CHUNK = b"fcWp"
FINDER = "deepfacelab"  # the detector and landmarker of imported faces
OF_2018 = {
    "half_face": FaceType.HALF,
    "full_face": FaceType.FULL,
    "head": FaceType.HEAD,
    "avatar": FaceType.AVATAR,
    "mark_only": FaceType.MARK_ONLY,
}
OF_2_0 = {
    "half_face": FaceType.DFL_HALF,
    "midfull_face": FaceType.DFL_MIDFULL,
    "full_face": FaceType.DFL_FULL,
    "whole_face": FaceType.DFL_WHOLE,
    "head": FaceType.DFL_HEAD,
    "mark_only": FaceType.MARK_ONLY,
}
LAST_NUMBER = re.compile(r"(\d{1,12})\D*$", re.ASCII)


@dataclass(frozen=True)
class _Packed:
    """One picture of a faceset: what messages call it, its future name, and its bytes."""

    where: str
    name: str
    read: Callable[[], bytes]


def import_faces(source: Path, folder: Path, frames: Path | None) -> tuple[int, list[BadFileError]]:
    """Writes the faces at `source` to `folder` as aligned PNGs.

    Args:
      source: a folder of aligned pictures, or of a faceset.pak; or such a file.
      folder: must be empty or not be there; it appears once all is written.
      frames: the folder of the pictures that the faces were cut out of. It tells their size, which
        conversion needs and face data does not have. None: a guess, good enough to train.

    Returns (how many, errors of the others). Raises UserError when there is no face.
    """
    require_empty(folder)
    if source.is_dir() and not (files := image_files(source)) and (source / PACKED).exists():
        source = source / PACKED
    bad: list[BadFileError] = []
    written = 0
    with atomic.replacing_folder(folder) as temporary:
        if source.is_dir():
            faces, count = (_Packed(str(p), p.stem, _reader(p)) for p in files), len(files)
        else:
            faces, count = _packed_faces(source)
        convert = partial(_convert, folder=temporary, frames=frames)
        results = parallel_map(convert, faces, cores())
        for error in progress(results, count, "importing", "face"):
            if error is None:
                written += 1
            else:
                bad.append(error)
        if not written:
            why = f"; the last: {bad[-1]}" if bad else ""
            raise UserError(f"{source}: no aligned face of DeepFaceLab in it{why}")
    return written, bad


def _reader(path: Path) -> Callable[[], bytes]:
    return lambda: foreign.read_bytes(path, MAX_FILE)


def _convert(packed: _Packed, folder: Path, frames: Path | None) -> BadFileError | None:
    """Writes one face; the error of one that cannot be used."""
    try:
        path = folder / foreign.plain_name(f"{packed.name}.png", "name")
        image, face = read_face(packed.read(), packed.name, frames)
        with open(path, "xb"):  # fails where another thread has taken the name
            pass
        try:
            write_face(path, image, face)
            aligned_png.read_face(path)  # what an aligned PNG may hold has limits
        except BadFileError as error:
            path.unlink()
            raise ValueError(error.reason) from error
    except FileExistsError:
        return BadFileError(packed.where, "a second face of this name")
    except BadFileError as error:
        return error
    except ValueError as error:
        return BadFileError(packed.where, str(error))
    return None


# ------------------------------------------------------------------------------------ faceset.pak


def _packed_faces(path: Path) -> tuple[Generator[_Packed], int]:
    """(the pictures in the faceset.pak at `path`, their number). Raises BadFileError."""
    size = foreign.size_of_regular(path)
    with foreign.open_regular(path) as file:
        try:
            version, length = struct.unpack("<QQ", _exactly(file, 16))
            if version != 1 or length > min(size, MAX_INDEX):
                raise ValueError("no faceset.pak of version 1")
            index = pickles.parse(_exactly(file, length), pickles.ENUMS)
            index = foreign.listing(index, "what it says of its faces")
            table = _exactly(file, 8 * (len(index) + 1))
        except ValueError as error:
            raise BadFileError(path, str(error)) from error
        start = file.tell()
    ends = [start + offset for offset in struct.unpack(f"<{len(index) + 1}Q", table)]
    ends[-1] = size  # the last offset counts from the file's beginning, unlike the others
    if any(a > b for a, b in pairwise(ends)):
        raise BadFileError(path, "faces that lie in each other, or behind the file's end")
    return _each(path, index, ends), len(index)


def _each(path: Path, index: list[Any], ends: list[int]) -> Generator[_Packed]:
    for number, said in enumerate(index):
        said = said if isinstance(said, dict) else {}
        name = _base_name(said.get("filename")) or f"{number:05d}"
        person = _base_name(said.get("person_name"))
        stem = Path(name).stem
        where = f"{path}: {foreign.shown(name, 80)}"
        read = partial(_part, path, ends[number], ends[number + 1])
        yield _Packed(where, f"{person}_{stem}" if person else stem, read)


def _part(path: Path, start: int, end: int) -> bytes:
    if end - start > MAX_FILE:
        raise ValueError(f"a picture of more than {MAX_FILE} bytes")
    with foreign.open_regular(path) as file:
        file.seek(start)
        return _exactly(file, end - start)


def _exactly(file: BinaryIO, count: int) -> bytes:
    content = file.read(count)
    if len(content) < count:
        raise ValueError("cut off")
    return content


def _base_name(value: Any) -> str | None:
    """The last part of a path of either kind; None where there is none that can be a file's."""
    if not isinstance(value, str):
        return None
    name = re.split(r"[/\\]", value)[-1].strip().lstrip(".")
    try:
        return foreign.plain_name(name, "name")
    except ValueError:
        return None


# ------------------------------------------------------------------------------------ one picture


def read_face(content: bytes, name: str, frames: Path | None) -> tuple[np.ndarray, FaceData]:
    """The picture, uint8 RGB [H, W, 3], and the data in the bytes of a JPEG or PNG.

    `name` stands for the frame where the data has no name of it; `frames`: see `import_faces`.
    Raises ValueError.
    """
    data, types = read_face_data(content)
    if data is None:
        raise ValueError("no face data of DeepFaceLab in it")
    if len(data) > MAX_DATA:
        raise ValueError(f"face data of {len(data):,} bytes, more than {MAX_DATA:,}")
    data = foreign.mapping(pickles.parse(data), "face data")
    found = data.get("face_type", "full_face")
    if not isinstance(found, str) or found not in types:
        known = ", ".join(types)
        raise ValueError(f"face_type {foreign.shown(found)} is not one of {known}")
    face_type = types[found]
    image = picture.decode(content).image
    height, width = image.shape[:2]
    if image.dtype != np.uint8 or max(height, width) > MAX_SIZE:
        raise ValueError(f"a picture of {width}x{height} {image.dtype}")
    if face_type is not FaceType.MARK_ONLY and height != width:
        raise ValueError(f"a picture of {width}x{height}, which is no square")
    landmarks = _points(data.get("landmarks"), "landmarks")
    alignment_matrix(landmarks, face_type, 1)  # raises ValueError for points of no face
    source = _source(data, name, landmarks, frames, image, face_type)
    return image, FaceData(
        face_type=face_type,
        size=max(height, width),
        landmarks=landmarks,
        source=source,
        pose=Pose(*(round(a, 3) for a in pose.angles_of(pose.rotation_of(source.landmarks)))),
        detector=FINDER,
        landmarker=FINDER,
        score=1.0,
        polygons=_polygons(data.get("seg_ie_polys")),
        mask=_mask(data.get("xseg_mask")),
    )


def read_face_data(content: bytes) -> tuple[bytes | None, dict[str, FaceType]]:
    """(the pickle in a picture, None without one; what the face types in it mean)."""
    if content.startswith(png.SIGNATURE):
        return next(
            (data for kind, data in png.chunks(content) if kind == DATA_CHUNK), None
        ), OF_2018
    if not content.startswith(b"\xff\xd8"):
        raise ValueError("neither a JPEG nor a PNG")
    position, found = 2, None
    while position + 4 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        length = int.from_bytes(content[position + 2 : position + 4], "big")
        if marker == START_OF_SCAN:
            break
        segment = content[position + 4 : position + 2 + length]
        if marker == DATA_SEGMENT and segment.startswith(b"\x80"):
            found = segment
        position += 2 + max(2, length)
    return found, OF_2_0


def _source(
    data: dict[str, Any],
    name: str,
    landmarks: np.ndarray,
    frames: Path | None,
    image: np.ndarray,
    face_type: FaceType,
) -> Source:
    """Where a face comes from, as far as its data and the `frames` tell."""
    file = _base_name(data.get("source_filename")) or name
    if data.get("source_landmarks") is not None:
        points = _points(data["source_landmarks"], "source_landmarks")
    elif data.get("image_to_face_mat") is not None:
        matrix = foreign.numbers(_plain(data["image_to_face_mat"]), "image_to_face_mat", (2, 3))
        if abs(np.linalg.det(matrix[:, :2])) < 1e-9:
            raise ValueError("image_to_face_mat cannot be inverted")
        points = transform(invert(matrix), landmarks)
    elif face_type is FaceType.MARK_ONLY:
        points = landmarks
    else:
        raise ValueError("neither source_landmarks nor image_to_face_mat")
    box = (*points.min(0).tolist(), *points.max(0).tolist())
    rect = data.get("source_rect")
    if rect is not None:
        sides = foreign.listing(_plain(rect), "source_rect", 4)
        box = tuple(foreign.number(side, "source_rect") for side in sides)
    number = LAST_NUMBER.search(Path(file).stem)
    if face_type is FaceType.MARK_ONLY:
        height, width = image.shape[:2]
    else:
        width, height = (frames and picture.size(frames / file)) or _least_size(points)
    return Source(file, int(number[1]) if number else 0, None, width, height, box, points)


def _least_size(points: np.ndarray) -> tuple[int, int]:
    """(width, height) of the smallest frame that has all `points`."""
    width, height = (int(np.clip(math.ceil(end) + 1, 1, 1 << 17)) for end in points.max(0))
    return width, height


def _points(value: Any, name: str) -> np.ndarray:
    return foreign.numbers(_plain(value), name, (68, 2))


def _plain(value: Any) -> Any:
    """Arrays and tuples, and those in a list, as lists."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _polygons(value: Any) -> tuple[Polygon, ...]:
    """The areas of seg_ie_polys; those of less than three points are none."""
    if value is None:
        return ()
    areas = value.get("polys") if isinstance(value, dict) else value
    found = []
    for area in foreign.listing(areas, "seg_ie_polys"):
        kind, points = (
            (area.get("type"), area.get("pts"))
            if isinstance(area, dict)
            else foreign.listing(_plain(area), "a polygon", 2)
        )
        kind = foreign.integer(kind, "the type of a polygon", 0, 1)
        points = foreign.listing(_plain(points), "the points of a polygon")
        if len(points) >= 3:
            points = foreign.numbers(points, "the points of a polygon", (len(points), 2))
            found.append(Polygon(kind == 1, points))
    return tuple(found)


def _mask(value: Any) -> bytes | None:
    """The mask as an 8-bit gray PNG; a larger one than a face may have is averaged down."""
    if value is None:
        return None
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8:
        raise ValueError("xseg_mask is no array of bytes")
    image = picture.decode(value.tobytes()).image
    if image.dtype != np.uint8:
        raise ValueError(f"xseg_mask of {image.dtype}")
    gray = image[..., 0]
    if max(gray.shape) > MAX_MASK:
        gray = cv2.resize(gray, (MAX_MASK, MAX_MASK), interpolation=cv2.INTER_AREA)
    return png.encode(np.ascontiguousarray(gray))


# ------------------------------------------------------------------------------------ back to DFL


def export_faces(files: list[Path], folder: Path) -> tuple[int, list[BadFileError]]:
    """Writes the aligned PNGs `files` to `folder` as DeepFaceLab's: see `encode_face`.

    `folder` must be empty or not be there; it appears once all is written. Returns (how many,
    errors of the others). Raises UserError when there is none to write.
    """
    require_empty(folder)

    def write(path: Path) -> None:
        try:
            suffix, content = encode_face(*aligned_png.read_image_and_face(path))
        except ValueError as error:
            raise BadFileError(path, str(error)) from error
        (temporary / f"{path.stem}{suffix}").write_bytes(content)

    with atomic.replacing_folder(folder) as temporary:
        written, bad = read_files(files, write, "exporting")
        if not written:
            raise UserError(f"{folder}: nothing to write; the last: {bad[-1]}")
    return len(written), bad


def encode_face(image: np.ndarray, face: FaceData) -> tuple[str, bytes]:
    """(".jpg" or ".png", the file) of an aligned picture uint8 RGB, as DeepFaceLab has it.

    Faces that are cut as DeepFaceLab 2.0 does become JPEGs, those of 2018 PNGs; what each of them
    calls a full face is not the same. Points, polygons and mask go along. Raises ValueError for a
    face type that neither has, and for data that a JPEG has no room for.
    """
    for types, write in ((OF_2_0, _jpeg), (OF_2018, _png)):
        names = {ours: theirs for theirs, ours in types.items()}
        if face.face_type in names:
            data = _exported(face) | {"face_type": names[face.face_type]}
            return write(np.ascontiguousarray(image), b"".join(pickles.encode(data)))
    raise ValueError(f"a {face.face_type} face, which DeepFaceLab does not have")


def _jpeg(image: np.ndarray, data: bytes) -> tuple[str, bytes]:
    if len(data) > MAX_SEGMENT:
        raise ValueError(
            f"polygons and mask of {len(data):,} bytes; DeepFaceLab's JPEGs hold {MAX_SEGMENT:,}"
        )
    content = simplejpeg.encode_jpeg(image, QUALITY, "RGB", "444")
    end = 2
    while FIRST_SEGMENT <= content[end + 1] <= DATA_SEGMENT:
        end += 2 + int.from_bytes(content[end + 2 : end + 4], "big")
    marker = struct.pack(">BBH", 0xFF, DATA_SEGMENT, len(data) + 2)
    return ".jpg", content[:end] + marker + data + content[end:]


def _png(image: np.ndarray, data: bytes) -> tuple[str, bytes]:
    return ".png", png.with_chunk(png.encode(image), DATA_CHUNK, data)


def _exported(face: FaceData) -> dict[str, Any]:
    """What DeepFaceLab notes of a face, but for its type."""
    source = face.source
    is_frame = source.pts is not None  # of a clip, whose first one is 00001.png there
    data: dict[str, Any] = {
        "landmarks": face.landmarks.tolist(),
        "source_filename": f"{source.frame + 1:05d}.png" if is_frame else source.file,
        "source_rect": np.rint(source.rect).astype(np.int64),
        "source_landmarks": source.landmarks.tolist(),
        "eyebrows_expand_mod": 1.0,
    }
    if face.face_type is not FaceType.MARK_ONLY:
        data["image_to_face_mat"] = umeyama(source.landmarks, face.landmarks)
    if face.polygons:
        polygons = [
            {"type": int(area.include), "pts": area.points.astype(np.float32)}
            for area in face.polygons
        ]
        data["seg_ie_polys"] = {"polys": polygons}
    if face.mask is not None:
        data["xseg_mask"] = np.frombuffer(_small_enough(face.mask), np.uint8)
    return data


def _small_enough(mask: bytes) -> bytes:
    """The gray PNG `mask`, or the same picture as a JPEG where it has more than MAX_MASK_PNG."""
    if len(mask) <= MAX_MASK_PNG:
        return mask
    gray = np.ascontiguousarray(png.decode(mask)[..., :1])
    return simplejpeg.encode_jpeg(gray, MASK_QUALITY, "GRAY")
