"""What a run says of itself: the log line, TensorBoard, the loss history."""

import logging
import time
from pathlib import Path

import jax
import numpy as np
from tensorboardX import SummaryWriter

log = logging.getLogger(__name__)


class Journal:
    """Collects each step's metrics on the device and reads them back only when it writes.

    `history` has a row [step, {name: mean since the last row}] for each log line.
    """

    def __init__(self, folder: Path, batch_size: int, step: int, history: list) -> None:
        self.history = history
        self._batch_size = batch_size
        self._waiting: list[dict[str, jax.Array]] = []
        self._writer = SummaryWriter(str(folder / "events"), purge_step=step + 1)
        self._since = time.monotonic()

    def add(self, metrics: dict[str, jax.Array]) -> None:
        """Keeps one step's metrics."""
        self._waiting.append(metrics)

    def write(self, step: int) -> None:
        """Means since the last line, to the log, TensorBoard and the history."""
        if not self._waiting:
            return
        rows = jax.device_get(self._waiting)
        means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        seconds = time.monotonic() - self._since
        rate = len(rows) * self._batch_size / seconds
        self.history.append([step, means])
        log.info("%s", _line(step, means, seconds / len(rows), rate))
        for name, value in means.items():
            self._writer.add_scalar(f"loss/{name}", value, step)
        self._writer.add_scalar("speed/pairs_per_second", rate, step)
        self._waiting.clear()
        self._since = time.monotonic()
        if not all(np.isfinite(list(means.values()))):
            log.warning("a loss is not a number at iteration %d", step)

    def picture(self, step: int, image: np.ndarray) -> None:
        """A preview, uint8 RGB [H, W, 3], to TensorBoard."""
        self._writer.add_image("preview", image, step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _line(step: int, means: dict[str, float], seconds: float, rate: float) -> str:
    losses = "  ".join(f"{name} {value:.5f}" for name, value in means.items())
    return f"[{step:8d}]  {losses}  {seconds * 1e3:8.1f} ms  {rate:8.1f} samples/s"
