"""What a run says of itself: the log line, TensorBoard, the loss history, the preview.

All of it is read back from the device and written by a thread of its own, so that the loop never
waits for it.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np

from odfs_jax.runtime import distributed
from odfs_jax.training import record
from odfs_jax.training.events import Events

log = logging.getLogger(__name__)

WAITING = 1000  # steps whose metrics stay on the device at most; each is a few tiny arrays


class Journal:
    """Collects each step's metrics on the device; they are read back only in order to write.

    `history` has a row [step, {name: mean since the last row}] for each log line. An error of the
    thread is raised by the next call. Of several processes only the first writes files.
    """

    def __init__(self, folder: Path, batch_size: int, step: int, history: list) -> None:
        self.history = history
        self._folder = folder
        self._batch_size = batch_size
        self._waiting: list[dict[str, jax.Array]] = []
        self._rows: list[dict[str, np.ndarray]] = []  # the thread's own
        self._events = Events(folder / "events", step + 1) if distributed.leads() else None
        if distributed.leads():
            record.begin(folder, step, history)
        self._since = time.monotonic()
        self._thread = ThreadPoolExecutor(1, "journal")
        self._jobs: list[Future] = []

    def add(self, metrics: dict[str, jax.Array]) -> None:
        """Keeps the metrics of one dispatch: scalars, or one value for each of its steps."""
        self._waiting.append(metrics)
        if len(self._waiting) >= WAITING:
            self._later(self._read, self._taken())

    def write(self, step: int) -> None:
        """Means since the last line, to the log, TensorBoard and the history."""
        self._later(self._write, step, self._taken())

    def picture(self, step: int, image: jax.Array) -> None:
        """A preview, uint8 RGB [H, W, 3], to TensorBoard and where `keep` puts it."""
        self._later(self._picture, step, image)

    def keep(self, step: int, image: jax.Array) -> None:
        """A preview, uint8 RGB [H, W, 3], to `preview.png` and the others."""
        self._later(self._keep, step, image)

    def finish(self) -> None:
        """Waits until all is written; `history` is then complete."""
        for job in self._jobs:
            job.result()
        self._jobs.clear()

    def close(self) -> None:
        self._thread.shutdown()
        if self._events:
            self._events.close()

    def _taken(self) -> list[dict[str, jax.Array]]:
        taken, self._waiting = self._waiting, []
        return taken

    def _later(self, work: Callable, *args) -> None:
        while self._jobs and self._jobs[0].done():
            self._jobs.pop(0).result()
        self._jobs.append(self._thread.submit(work, *args))

    def _read(self, metrics: list[dict[str, jax.Array]]) -> None:
        self._rows += jax.device_get(metrics)

    def _write(self, step: int, metrics: list[dict[str, jax.Array]]) -> None:
        self._read(metrics)
        if not self._rows:
            return
        columns = {n: np.hstack([row[n] for row in self._rows]) for n in self._rows[0]}
        means = {name: float(np.mean(values)) for name, values in columns.items()}
        count = len(next(iter(columns.values())))
        seconds = (time.monotonic() - self._since) / count
        rate = self._batch_size / seconds
        self.history.append([step, means])
        log.info("%s", _line(step, means, seconds, rate))
        if self._events:
            for name, value in means.items():
                self._events.scalar(f"loss/{name}", value, step)
            self._events.scalar("speed/pairs_per_second", rate, step)
            self._events.flush()
            record.add_losses(self._folder, step, means, rate)
        self._rows.clear()
        self._since = time.monotonic()
        if not all(np.isfinite(list(means.values()))):
            log.warning("a loss is not a number at iteration %d", step)

    def _picture(self, step: int, image: jax.Array) -> None:
        if self._events:
            self._events.image("preview", np.asarray(image), step)
            self._events.flush()
        self._keep(step, image)

    def _keep(self, step: int, image: jax.Array) -> None:
        if distributed.leads():
            record.add_preview(self._folder, step, np.asarray(image))


def _line(step: int, means: dict[str, float], seconds: float, rate: float) -> str:
    losses = "  ".join(f"{name} {value:.5f}" for name, value in means.items())
    return f"[{step:8d}]  {losses}  {seconds * 1e3:8.1f} ms  {rate:8.1f} samples/s"
