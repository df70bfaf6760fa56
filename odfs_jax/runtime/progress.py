"""Progress of long loops: a bar with rate and ETA on a terminal, plain lines elsewhere."""

import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

log = logging.getLogger(__name__)
T = TypeVar("T")

LINE_SECONDS = 10.0  # one plain line at most every so many seconds
LINES_VARIABLE = "ODFS_PROGRESS_SECONDS"  # other seconds: who started the command reads its lines


def progress(items: Iterable[T], total: int | None, what: str, unit: str = "frame") -> Iterator[T]:
    """Yields `items` unchanged and shows how far the loop is; `total` None when unknown."""
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=what, unit=unit, dynamic_ncols=True)
    else:
        yield from _with_lines(items, total, what, unit)


def _with_lines(items: Iterable[T], total: int | None, what: str, unit: str) -> Iterator[T]:
    start = last = time.monotonic()
    apart = float(os.environ.get(LINES_VARIABLE, LINE_SECONDS))
    for done, item in enumerate(items):
        yield item
        now = time.monotonic()
        if not done:  # the first one takes as long as compiling
            start = now
        elif now - last >= apart:
            last = now
            log.info(_line(done + 1, total, (now - start) / done, what, unit))


def _line(done: int, total: int | None, seconds: float, what: str, unit: str) -> str:
    """The line after `done` items, which take `seconds` each."""
    rate = 1 / max(seconds, 1e-6)
    if not total:
        return f"{what}: {done} {unit}s, {rate:.1f}/s"
    left = max(0, total - done) / rate
    return f"{what}: {done}/{total} {unit}s ({done / total:.0%}), {rate:.1f}/s, {left:.0f} s left"
