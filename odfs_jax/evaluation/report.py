"""The figures of an evaluation as a table and its frames as a picture sheet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

EYE_POINTS = slice(36, 48)
LABEL = 28  # pixels of the line with the names of the columns


@dataclass(frozen=True)
class Figure:
    """One line of the table: what it says, which way is better, and what can fake it."""

    key: str
    label: str
    best: str  # "high", "low" or "one"
    faked_by: str  # the blanks that can win it; "": none


# The leading ones first: those that a blank does not win, or wins only by leaving src out.
FIGURES = (
    Figure("eyes_registered", "eyes SSIM, registered", "high", ""),
    Figure("mouth_registered", "mouth SSIM, registered", "high", ""),
    Figure("gmsd", "GMSD", "low", ""),
    Figure("sharpness", "sharpness, of the truth's", "one", "dst"),
    Figure("identity", "nearer to src than to dst", "high", ""),
    Figure("to_src", "distance to src", "low", ""),
    Figure("to_dst", "distance to dst", "high", "flat"),
    Figure("spill", "spill", "low", "flat"),
    Figure("eyes_placement", "placement error at the eyes, px", "low", "dst, flat"),
    Figure("mouth_placement", "placement error at the mouth, px", "low", "dst, flat"),
    Figure("hull_placement", "placement error in the hull, px", "low", "dst, flat"),
    Figure("ssim", "SSIM", "high", "flat"),
    Figure("hull_registered", "SSIM, registered", "high", "flat"),
    Figure("eyes_ssim", "eyes SSIM", "high", "dst"),
    Figure("mouth_ssim", "mouth SSIM", "high", "flat"),
    Figure("error", "mean absolute error", "low", "dst"),
    Figure("error_matched", "the same, means matched", "low", "dst"),
    Figure("correlation", "luma correlation", "high", ""),
    Figure("pose", "pose error, degrees", "low", "dst"),
    Figure("eyes_follow", "eyelids follow dst's", "high", "dst"),
    Figure("mouth_follows", "mouth follows dst's", "high", "dst"),
    Figure("landmarks", "landmark error, of the eye distance", "low", "dst"),
    Figure("flicker", "flicker, of dst's", "low", "dst"),
    Figure("jitter", "jitter, of dst's", "low", "dst"),
    Figure("seam", "seam, of dst's", "one", "dst"),
    Figure("outside_changed", "changed outside the face, share", "low", "dst, flat"),
    Figure("outside_error", "error outside the face", "low", "dst, flat"),
)
BLANKS = ("dst", "flat")
COLUMNS = {
    "swap": "swap",
    "dst": "dst untouched",
    "flat": "flat face",
    "truth": "truth in dst",
    "blur_1": "truth, sigma 1",
    "blur_1.5": "sigma 1.5",
    "blur_3": "sigma 3",
    "shifted": "shifted 2, 2",
}
Values = Mapping[str, Mapping[str, float | None]]


def table(values: Values) -> str:
    """A Markdown table, one line a figure; `values` are `values[column][figure key]`.

    A figure that no column has is left out, and so is a column without figures. "*" marks a blank
    that is at least as good as the swap. Columns are padded, so the table reads as plain text too.
    """
    columns = [name for name in COLUMNS if values.get(name)]
    lines = [["", *(COLUMNS[name] for name in columns), "better", "a blank can win"]]
    for figure in FIGURES:
        cells = [_cell(figure, name, values) for name in columns]
        if any(cells):
            best = {"one": "near 1"}.get(figure.best, figure.best)
            lines.append([figure.label, *cells, best, figure.faked_by])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rows = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
    rule = "| " + " | ".join("-" * max(width, 3) for width in widths) + " |"
    return "\n".join([rows[0], rule, *rows[1:]]) + "\n"


def is_as_good(figure: Figure, value: float, other: float) -> bool:
    """True when `value` is at least as good as `other`."""
    if figure.best == "one":
        return abs(value - 1) <= abs(other - 1)
    return value <= other if figure.best == "low" else value >= other


def sheet(
    columns: Sequence[str],
    rows: Sequence[tuple[Sequence[np.ndarray], np.ndarray]],
    size: int,
) -> np.ndarray:
    """A picture of the same frames seen several ways: each face, and below it its eyes enlarged.

    A row is (uint8 RGB pictures, one for each of `columns`; landmarks [68, 2] of the face, by which
    all of them are cut alike). Faces are `size` pixels wide. Returns uint8 RGB.
    """
    header = np.full((LABEL, size * len(columns), 3), 255, np.uint8)
    for column, label in enumerate(columns):
        place, font = (column * size + 8, LABEL - 8), cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(header, label, place, font, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([header, *(side_by_side(*row, size) for row in rows)])


def side_by_side(images: Sequence[np.ndarray], landmarks: np.ndarray, size: int) -> np.ndarray:
    """uint8 RGB [size + size // 3, size * n, 3]: the face in each of n pictures, above its eyes.

    The face is the square around all `landmarks` [68, 2], a fifth larger; the eyes are cut three
    times as wide as high.
    """
    eyes = landmarks[EYE_POINTS]
    middle = (eyes.min(0) + eyes.max(0)) / 2
    half = 0.65 * float(np.ptp(eyes[:, 0]))
    face_middle = (landmarks.min(0) + landmarks.max(0)) / 2
    face_half = 0.6 * float(np.ptp(landmarks, 0).max())
    faces = [_cut_out(image, face_middle, face_half, (size, size)) for image in images]
    strips = [_cut_out(image, middle, half, (size, size // 3)) for image in images]
    return np.vstack([np.hstack(faces), np.hstack(strips)])


def _cell(figure: Figure, column: str, values: Values) -> str:
    value, swap = values[column].get(figure.key), values.get("swap", {}).get(figure.key)
    if value is None:
        return ""
    beats = column in BLANKS and swap is not None and is_as_good(figure, value, swap)
    return f"{value:.3f}{'*' if beats else ''}"


def _cut_out(
    image: np.ndarray, middle: np.ndarray, half: float, size: tuple[int, int]
) -> np.ndarray:
    """What lies `half` pixels to each side of `middle` (x, y), scaled to `size` (width, height)."""
    scale = size[0] / (2 * max(half, 1.0))
    shift = np.array(size) / 2 - scale * middle
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    flags = cv2.INTER_CUBIC
    return cv2.warpAffine(image, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
