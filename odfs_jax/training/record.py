"""The record of a run that others read while it goes on: its losses and its previews.

<workspace>/models/<name>/
    losses.jsonl         a row {step, losses, rate} a log line; rate in pairs a second, or null
    preview.png          the last preview
    previews/<step>.jpg  all of them
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from odfs_jax.data import atomic
from odfs_jax.data.media import png

LOSSES, PREVIEW, PREVIEWS = "losses.jsonl", "preview.png", "previews"
QUALITY = 92  # of a preview's JPEG, per cent
COLOURS = ((80, 176, 255), (160, 220, 120), (230, 150, 90), (200, 120, 230))  # BGR


def begin(folder: Path, step: int, history: list) -> None:
    """The losses as the checkpoint of `step` has them; previews of later steps are void."""
    atomic.write_text(folder / LOSSES, "".join(_row(*row, None) for row in history))
    for number, path in preview_files(folder).items():
        if number > step:
            path.unlink()


def add_losses(folder: Path, step: int, means: dict[str, float], rate: float) -> None:
    """Appends a row."""
    with (folder / LOSSES).open("a") as file:
        file.write(_row(step, means, rate))


def add_preview(folder: Path, step: int, image: np.ndarray) -> None:
    """Keeps `image`, uint8 RGB [H, W, 3], as the last preview and as that of `step`."""
    atomic.write_bytes(folder / PREVIEW, png.encode(image))
    _, small = cv2.imencode(".jpg", image[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, QUALITY))
    atomic.write_bytes(folder / PREVIEWS / f"{step:09d}.jpg", small.tobytes())


def preview_files(folder: Path) -> dict[int, Path]:
    """The previews of a model's folder by step, in order."""
    files = sorted((folder / PREVIEWS).glob("[0-9]*.jpg"))
    return {int(path.stem): path for path in files if path.stem.isdigit()}


def read_losses(folder: Path) -> list[dict[str, Any]]:
    """The rows; one that is being written, or is damaged, is left out."""
    try:
        lines = (folder / LOSSES).read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
            rows.append({"step": int(row["step"]), "losses": dict(row["losses"]), **_rate(row)})
        except (ValueError, TypeError, KeyError):
            continue
    return rows


def loss_curves(rows: list[dict[str, Any]], width: int, height: int) -> np.ndarray:
    """uint8 BGR [height, width, 3]: every loss over the iterations, on a logarithmic scale."""
    canvas = np.full((height, width, 3), 24, np.uint8)
    names = sorted({name for row in rows for name in row["losses"]})
    for name, colour in zip(names, COLOURS * len(names), strict=False):
        found = [(row["step"], row["losses"].get(name)) for row in rows]
        points = np.array([(s, v) for s, v in found if v is not None and v > 0], np.float64)
        if len(points) < 2:
            continue
        steps, values = points[:, 0], np.log(points[:, 1])
        x = (steps - steps[0]) / max(np.ptp(steps), 1) * (width - 1)
        y = (values.max() - values) / max(np.ptp(values), 1e-9) * (height - 24) + 20
        line = np.stack([x, y], -1).round().astype(np.int32)[:, None]
        cv2.polylines(canvas, [line], False, colour, 1, cv2.LINE_AA)
    return canvas


def _rate(row: dict[str, Any]) -> dict[str, float | None]:
    return {"rate": None if row["rate"] is None else float(row["rate"])}


def _row(step: int, means: dict[str, float], rate: float | None) -> str:
    losses = {name: value if np.isfinite(value) else None for name, value in means.items()}
    return json.dumps({"step": step, "losses": losses, "rate": rate}) + "\n"
