"""What a faceset holds, in a few lines and one picture."""

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from odfs_jax.curation.measures import brightness, sharpness
from odfs_jax.curation.people import people
from odfs_jax.data.aligned_png import FaceData, read_image_and_face
from odfs_jax.data.parallel import read_files
from odfs_jax.errors import BadFileError
from odfs_jax.faces.identity import embedding

YAW, PITCH, BIN = 90, 60, 10  # degrees: the picture shows -YAW..YAW by -PITCH..PITCH
CELL, MARGIN, EDGE = 40, 56, 16  # pixels: of a bin, left and below for the labels, right and above
FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class Measured:
    """One whole face and what is said of it."""

    data: FaceData
    sharpness: float
    brightness: float
    embedding: np.ndarray | None


def read_faces(files: list[Path], people: bool) -> tuple[list[Measured], list[BadFileError]]:
    """(the faces among `files`, the errors of the others); `people` adds embeddings, slowly."""
    read, bad = read_files(files, partial(_measured, people=people), "reading faces")
    return [face for _, face in read], bad


def summary(faces: list[Measured], bad: int) -> str:
    """Lines `name  value` that end in a newline; of measures the 5th, 50th and 95th per cent."""
    data = [face.data for face in faces]
    lines = {
        "faces": f"{len(faces)}, {bad} files that are none",
        "kinds": _counts(f"{d.face_type} {d.shape[1]}x{d.shape[0]}" for d in data),
        "sources": _counts(d.source.file if d.source.pts is not None else "pictures" for d in data),
        "yaw": _spread([d.pose.yaw for d in data]) + " degrees",
        "pitch": _spread([d.pose.pitch for d in data]) + " degrees",
        "sharpness": _spread([face.sharpness for face in faces]),
        "brightness": _spread([face.brightness for face in faces]),
    }
    embeddings = [face.embedding for face in faces if face.embedding is not None]
    if embeddings:
        sizes = [len(group) for group in people(np.stack(embeddings))]
        several = [str(size) for size in sizes if size > 1]
        lines["people"] = f"{len(several)} with {', '.join(several) or 'no'} faces"
        lines["people"] += f"; {len(sizes) - len(several)} faces like no other"
    return "".join(f"{name:<12} {value}\n" for name, value in lines.items())


def pose_picture(faces: list[Measured]) -> np.ndarray:
    """uint8 RGB: how many faces have which yaw (to the right) and pitch (up), in bins of BIN."""
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
        colour = (int(60 + 195 * shade), int(110 + 145 * shade), 255)
        cv2.rectangle(picture, (left, top), (left + CELL, top + CELL), colour, cv2.FILLED)
        cv2.rectangle(picture, (left, top), (left + CELL, top + CELL), (225, 225, 225))
        if count:
            _write(picture, str(count), (left + 4, top + 24))
    for column, yaw in enumerate(range(-YAW, YAW + 1, BIN)):
        _write(picture, str(yaw), (MARGIN + column * CELL - 12, bottom + 20))
    for row, pitch in enumerate(range(PITCH, -PITCH - 1, -BIN)):
        _write(picture, str(pitch), (18, EDGE + row * CELL + 5))
    _write(picture, "yaw (right +), pitch (up +), degrees", (MARGIN, bottom + 44))
    return picture


def _measured(path: Path, people: bool) -> Measured:
    image, data = read_image_and_face(path)
    who = embedding(image, data.landmarks) if people else None
    return Measured(data, sharpness(image), brightness(image), who)


def _counts(names) -> str:
    return ", ".join(f"{count} {name}" for name, count in Counter(names).most_common())


def _spread(values: list[float]) -> str:
    return " / ".join(f"{value:.0f}" for value in np.percentile(values, (5, 50, 95)))


def _write(picture: np.ndarray, text: str, place: tuple[int, int]) -> None:
    cv2.putText(picture, text, place, FONT, 0.4, (40, 40, 40), 1, cv2.LINE_AA)
