"""`python scripts/faceset.py data=src action=summary`, or verify, pack, unpack.

A packed faceset is a zip whose members are the aligned PNGs, stored as they are: PNGs do not
compress, and stored members cannot be zip bombs. What comes out of a zip is data from outside:
names and contents are checked, nothing is overwritten.
"""

import errno
import logging
import struct
import zipfile
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from omegaconf import DictConfig

from odfs_jax.curation.measures import brightness, sharpness
from odfs_jax.curation.similarity import group_people
from odfs_jax.data import atomic, foreign
from odfs_jax.data.aligned_png import MAX_BYTES, FaceData, read_image_and_face
from odfs_jax.data.lock import locked, require_empty
from odfs_jax.data.media import png
from odfs_jax.data.parallel import read_files
from odfs_jax.data.workspace import aligned_files
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.faces.identity import embedding
from odfs_jax.runtime.output import say
from odfs_jax.runtime.progress import progress

log = logging.getLogger(__name__)

YAW, PITCH, BIN = 90, 60, 10  # degrees: the picture shows -YAW..YAW by -PITCH..PITCH
CELL, MARGIN, EDGE = 40, 56, 16  # pixels: of a bin, left and below for the labels, right and above
FONT = cv2.FONT_HERSHEY_SIMPLEX


def faceset(config: DictConfig) -> None:
    """Summarizes, verifies, packs or unpacks every side of a `FacesetConfig`. Raises UserError."""
    if config.action not in ACTIONS:
        raise UserError(f"action={config.action}: expected one of {', '.join(ACTIONS)}")
    if config.file is not None and len(config.data.sides) > 1:
        raise UserError(f"file={config.file}: one file for one side; choose data=src or data=dst")
    for side in config.data.sides:
        ACTIONS[config.action](Path(config.data[side].aligned), side, config)


def _summary(folder: Path, side: str, config: DictConfig) -> None:
    faces, bad = measure_faces(aligned_files(folder, side), config.people)
    for error in bad:
        log.warning("skipped: %s", error)
    if not faces:
        raise UserError(f"{folder}: none of its {len(bad)} PNG files is an aligned face")
    chart = Path(config.workspace) / f"{side}_poses.png"
    atomic.write_bytes(chart, png.encode(pose_chart(faces)))
    say(str(folder), *summarize(faces, len(bad)), f"poses        {chart}")


def _verify(folder: Path, side: str, config: DictConfig) -> None:
    files = aligned_files(folder, side)
    _, bad = measure_faces(files, people=False)
    for error in bad:
        say(f"bad: {error}")
    if bad:
        raise UserError(f"{folder}: {len(bad)} of {len(files)} PNG files are not whole faces")
    say(f"{folder}: {len(files)} faces, all whole")


def _pack(folder: Path, side: str, config: DictConfig) -> None:
    path = _archive_path(side, config)
    aligned_files(folder, side)  # raises when there is nothing to pack
    with locked(folder, "packing faces"):
        packed, bad = pack(aligned_files(folder, side), path)
    for error in bad:
        log.warning("not packed: %s", error)
    say(f"{path}: {packed} faces, {path.stat().st_size / 1e6:.1f} MB")


def _unpack(folder: Path, side: str, config: DictConfig) -> None:
    path = _archive_path(side, config)
    unpacked, bad = unpack(path, folder)
    for error in bad:
        log.warning("not unpacked: %s", error)
    say(f"{folder}: {unpacked} faces, {len(bad)} members of {path} left out")


def _archive_path(side: str, config: DictConfig) -> Path:
    return Path(config.file or Path(config.workspace) / f"{side}_faces.zip")


ACTIONS = {"summary": _summary, "verify": _verify, "pack": _pack, "unpack": _unpack}


@dataclass(frozen=True)
class MeasuredFace:
    """A readable face and its measures; `embedding` is float32 [128], None when not computed."""

    data: FaceData
    sharpness: float
    brightness: float
    embedding: np.ndarray | None


def measure_faces(files: list[Path], people: bool) -> tuple[list[MeasuredFace], list[BadFileError]]:
    """(the faces among `files`, the errors of the others).

    With `people` their embeddings are computed too, which is slow.
    """
    measured, bad = read_files(files, partial(_measure, people=people), "reading faces")
    return [face for _, face in measured], bad


def summarize(faces: list[MeasuredFace], bad: int) -> list[str]:
    """Lines `name  value`; measures as their 5th, 50th and 95th percentile."""
    data = [face.data for face in faces]
    lines = {
        "faces": f"{len(faces)}, {bad} files that are not faces",
        "kinds": _counts(f"{d.face_type} {d.shape[1]}x{d.shape[0]}" for d in data),
        "sources": _counts(d.source.file if d.source.pts is not None else "pictures" for d in data),
        "yaw": _percentiles([d.pose.yaw for d in data]) + " degrees",
        "pitch": _percentiles([d.pose.pitch for d in data]) + " degrees",
        "sharpness": _percentiles([face.sharpness for face in faces]),
        "brightness": _percentiles([face.brightness for face in faces]),
    }
    embeddings = [face.embedding for face in faces if face.embedding is not None]
    if embeddings:
        sizes = [len(group) for group in group_people(np.stack(embeddings))]
        several = [str(size) for size in sizes if size > 1]
        lines["people"] = f"{len(several)} with {', '.join(several) or 'no'} faces"
        lines["people"] += f"; {len(sizes) - len(several)} faces like no other"
    return [f"{name:<12} {value}" for name, value in lines.items()]


def pose_chart(faces: list[MeasuredFace]) -> np.ndarray:
    """uint8 RGB [H, W, 3]: how many faces have which yaw (to the right) and pitch (up), in bins."""
    poses = np.array([(face.data.pose.pitch, face.data.pose.yaw) for face in faces])
    limits = np.array([PITCH, YAW])
    place = np.floor(np.clip(poses + limits, 0, 2 * limits - 1) / BIN).astype(int)
    counts = np.zeros(2 * limits // BIN, int)
    np.add.at(counts, tuple(place.T), 1)
    counts = counts[::-1]  # looking up is at the top
    rows, columns = counts.shape
    bottom, right = EDGE + rows * CELL, MARGIN + columns * CELL
    picture = np.full((bottom + MARGIN, right + EDGE, 3), 255, np.uint8)
    for (row, column), count in np.ndenumerate(counts):
        left, top = MARGIN + column * CELL, EDGE + row * CELL
        shade = 1 - np.log1p(count) / np.log1p(counts.max())
        color = (int(60 + 195 * shade), int(110 + 145 * shade), 255)
        cv2.rectangle(picture, (left, top), (left + CELL, top + CELL), color, cv2.FILLED)
        cv2.rectangle(picture, (left, top), (left + CELL, top + CELL), (225, 225, 225))
        if count:
            _put_text(picture, str(count), (left + 4, top + 24))
    for column, yaw in enumerate(range(-YAW, YAW + 1, BIN)):
        _put_text(picture, str(yaw), (MARGIN + column * CELL - 12, bottom + 20))
    for row, pitch in enumerate(range(PITCH, -PITCH - 1, -BIN)):
        _put_text(picture, str(pitch), (18, EDGE + row * CELL + 5))
    _put_text(picture, "yaw (right +), pitch (up +), degrees", (MARGIN, bottom + 44))
    return picture


def _measure(path: Path, people: bool) -> MeasuredFace:
    image, data = read_image_and_face(path)
    who = embedding(image, data.landmarks) if people else None
    return MeasuredFace(data, sharpness(image), brightness(image), who)


def _counts(names) -> str:
    return ", ".join(f"{count} {name}" for name, count in Counter(names).most_common())


def _percentiles(values: list[float]) -> str:
    return " / ".join(f"{value:.0f}" for value in np.percentile(values, (5, 50, 95)))


def _put_text(picture: np.ndarray, text: str, place: tuple[int, int]) -> None:
    cv2.putText(picture, text, place, FONT, 0.4, (40, 40, 40), 1, cv2.LINE_AA)


def pack(files: list[Path], path: Path) -> tuple[int, list[BadFileError]]:
    """Writes the faces among `files` to the zip `path`; returns (how many, errors of the others).

    Raises UserError when `path` exists, or when there is no face.
    """
    if path.exists():
        raise UserError(f"{path}: exists already; move it, or give another file=")
    packed, bad = 0, []
    with atomic.replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as members:
        for file in progress(files, len(files), "packing", "face"):
            try:
                read_image_and_face(file)
            except BadFileError as error:
                bad.append(error)
                continue
            members.writestr(zipfile.ZipInfo(file.name), foreign.read_bytes(file, MAX_BYTES))
            packed += 1
        if not packed:
            raise UserError(f"{files[0].parent}: none of its {len(bad)} PNG files is a face")
    return packed, bad


def unpack(path: Path, folder: Path) -> tuple[int, list[BadFileError]]:
    """Writes the faces in the zip `path` to `folder`; returns (how many, errors of other members).

    All or nothing: `folder` appears once everything is unpacked. Raises UserError when it is not
    empty, or when `path` is no zip or has no face.
    """
    require_empty(folder)
    bad: list[BadFileError] = []
    try:
        with (
            foreign.open_regular(path) as file,
            zipfile.ZipFile(file) as members,
            atomic.replacing_folder(folder) as temporary,
        ):
            _refuse_overlaps(members)
            for info in progress(members.infolist(), len(members.infolist()), "unpacking", "face"):
                try:
                    _unpack_member(members, info, path, temporary)
                except BadFileError as error:
                    bad.append(error)
            unpacked = len(list(temporary.iterdir()))
            if not unpacked:
                raise UserError(f"{path}: none of its {len(bad)} members is an aligned face")
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        raise UserError(f"{path}: not a zip that can be read ({error})") from error
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # another process was faster
            raise UserError(f"{folder}: not empty any more; nothing was unpacked") from error
        if error.errno != errno.EINVAL:  # a damaged zip makes zipfile seek before its beginning
            raise
        raise UserError(f"{path}: not a zip that can be read (wrong offsets)") from error
    return unpacked, bad


def _refuse_overlaps(members: zipfile.ZipFile) -> None:
    """Raises BadZipFile unless every member has bytes of the zip for itself.

    So no more comes out than the zip holds. Python looks at that since 3.11.8, 3.12.2.
    """
    end = members.start_dir
    for info in sorted(members.infolist(), key=lambda info: info.header_offset, reverse=True):
        # A local header has at least 30 bytes and the name.
        if info.header_offset + 30 + len(info.orig_filename) + info.compress_size > end:
            raise zipfile.BadZipFile(f"overlapping members, {foreign.shown(info.filename)}")
        end = info.header_offset


def _unpack_member(
    members: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, folder: Path
) -> None:
    """Writes one face to `folder`. Raises BadFileError, and then leaves no file."""
    where, name = f"{path}: {foreign.shown(info.filename, 80)}", info.filename
    try:
        foreign.plain_name(name, "name")
    except ValueError as error:
        raise BadFileError(where, "not the plain name of a PNG") from error
    if "\\" in name or name.startswith(".") or not name.lower().endswith(".png"):
        raise BadFileError(where, "not the plain name of a PNG")
    is_stored = info.compress_type == zipfile.ZIP_STORED and info.file_size == info.compress_size
    if not is_stored or info.file_size > MAX_BYTES:
        raise BadFileError(where, f"not a stored file of at most {MAX_BYTES} bytes")
    target = folder / name
    if target.exists():
        raise BadFileError(where, "a second file of this name")
    try:
        target.write_bytes(members.read(info))
        read_image_and_face(target)
    except (zipfile.BadZipFile, RuntimeError, EOFError, UnicodeError) as error:
        raise BadFileError(where, f"cannot be read ({error})") from error
    except BadFileError as error:
        target.unlink()
        raise BadFileError(where, error.reason) from error
