"""Progress of long loops: a bar with rate and ETA on a terminal, plain lines elsewhere."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

log = logging.getLogger(__name__)
T = TypeVar("T")
Listener = Callable[[str, int, int | None], None]  # what is done, how many, of how many (if known)

LINE_SECONDS = 10.0  # one plain line at most every so many seconds
LINES_VARIABLE = "ODFS_PROGRESS_SECONDS"  # other seconds: who started the command reads its lines
_listeners: list[Listener] = []


def progress(items: Iterable[T], total: int | None, what: str, unit: str = "frame") -> Iterator[T]:
    """Yields `items` unchanged and shows how far the loop is; `total` None when unknown."""
    if _listeners:
        yield from _heard(items, total, what, _listeners[-1])
    elif shows_bars():
        yield from tqdm(items, total=total, desc=what, unit=unit, dynamic_ncols=True)
    else:
        yield from _with_lines(items, total, what, unit)


def shows_bars() -> bool:
    """True where a loop may draw: on a terminal that nobody else draws on."""
    return not _listeners and sys.stderr.isatty()


def duration(seconds: float) -> str:
    """How long, in words: 45 s, 12 min, 3 h 20 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Meanwhile loops show nothing; `listener(what, done, total)` is told after each item."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.pop()


def _heard(items: Iterable[T], total: int | None, what: str, listener: Listener) -> Iterator[T]:
    listener(what, 0, total)
    for done, item in enumerate(items, 1):
        yield item
        listener(what, done, total)


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
