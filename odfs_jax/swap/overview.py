"""One line over all stages of a swap, with the time that is left; and the log of it in a file."""

import io
import logging
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from odfs_jax.data import atomic
from odfs_jax.runtime.output import Printable
from odfs_jax.runtime.progress import LINE_SECONDS, duration, heard_by

REDRAW = 0.2  # seconds between two lines on a terminal
CLEAR = "\r\x1b[K"


class Overview(logging.Handler):
    """Shows which stage runs, how far it is, and what is left of it and of all.

    On a terminal that is one line that changes, elsewhere a line every LINE_SECONDS. Stages have
    the names under which their loops tell `progress` what they do; other loops are not shown.
    """

    def __init__(self, frames: Mapping[str, int | None]) -> None:
        """`frames` that each stage in turn takes as long as, at the rate of the one before it.

        None: it does not go by frames, or nobody knows.
        """
        super().__init__(logging.WARNING)
        self.setFormatter(Printable("%(message)s"))
        self._stages = tuple(frames)
        self._frames = dict(frames)
        self._known: dict[str, float] = {}  # seconds of stages, as far as they were told
        self.rate: float | None = None  # frames a second, of the last stage that went by frames
        self._stage, self._start, self._done, self._total = "", 0, 0, None
        self._first: int | None = None  # item of the stage, which is slow: it compiles
        self._began = self._shown = 0.0
        self._on_terminal = sys.stderr.isatty()

    def expect(self, stage: str, seconds: float) -> None:
        """What is known of a later stage; 0 for one that has nothing to do."""
        self._known[stage] = seconds

    def hear(self, stage: str, done: int, total: int | None) -> None:
        """Of the items of `stage`, `done` of `total` are finished."""
        if stage not in self._stages:
            return
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._start, self._first, self._shown = stage, done, None, 0.0
        if self._first is None and done > self._start:
            self._first, self._began = done, now
        self._done, self._total = done, total
        if now - self._shown >= (REDRAW if self._on_terminal else LINE_SECONDS) or done == total:
            self._shown = now
            self._show()

    def emit(self, record: logging.LogRecord) -> None:
        """A warning, above the line."""
        clear = CLEAR if self._on_terminal else ""
        sys.stderr.write(f"{clear}{self.format(record)}\n")
        if self._on_terminal and self._stage:
            self._show()

    def end(self) -> None:
        """Leaves the last line where it is."""
        if self._on_terminal and self._stage:
            sys.stderr.write("\n")

    def _show(self) -> None:
        line = self.line(time.monotonic() - self._began)
        if self._on_terminal:  # a longer one would not be cleared
            line = line[: shutil.get_terminal_size().columns - 1]
        sys.stderr.write(f"{CLEAR}{line}" if self._on_terminal else f"{line}\n")
        sys.stderr.flush()

    def line(self, seconds: float) -> str:
        """What is shown `seconds` after the first item of the stage."""
        number = self._stages.index(self._stage) + 1
        line = f"[{number}/{len(self._stages)}] {self._stage}"
        if self._total:
            line += f" {self._done}/{self._total} ({self._done / self._total:.0%})"
        left = self._left(seconds)
        if left is not None and (left or self._total):
            line += f", {duration(left)} left"
            later = [self._expected(stage) for stage in self._stages[number:]]
            if later and None not in later:
                line += f"; {duration(left + sum(later))} in all"
        return line

    def _left(self, seconds: float) -> float | None:
        """Seconds that are left of the running stage."""
        since = 0 if self._first is None else self._done - self._first
        if not since or not self._total or not seconds:
            return self._known.get(self._stage)
        if self._frames[self._stage] is not None:
            self.rate = since / seconds
        return (self._total - self._done) * seconds / since

    def _expected(self, stage: str) -> float | None:
        if stage in self._known:
            return self._known[stage]
        frames = self._frames[stage]
        return None if frames is None or self.rate is None else frames / self.rate


@contextmanager
def shown(overview: Overview, log_file: Path) -> Iterator[None]:
    """Meanwhile stderr has the overview and warnings; the whole log is appended to `log_file`."""
    root = logging.getLogger()
    before = root.handlers[:]
    with atomic.appending(log_file) as binary, io.TextIOWrapper(binary, "utf-8") as text:
        whole = logging.StreamHandler(text)
        whole.setFormatter(Printable("%(asctime)s %(message)s"))
        root.handlers[:] = [overview, whole]
        try:
            with heard_by(overview.hear):
                yield
        finally:
            overview.end()
            root.handlers[:] = before
