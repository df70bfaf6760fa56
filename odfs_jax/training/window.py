"""`preview=window`: the last preview and the losses in an OpenCV window, with the 2018 keys.

    s save      p refresh      Space other faces      Enter save and stop      Esc close the window

The window is a process of its own that knows the run by its folder only (`training/control.py`):
the run neither waits for it nor ends with it. Source of the keys: docs/reference_2018.md section 9.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from odfs_jax.errors import UserError
from odfs_jax.training import control
from odfs_jax.training.record import PREVIEW, loss_curves, read_losses

log = logging.getLogger(__name__)

CHOICES = ("none", "window")
KEYS = {ord("s"): "save", ord("p"): "refresh", ord(" "): "next", 13: "stop", 10: "stop"}
CLOSE = 27
TURN = 100  # milliseconds between two looks at the folder
HELP = "s save   p refresh   space next   enter stop"


def check_preview(preview: str) -> None:
    """Raises UserError when `preview` is no choice, or a window that cannot be shown here."""
    if preview not in CHOICES:
        raise UserError(f"preview={preview}: expected one of {', '.join(CHOICES)}")
    screens = ("DISPLAY", "WAYLAND_DISPLAY")
    if preview == "window" and sys.platform == "linux" and not any(map(os.environ.get, screens)):
        raise UserError(
            "preview=window: there is no display here (DISPLAY is not set); take preview=none and "
            "watch with: python scripts/studio.py"
        )


@contextmanager
def window(folder: Path, preview: str) -> Iterator[None]:
    """Shows the run in `folder` until the context ends, if `preview` asks for it."""
    if preview != "window":
        yield
        return
    process = subprocess.Popen([sys.executable, "-m", "odfs_jax.training.window", str(folder)])
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def press(folder: Path, key: int) -> bool:
    """Does what `key`, as `cv2.waitKey` gives it, stands for; False when it closes the window."""
    command = KEYS.get(key & 0xFF) if key >= 0 else None
    if command and control.is_running(folder):
        control.send(folder, command)
    return key < 0 or key & 0xFF != CLOSE


def picture(folder: Path) -> np.ndarray:
    """uint8 BGR: the loss curves above the last preview."""
    shown = cv2.imread(str(folder / PREVIEW))
    if shown is None:
        shown = np.full((64, 640, 3), 24, np.uint8)
    scale = max(1, round(640 / shown.shape[1]))
    shown = cv2.resize(shown, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    curves = loss_curves(read_losses(folder), shown.shape[1], 120)
    status = control.read_status(folder) or {}
    text = f"iteration {status.get('step', 0)}   {HELP}"
    cv2.putText(curves, text, (6, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (220,) * 3, 1, cv2.LINE_AA)
    return np.vstack([curves, shown])


def main() -> None:
    folder = Path(sys.argv[1])
    title = f"odfs-jax: {folder.name}"
    cv2.namedWindow(title, cv2.WINDOW_AUTOSIZE)
    while control.is_running(folder):
        cv2.imshow(title, picture(folder))
        if not press(folder, cv2.waitKey(TURN)):
            break


if __name__ == "__main__":
    main()
