"""debug=true of conversion: a contact sheet of all that a face's merge went through."""

from pathlib import Path

import cv2
import numpy as np

from odfs_jax.data import atomic
from odfs_jax.data.media import png

CELL, COLUMNS, LABEL = 192, 4, 20  # pixels, cells, pixels


def sheets_folder(result: Path) -> Path:
    """Where the sheets of the conversion to `result` go: `<result>_debug/`."""
    return result.with_name(f"{result.stem}_debug")


def write_sheet(folder: Path, name: str, pictures: dict[str, np.ndarray]) -> None:
    """Draws `pictures`, float [h, w, 3] or [h, w] in [0, 1], as `folder`/`name`.png.

    They are labelled with their names and scaled to one size, in their order; a sheet of that name
    from an earlier conversion is replaced. Raises OSError.
    """
    cells = [_cell(label, picture) for label, picture in pictures.items()]
    blank = np.full_like(cells[0], 255)
    cells += [blank] * (-len(cells) % COLUMNS)
    rows = [np.hstack(cells[i : i + COLUMNS]) for i in range(0, len(cells), COLUMNS)]
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(folder / f"{name}.png", png.encode(np.vstack(rows)))


def _cell(label: str, picture: np.ndarray) -> np.ndarray:
    """uint8 [CELL + LABEL, CELL, 3]"""
    pixels = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=-1)
    shrinks = pixels.shape[0] > CELL
    way = cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST
    pixels = cv2.resize(pixels, (CELL, CELL), interpolation=way)
    header = np.full((LABEL, CELL, 3), 255, np.uint8)
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(header, label, (4, LABEL - 6), font, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([header, pixels])
