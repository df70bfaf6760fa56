"""What extraction writes: aligned faces, and beside their folder what a person looks at.

Faces of automatic and manual extraction are cropped, named and written here. Beside them are two
lists, of the frames without a face and of the faces left out, and with `debug=true` a picture of
every frame.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from odfs_jax.data import atomic
from odfs_jax.data.aligned_png import FaceData, Pose, Source, write_face
from odfs_jax.data.lock import locked
from odfs_jax.data.media.frames import Frame
from odfs_jax.extraction.detection import Detection
from odfs_jax.extraction.journal import RUN, Done, Dropped, ExtractionJournal
from odfs_jax.faces import affine, align, pose
from odfs_jax.faces.crop import crop_face
from odfs_jax.faces.types import FaceType

MANUAL = "manual"  # the detector, landmarker and run of faces that a person placed

NO_FACE = "no_face.txt"
LEFT_OUT = "left_out.txt"
BOX_COLOR, POINTS_COLOR = (60, 110, 255), (0, 230, 60)  # RGB
SQUARE_COLOR, DROPPED_COLOR = (255, 50, 50), (255, 160, 0)
FONT, SUBPIXEL = cv2.FONT_HERSHEY_SIMPLEX, 4  # bits behind the binary point of OpenCV's coordinates
MAX_SIDE = 1920  # pixels of the longer side of a debug picture


def aligned_face(
    frame: Frame,
    detection: Detection,
    face_type: FaceType,
    size: int,
    detector: str,
    extra: dict[str, Any],
) -> tuple[np.ndarray, FaceData]:
    """The aligned picture (uint8 RGB [size,size,3]) of one detection, and its data with `extra`.

    The landmarks must be there. `mark_only` gives the whole frame, whatever the `size`. Raises
    ValueError when the points cannot be those of a face.
    """
    landmarks = detection.landmarks
    matrix = align.alignment_matrix(landmarks, face_type, size)
    if not np.isfinite(matrix).all() or not np.isfinite(landmarks).all():
        raise ValueError("points of no face")
    whole = face_type is FaceType.MARK_ONLY
    angles = pose.angles_of(pose.rotation_of(landmarks))
    data = FaceData(
        face_type=face_type,
        size=max(frame.image.shape[:2]) if whole else size,
        landmarks=affine.transform(matrix, landmarks),
        source=_source_of(frame, detection),
        pose=Pose(*(round(angle, 3) for angle in angles)),
        detector=detector,
        landmarker=detection.landmarker,
        score=round(detection.score, 5),
        extra=extra,
    )
    return frame.image if whole else crop_face(frame.image, matrix, size), data


def _source_of(frame: Frame, detection: Detection) -> Source:
    height, width, _ = frame.image.shape
    return Source(
        file=frame.file,
        frame=frame.index,
        pts=frame.pts,
        width=width,
        height=height,
        rect=detection.rect,
        landmarks=detection.landmarks,
    )


def write_faces(
    folder: Path,
    frame: Frame,
    faces: Iterable[Detection],
    face_type: FaceType,
    size: int,
    detector: str,
    extra: dict[str, Any],
    avoid: frozenset[str] = frozenset(),
) -> list[Path]:
    """Writes an aligned PNG `<frame>_<k>.png` for each face, k = 0 the first.

    Landmarks must be there. A name in `avoid` is passed over; any other file of that name is
    replaced. Raises ValueError for points that are no face.
    """
    paths: list[Path] = []
    crops = [
        aligned_face(frame, face, face_type, size, detector, extra | face.extra) for face in faces
    ]
    number = 0
    for image, data in crops:
        while (name := f"{frame.index:05d}_{number}.png") in avoid:
            number += 1
        number += 1
        paths.append(folder / name)
        write_face(paths[-1], image, data)
    return paths


def accept_faces(
    folder: Path,
    frame: Frame,
    landmarks: Sequence[np.ndarray],
    face_type: FaceType,
    size: int,
    landmarker: str = MANUAL,
) -> list[Path]:
    """Adds what a person accepted in `frame` to the aligned `folder`; the PNGs written.

    Manual extraction goes through this function. `landmarks` are [68,2] a face, in pixels of
    `frame.image` (as everywhere, 0 is the center of the first pixel), found by `landmarker` or
    dragged by hand. The faces are cropped and written as in automatic extraction; they carry
    `detector: manual`, score 1 and the points' own box. No PNG in the folder is replaced. The
    frame, also with an empty list, is noted as finished and seen: it is no longer doubtful, and no
    later run of `extract.py` without overwrite=true touches it. Nothing is lost if the process is
    killed.

    Raises ValueError, with nothing written, when points coincide or are not finite; BadFileError
    when the folder's journal is damaged; OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    faces = [Detection(_box(points), None, 1.0, points, landmarker) for points in landmarks]
    with locked(folder, "placing faces by hand"):
        journal = ExtractionJournal.read(folder)
        taken = frozenset(path.name for path in folder.glob("*.png"))
        extra = {RUN: MANUAL}
        paths = write_faces(folder, frame, faces, face_type, size, MANUAL, extra, taken)
        journal.add(Done(frame.file, frame.index, frame.pts, len(paths), seen=True))
    return paths


def _box(points: np.ndarray) -> np.ndarray:
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


@dataclass(frozen=True)
class Lists:
    """How many frames have no face, and where these and the faces left out are listed."""

    count: int
    path: Path
    dropped: Path


def write_lists(journal: ExtractionJournal, is_folder: bool) -> Lists:
    """Writes both lists from the whole `journal`, in place of older ones.

    no_face.txt: a frame a line, its number or (`is_folder`) its name. left_out.txt: a face a line:
    the frame, the reason, the box (left, top, right, bottom; pixels) and the score, between tabs.
    """
    folder = journal.folder.parent
    frames = sorted(journal.frames.values(), key=lambda done: done.frame)
    empty = [done for done in frames if not done.faces]
    _write(folder / NO_FACE, [_name(done, is_folder) for done in empty])
    lines = [
        "\t".join(
            (
                _name(done, is_folder),
                face.reason,
                " ".join(f"{edge:g}" for edge in face.rect),
                f"{face.score:g}",
            )
        )
        for done in frames
        for face in done.dropped
    ]
    _write(folder / LEFT_OUT, lines)
    return Lists(len(empty), folder / NO_FACE, folder / LEFT_OUT)


def _write(path: Path, lines: list[str]) -> None:
    atomic.write_text(path, "".join(f"{line}\n" for line in lines))


def _name(done: Done, is_folder: bool) -> str:
    return done.file if is_folder else str(done.frame)


def debug_folder(aligned: Path) -> Path:
    """`<aligned>_debug` beside the folder `aligned`."""
    return aligned.with_name(f"{aligned.name}_debug")


def write_debug_picture(
    folder: Path, frame: Frame, faces: list[Detection], dropped: list[Dropped], face_type: FaceType
) -> None:
    """Writes `<frame>.jpg` into `folder`: the frame with its faces and those `dropped` drawn in."""
    picture = debug_picture(frame.image, faces, dropped, face_type)
    _, content = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    atomic.write_bytes(folder / f"{frame.index:05d}.jpg", content.tobytes())


def debug_picture(
    image: np.ndarray, faces: list[Detection], dropped: list[Dropped], face_type: FaceType
) -> np.ndarray:
    """`image` (uint8 RGB [H,W,3]), at most MAX_SIDE pixels long, with its faces drawn in.

    Box blue with the score, points green, the square of the aligned picture red; a face left out:
    its box orange, with the score and the reason.
    """
    scale = min(1.0, MAX_SIDE / max(image.shape[:2]))
    picture = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    pen = max(1, round(max(picture.shape[:2]) / 700))
    for face in faces:
        _rectangle(picture, face.box * scale, BOX_COLOR, pen)
        if face_type is not FaceType.MARK_ONLY:
            matrix = affine.invert(align.alignment_matrix(face.landmarks, face_type, 1))
            corners = affine.transform(matrix, np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]))
            square = _fixed(corners * scale)
            cv2.polylines(picture, [square], True, SQUARE_COLOR, pen, cv2.LINE_AA, SUBPIXEL)
        for point in face.landmarks * scale:
            cv2.circle(picture, _fixed(point).tolist(), (pen + 1) << SUBPIXEL, POINTS_COLOR, -1,
                       cv2.LINE_AA, SUBPIXEL)  # fmt: skip
        _label(picture, face.box[:2] * scale, f"{face.score:.2f}", BOX_COLOR, pen)
    for face in dropped:
        box = np.array(face.rect) * scale
        _rectangle(picture, box, DROPPED_COLOR, pen)
        _label(picture, box[:2], f"{face.score:.2f} left out: {face.reason}", DROPPED_COLOR, pen)
    return picture


def _rectangle(picture: np.ndarray, box: np.ndarray, color: tuple, pen: int) -> None:
    low, high = _fixed(box[:2]).tolist(), _fixed(box[2:]).tolist()
    cv2.rectangle(picture, low, high, color, pen, cv2.LINE_AA, SUBPIXEL)


def _label(picture: np.ndarray, corner: np.ndarray, text: str, color: tuple, pen: int) -> None:
    """`text` above `corner`, moved inside the picture, on a dark ground."""
    size = 0.42 * pen
    (width, height), base = cv2.getTextSize(text, FONT, size, pen)
    x = int(np.clip(corner[0], 0, max(0, picture.shape[1] - width)))
    y = int(np.clip(corner[1] - base - pen, height + base, picture.shape[0] - base))
    cv2.rectangle(picture, (x, y - height - 2), (x + width, y + base), (20, 20, 20), -1)
    cv2.putText(picture, text, (x, y), FONT, size, color, pen, cv2.LINE_AA)


def _fixed(points: np.ndarray) -> np.ndarray:
    """`points` as OpenCV's fixed-point integers; those far outside the picture are clipped."""
    return np.rint(np.clip(points, -30_000, 30_000) * (1 << SUBPIXEL)).astype(np.int32)
