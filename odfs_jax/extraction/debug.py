"""`debug=true`: a picture of every frame with what was found in it, and why it was left out."""

from pathlib import Path

import cv2
import numpy as np

from odfs_jax.data import atomic
from odfs_jax.data.media.frames import Frame
from odfs_jax.extraction.detection import Detection
from odfs_jax.extraction.journal import Dropped
from odfs_jax.faces import align
from odfs_jax.faces.types import FaceType

BOX, POINTS, SQUARE, LEFT_OUT = (60, 110, 255), (0, 230, 60), (255, 50, 50), (255, 160, 0)  # RGB
FONT, SUBPIXEL = cv2.FONT_HERSHEY_SIMPLEX, 4  # bits behind the binary point of OpenCV's coordinates
MOST = 1920  # pixels of the longer side


def debug_folder(aligned: Path) -> Path:
    """`<aligned>_debug` beside the folder `aligned`."""
    return aligned.with_name(f"{aligned.name}_debug")


def write_debug_picture(
    folder: Path, frame: Frame, faces: list[Detection], dropped: list[Dropped], face_type: FaceType
) -> None:
    """Writes `<frame>.jpg`: see `debug_picture`."""
    picture = debug_picture(frame.image, faces, dropped, face_type)
    _, content = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    atomic.write_bytes(folder / f"{frame.index:05d}.jpg", content.tobytes())


def debug_picture(
    image: np.ndarray, faces: list[Detection], dropped: list[Dropped], face_type: FaceType
) -> np.ndarray:
    """`image` (uint8 RGB [H,W,3]), at most MOST pixels long, with its faces drawn in.

    Box blue with the score, points green, the square of the aligned picture red; a face left out:
    its box orange, with the score and the reason.
    """
    scale = min(1.0, MOST / max(image.shape[:2]))
    picture = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    pen = max(1, round(max(picture.shape[:2]) / 700))
    for face in faces:
        _rectangle(picture, face.box * scale, BOX, pen)
        if face_type is not FaceType.MARK_ONLY:
            matrix = align.invert(align.alignment_matrix(face.landmarks, face_type, 1))
            corners = align.transform(matrix, np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]))
            square = _fixed(corners * scale)
            cv2.polylines(picture, [square], True, SQUARE, pen, cv2.LINE_AA, SUBPIXEL)
        for point in face.landmarks * scale:
            cv2.circle(picture, _fixed(point).tolist(), (pen + 1) << SUBPIXEL, POINTS, -1,
                       cv2.LINE_AA, SUBPIXEL)  # fmt: skip
        _label(picture, face.box[:2] * scale, f"{face.score:.2f}", BOX, pen)
    for face in dropped:
        box = np.array(face.rect) * scale
        _rectangle(picture, box, LEFT_OUT, pen)
        _label(picture, box[:2], f"{face.score:.2f} left out: {face.reason}", LEFT_OUT, pen)
    return picture


def _rectangle(picture: np.ndarray, box: np.ndarray, colour: tuple, pen: int) -> None:
    low, high = _fixed(box[:2]).tolist(), _fixed(box[2:]).tolist()
    cv2.rectangle(picture, low, high, colour, pen, cv2.LINE_AA, SUBPIXEL)


def _label(picture: np.ndarray, corner: np.ndarray, text: str, colour: tuple, pen: int) -> None:
    """`text` above `corner`, moved inside the picture, on a dark ground."""
    size = 0.42 * pen
    (width, height), base = cv2.getTextSize(text, FONT, size, pen)
    x = int(np.clip(corner[0], 0, max(0, picture.shape[1] - width)))
    y = int(np.clip(corner[1] - base - pen, height + base, picture.shape[0] - base))
    cv2.rectangle(picture, (x, y - height - 2), (x + width, y + base), (20, 20, 20), -1)
    cv2.putText(picture, text, (x, y), FONT, size, colour, pen, cv2.LINE_AA)


def _fixed(points: np.ndarray) -> np.ndarray:
    """Coordinates as OpenCV draws them between pixels; far outside ones are brought nearer."""
    return np.rint(np.clip(points, -30_000, 30_000) * (1 << SUBPIXEL)).astype(np.int32)
