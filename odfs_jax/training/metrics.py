"""What a run says of itself: the log line, losses.jsonl, previews, TensorBoard.

All of it is read back from the device and written by a thread of its own, so that the loop never
waits for it. In a model's folder:

    losses.jsonl         a row {step, losses, rate} a log line; rate in pairs a second, or null
    preview.png          the last preview
    previews/<step>.jpg  all of them
    events/              TensorBoard's files: all losses and their parts, what each network
                         minimizes (loss/total/), norms of gradients, pairs a second, learning
                         rate, memory, previews, and the settings, as text and as hparams
"""

import json
import logging
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
from omegaconf import OmegaConf
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DataType
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from odfs_jax.config import leaves
from odfs_jax.data import atomic, foreign
from odfs_jax.data.media import png
from odfs_jax.errors import BadFileError
from odfs_jax.runtime import distributed
from odfs_jax.training.history import History, held_out

log = logging.getLogger(__name__)

WAITING = 1000  # steps whose metrics stay on the device at most; each is a few tiny arrays
LOSSES, PREVIEW, PREVIEWS = "losses.jsonl", "preview.png", "previews"
STEP = re.compile(r"[0-9]{1,15}")  # in the name of a preview
LARGEST_RECORD, MOST_ROWS = (
    1 << 28,
    1_000_000,
)  # bytes and last rows of `losses.jsonl` that are read
PATIENCE = 8  # figures of held-out faces, one after the other, that are not better than one before
GAIN = 0.001  # by which a figure must grow to count as better
LARGEST_TEXT = 0.6  # of captions, as OpenCV measures it
LINE = 100  # columns of a line of the log
AS_TEXT = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
QUALITY = 92  # of a preview's JPEG, per cent
COLORS = ((80, 176, 255), (160, 220, 120), (230, 150, 90), (200, 120, 230))  # of curves, BGR


class MetricLogger:
    """Collects each step's metrics on the device; they are read back only in order to write.

    A metric whose name has a slash, "src_face/dssim", is a part of another one: it goes to
    TensorBoard only. An error of the thread is raised by the next call. Of several processes only
    the main one writes files.
    """

    def __init__(
        self,
        folder: Path,
        batch_size: int,
        step: int,
        history: History,
        captions: Sequence[str] = (),
        state_of: Callable[[int], dict[str, float]] = lambda step: {},
    ) -> None:
        """For a run that goes on from `step`, whose losses so far are `history`.

        `captions` are those of the preview's columns. `state_of(step)` returns what else goes to
        TensorBoard with each line, by name; the thread calls it.
        """
        self.history = history  # the thread's own until `finish` was called
        # (iteration, name) of the first metric that was no finite number, as far as they were read
        self.not_finite: tuple[int, str] | None = None
        self._folder = folder
        self._batch_size = batch_size
        self._captions = captions
        self._state_of = state_of
        self.last: dict[str, float] = {}  # what the last line said
        self._waiting: list[dict[str, jax.Array]] = []
        self._read_up_to = step
        self._steps_since = 0  # read since the last line of this process
        self._events = (
            EventFile(folder / "events", step + 1) if distributed.is_main_process() else None
        )
        if distributed.is_main_process():
            begin_record(folder, step, history.rows)
        self._since = time.monotonic()
        self._thread = ThreadPoolExecutor(1, "metrics")
        self._jobs: list[Future] = []

    def begin(self, config: Mapping[str, Any]) -> None:
        """Writes the settings of the run, a `TrainConfig`, to TensorBoard."""
        if self._events:
            self._events.text("config", OmegaConf.to_yaml(config), self._read_up_to)
            self._events.hparams(config)
            self._events.flush()

    def add(self, metrics: dict[str, jax.Array]) -> None:
        """Keeps the metrics of one dispatch: scalars, or one value for each of its steps."""
        self._waiting.append(metrics)
        if len(self._waiting) >= WAITING:
            self._later(self._read, self._take_waiting())

    def write(
        self,
        step: int,
        measured: dict[str, jax.Array] | None = None,
        norms: dict[str, jax.Array] | None = None,
    ) -> None:
        """Means since the last line, and what was `measured` now, to the log and all records.

        `norms` of gradients, by network, go to TensorBoard only.
        """
        self._later(self._write, step, self._take_waiting(), measured or {}, norms or {})

    def picture(self, step: int, image: jax.Array) -> None:
        """A preview, uint8 RGB [H, W, 3], to TensorBoard, `preview.png` and `previews/`."""
        self._later(self._picture, step, image)

    def keep(self, step: int, image: jax.Array) -> None:
        """A preview, uint8 RGB [H, W, 3], to `preview.png` and `previews/`."""
        self._later(self._keep, step, image)

    def finish(self) -> None:
        """Waits until all is read and written; `history` is then complete."""
        self._later(self._read, self._take_waiting())
        for job in self._jobs:
            job.result()
        self._jobs.clear()

    def close(self) -> None:
        """Ends the thread and closes TensorBoard's file."""
        self._thread.shutdown()
        if self._events:
            self._events.close()

    def _take_waiting(self) -> list[dict[str, jax.Array]]:
        waiting, self._waiting = self._waiting, []
        return waiting

    def _later(self, work: Callable, *args) -> None:
        while self._jobs and self._jobs[0].done():
            self._jobs.pop(0).result()
        self._jobs.append(self._thread.submit(work, *args))

    def _read(self, metrics: list[dict[str, jax.Array]]) -> None:
        if not metrics:
            return
        rows = jax.device_get(metrics)
        columns = {name: np.hstack([row[name] for row in rows]) for name in rows[0]}
        self.history.add(columns)
        if self.not_finite is None:
            self.not_finite = _first_not_finite(columns, self._read_up_to)
        count = len(next(iter(columns.values())))
        self._read_up_to += count
        self._steps_since += count

    def _write(
        self,
        step: int,
        metrics: list[dict[str, jax.Array]],
        measured: dict[str, jax.Array],
        norms: dict[str, jax.Array],
    ) -> None:
        self._read(metrics)
        if not self._steps_since:
            return
        scalars = self.history.means()
        figures = {name: float(value) for name, value in jax.device_get(measured).items()}
        scalars |= figures
        means = {name: value for name, value in scalars.items() if "/" not in name}
        seconds = (time.monotonic() - self._since) / self._steps_since
        rate = self._batch_size / seconds
        self.history.end_row(step, means)
        self.last = means
        log.info("%s", _line(step, means, rate))
        best = stalled_since(self.history.rows) if figures else None
        if best is not None:
            log.info(
                "held-out faces are no better than at iteration %d: more of it gains little", best
            )
            log.info("next: augment.warp=0 if faces are still warped, else convert")
        # Where a number is none the run ends: no file is to have it.
        if self._events and self.not_finite is None:
            for name, value in scalars.items():
                self._events.scalar(f"loss/{name}", value, step)
            self._events.scalar("speed/pairs_per_second", rate, step)
            others = {f"gradient_norm/{name}": float(value) for name, value in norms.items()}
            for name, value in (others | self._state_of(step)).items():
                self._events.scalar(name, value, step)
            self._events.flush()
            add_losses(self._folder, step, means, rate)
        self._steps_since, self._since = 0, time.monotonic()

    def _picture(self, step: int, image: jax.Array) -> None:
        if self._events:
            self._events.image("preview", captioned(np.asarray(image), self._captions), step)
            self._events.flush()
        self._keep(step, image)

    def _keep(self, step: int, image: jax.Array) -> None:
        if distributed.is_main_process():
            add_preview(self._folder, step, captioned(np.asarray(image), self._captions))


def stalled_since(rows: list) -> int | None:
    """The iteration of the best row, when the last row is the PATIENCE-th after it; else None.

    `rows` are a history's, [step, {name: value}]. Better is the mean of the figures of held-out
    faces; rows without them do not count.
    """
    scored = [(step, np.mean(found)) for step, means in rows if (found := held_out(means))]
    best_at, best = 0, -np.inf
    for place, (_, value) in enumerate(scored):
        if value > best + GAIN:
            best_at, best = place, value
    return scored[best_at][0] if len(scored) - 1 - best_at == PATIENCE else None


def _first_not_finite(columns: dict[str, np.ndarray], step: int) -> tuple[int, str] | None:
    """(iteration, name) of the first value that is no finite number; `step` is before the first."""
    found = [
        (step + 1 + int(np.argmin(good)), name)
        for name, values in columns.items()
        if not (good := np.isfinite(values)).all()
    ]
    return min(found, default=None)


class EventFile:
    """TensorBoard's event file, written in the caller's thread, which so learns of a full disk.

    TensorBoard's own EventFileWriter hands everything to a thread, which tells nobody when it dies
    of a full disk.
    """

    def __init__(self, folder: Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"
        self._records = RecordWriter(path.open("wb"))
        self._write(Event(file_version="brain.Event:2"))
        # What an earlier run wrote from here on is void.
        self._write(Event(step=step, session_log=SessionLog(status=SessionLog.START)))

    def scalar(self, name: str, value: float, step: int) -> None:
        """Adds a point to the curve `name`."""
        self._add(Summary.Value(tag=name, simple_value=value), step)

    def image(self, name: str, image: np.ndarray, step: int) -> None:
        """Adds `image`, uint8 RGB [H, W, 3]."""
        height, width, _ = image.shape
        picture = Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=png.encode(image)
        )
        self._add(Summary.Value(tag=name, image=picture), step)

    def text(self, name: str, text: str, step: int) -> None:
        """Adds `text`, which is shown as it is."""
        shown = "".join(f"    {line}\n" for line in text.splitlines())  # as Markdown has code
        tensor = TensorProto(dtype=DataType.DT_STRING, string_val=[shown.encode()])
        tensor.tensor_shape.dim.add(size=1)
        self._add(Summary.Value(tag=name, tensor=tensor, metadata=AS_TEXT), step)

    def hparams(self, config: Mapping[str, Any]) -> None:
        """Adds the settings `config` for comparison with other runs."""
        flat = OmegaConf.to_container(OmegaConf.create(dict(config)), resolve=False)
        told = {k: v if isinstance(v, int | float) else str(v) for k, v in leaves(flat)}
        self._write(Event(summary=hparams_pb(told)))

    def flush(self) -> None:
        """Writes to the disk what was added. Raises OSError."""
        self._records.flush()

    def close(self) -> None:
        """Ends the file."""
        self._records.close()

    def _add(self, value: Summary.Value, step: int) -> None:
        self._write(Event(step=step, summary=Summary(value=[value])))

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())


def begin_record(folder: Path, step: int, history: list) -> None:
    """Writes the losses that the checkpoint of `step` has, and removes previews of later steps."""
    atomic.write_text(folder / LOSSES, "".join(_row(*row, None) for row in history))
    for number, path in preview_files(folder).items():
        if number > step:
            path.unlink()


def add_losses(folder: Path, step: int, means: dict[str, float], rate: float) -> None:
    """Appends a row to `losses.jsonl`; `rate` in pairs a second."""
    with atomic.appending(folder / LOSSES) as file:
        file.write(_row(step, means, rate).encode())


def add_preview(folder: Path, step: int, image: np.ndarray) -> None:
    """Keeps `image`, uint8 RGB [H, W, 3], as the last preview and as that of `step`."""
    atomic.write_bytes(folder / PREVIEW, png.encode(image))
    _, small = cv2.imencode(".jpg", image[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, QUALITY))
    atomic.write_bytes(folder / PREVIEWS / f"{step:09d}.jpg", small.tobytes())


def captioned(image: np.ndarray, captions: Sequence[str]) -> np.ndarray:
    """`image`, uint8 RGB [H, W, 3], below a line with a caption over each of its equal columns."""
    if not captions:
        return image
    width, font = image.shape[1] / len(captions), cv2.FONT_HERSHEY_SIMPLEX
    longest = max(cv2.getTextSize(caption, font, 1.0, 1)[0][0] for caption in captions)
    scale = min(LARGEST_TEXT, width * 0.94 / longest)
    height = round(32 * scale) + 4
    line = np.full((height, image.shape[1], 3), 24, np.uint8)
    for number, caption in enumerate(captions):
        place = round(number * width + width * 0.03), height - round(9 * scale) - 2
        cv2.putText(line, caption, place, font, scale, (230,) * 3, 1, cv2.LINE_AA)
    return np.vstack([line, image])


def preview_files(folder: Path) -> dict[int, Path]:
    """The previews of a model's folder by step, in order."""
    found = {path: STEP.fullmatch(path.stem) for path in (folder / PREVIEWS).glob("[0-9]*.jpg")}
    return dict(sorted((int(path.stem), path) for path, good in found.items() if good))


def read_losses(folder: Path) -> list[dict[str, Any]]:
    """The rows of `losses.jsonl`, without those that are damaged or still being written."""
    try:
        lines = foreign.read_bytes(folder / LOSSES, LARGEST_RECORD).split(b"\n")
    except BadFileError:
        return []
    rows = []
    for line in lines[-MOST_ROWS:]:
        with suppress(ValueError):
            rows.append(_read_row(foreign.parse_json(line)))
    return rows


def _read_row(value: Any) -> dict[str, Any]:
    row = foreign.mapping(value, "row", ("step", "losses", "rate"))
    losses = foreign.mapping(row["losses"], "losses")
    return {
        "step": foreign.integer(row["step"], "step", 0, 1 << 53),
        "losses": {
            foreign.text(name, "loss", 200): None
            if v is None
            else foreign.number(v, name, -1e30, 1e30)
            for name, v in losses.items()
        },
        "rate": None if row["rate"] is None else foreign.number(row["rate"], "rate", 0, 1e12),
    }


def loss_curves(rows: list[dict[str, Any]], width: int, height: int) -> np.ndarray:
    """uint8 BGR [height, width, 3]: every loss over the iterations, on a logarithmic scale."""
    canvas = np.full((height, width, 3), 24, np.uint8)
    names = sorted({name for row in rows for name in row["losses"]})
    for name, color in zip(names, COLORS * len(names), strict=False):
        found = [(row["step"], row["losses"].get(name)) for row in rows]
        points = np.array([(s, v) for s, v in found if v is not None and v > 0], np.float64)
        if len(points) < 2:
            continue
        steps, values = points[:, 0], np.log(points[:, 1])
        x = (steps - steps[0]) / max(np.ptp(steps), 1) * (width - 1)
        y = (values.max() - values) / max(np.ptp(values), 1e-9) * (height - 24) + 20
        line = np.stack([x, y], -1).round().astype(np.int32)[:, None]
        cv2.polylines(canvas, [line], False, color, 1, cv2.LINE_AA)
    return canvas


def _row(step: int, means: dict[str, float], rate: float | None) -> str:
    losses = {name: value if np.isfinite(value) else None for name, value in means.items()}
    return json.dumps({"step": step, "losses": losses, "rate": rate}) + "\n"


def _line(step: int, means: dict[str, float], rate: float) -> str:
    """As many of `means` as fit into LINE columns, held-out figures first."""
    line, end = f"[{step:8d}]", f"  {rate:8.1f} pairs/s"
    for name in sorted(means, key=lambda name: not held_out({name: 0.0})):
        column = f"  {name} {means[name]:.5f}"
        if len(line + column + end) > LINE:
            break
        line += column
    return line + end
