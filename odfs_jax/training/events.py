"""TensorBoard's event file."""

import time
from pathlib import Path

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary


class Events:
    """Writes as it is told, in the caller's thread, so that the caller learns of a full disk.

    tensorboardX's own SummaryWriter hands everything to a thread; when that dies of a full disk, it
    prints a traceback, and the next writes wait for it for ever.
    """

    def __init__(self, folder: Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        # What an earlier run wrote from here on is void.
        self._writer.write_event(
            Event(step=step, session_log=SessionLog(status=SessionLog.SessionStatus.START))
        )

    def scalar(self, name: str, value: float, step: int) -> None:
        self._write(summary.scalar(name, value), step)

    def image(self, name: str, image: np.ndarray, step: int) -> None:
        """`image` is uint8 RGB [H, W, 3]."""
        self._write(summary.image(name, image, dataformats="HWC"), step)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _write(self, values: Summary, step: int) -> None:
        self._writer.write_event(Event(step=step, wall_time=time.time(), summary=values))
