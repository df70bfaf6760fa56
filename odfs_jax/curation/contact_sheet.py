"""A contact sheet of an order: the faces as small pictures with their number."""

from pathlib import Path

import cv2
import numpy as np

from odfs_jax.data.aligned_png import read_image_and_face

CELL = 96  # pixels
COLUMNS, ROWS = 20, 20
TRASHED = (220, 40, 40)


def contact_sheet(order: list[Path], kept: int) -> np.ndarray:
    """uint8 RGB [H, W, 3]: `order` row by row; beyond COLUMNS x ROWS faces evenly chosen ones.

    The faces after the first `kept`, which go into the trash, have a red edge.
    """
    count = min(len(order), COLUMNS * ROWS)
    chosen = np.linspace(0, len(order) - 1, count).round().astype(int)
    columns = min(count, COLUMNS)
    sheet = np.full((-(-count // columns) * CELL, columns * CELL, 3), 255, np.uint8)
    for place, index in enumerate(chosen):
        top, left = (CELL * part for part in divmod(place, columns))
        cell = sheet[top : top + CELL, left : left + CELL]
        image, _ = read_image_and_face(order[index])
        cell[:] = cv2.resize(image, (CELL, CELL), interpolation=cv2.INTER_AREA)
        _number(cell, index)
        if index >= kept:
            cv2.rectangle(cell, (0, 0), (CELL - 1, CELL - 1), TRASHED, 2)
    return sheet


def _number(cell: np.ndarray, index: int) -> None:
    for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        place, font = (4, CELL - 6), cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(cell, str(index), place, font, 0.4, colour, thickness, cv2.LINE_AA)
