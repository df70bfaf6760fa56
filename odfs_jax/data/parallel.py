"""Threads that work beside the consumer's: a prefetcher, an ordered map, files read at once.

OpenCV, PyAV and NumPy release the interpreter's lock, so decoding, merging and encoding overlap.
"""

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from odfs_jax.errors import BadFileError
from odfs_jax.runtime.progress import progress

T = TypeVar("T")
R = TypeVar("R")

PIXELS_AT_ONCE = 1 << 26  # of the PNGs that threads read: one of 8192 x 8192, or 256 of 512 x 512
POLL = 0.1  # seconds between checks whether the consumer still listens


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Budget:
    """What threads may hold at once, of something that is counted: pixels, bytes."""

    def __init__(self, total: int) -> None:
        self._total = self._free = total
        self._changed = threading.Condition()
        self._here = threading.local()

    @contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        """Waits until `amount` is free, and takes it for the block; all, where it is more.

        Not to be nested: a thread would wait for what it holds itself.
        """
        with self.scope():
            self.claim(amount)
            yield

    @contextmanager
    def scope(self) -> Iterator[None]:
        """What this thread claims within the block is free again at its end."""
        self._here.claimed = 0
        try:
            yield
        finally:
            with self._changed:
                self._free += self._here.claimed
                self._changed.notify_all()
            self._here.claimed = None

    def claim(self, amount: int) -> None:
        """Waits until `amount` is free, and takes it to the end of the `scope`, if there is one.

        A thread that has some already does not wait: it would wait for others that wait for it.
        """
        claimed = getattr(self._here, "claimed", None)
        if claimed is None:
            return
        with self._changed:
            amount = min(amount, self._total)
            if not claimed:
                self._changed.wait_for(lambda: self._free >= amount)
            self._free -= amount
        self._here.claimed += amount


READING = Budget(PIXELS_AT_ONCE)


def prefetch(items: Generator[T], depth: int) -> Generator[T]:
    """Yields `items`, which a thread computes at most `depth` items ahead.

    An exception in `items` is raised here, in its place. Closing this generator stops the thread,
    waits for it and closes `items`; use `contextlib.closing` where `items` reads something that is
    closed afterwards.
    """
    ahead: queue.Queue = queue.Queue(depth)
    stopped = threading.Event()

    arguments = (items, ahead, stopped)
    thread = threading.Thread(target=_fill, args=arguments, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error, last = ahead.get()
            if error is not None:
                raise error
            if last:
                return
            yield item
    finally:
        stopped.set()
        thread.join()


def parallel_map(function: Callable[[T], R], items: Generator[T], workers: int) -> Generator[R]:
    """Yields `function(item)` for each of `items`, in their order, computed by `workers` threads.

    `items` run in the consumer's thread, at most `workers` ahead of it; closing this generator
    closes them. An exception of `function` is raised here, in its place.
    """
    with closing(items), ThreadPoolExecutor(workers, "worker") as pool:
        yield from ordered_results((pool.submit(function, item) for item in items), workers + 1)


def ordered_results(futures: Iterable[Future[R]], ahead: int) -> Generator[R]:
    """Yields the results of `futures` in their order, with at most `ahead` of them under way."""
    running: deque[Future[R]] = deque()
    for future in futures:
        running.append(future)
        if len(running) >= ahead:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


def read_files(
    files: list[Path], read: Callable[[Path], T], description: str
) -> tuple[list[tuple[Path, T]], list[BadFileError]]:
    """Calls `read` for every file, in threads, under a progress bar named `description`.

    At most PIXELS_AT_ONCE pixels are read at a time, as far as `read` claims them of READING.
    Returns ([(file, value)], the BadFileErrors that `read` raised), both in the order of `files`.
    Any other exception ends the reading at once.
    """
    values: list[tuple[Path, T]] = []
    bad: list[BadFileError] = []
    with ThreadPoolExecutor() as pool:
        futures = [pool.submit(_read_bounded, read, path) for path in files]
        pairs = zip(files, futures, strict=True)
        try:
            for path, future in progress(pairs, len(files), description, "face"):
                try:
                    values.append((path, future.result()))
                except BadFileError as error:
                    bad.append(error)
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C need not wait for the rest
    return values, bad


def _read_bounded(read: Callable[[Path], T], path: Path) -> T:
    with READING.scope():
        return read(path)


def _fill(items: Generator[T], ahead: queue.Queue, stopped: threading.Event) -> None:
    """Puts (item, error, is_last) into `ahead` until the items or the consumer end."""

    def put(item: T | None, error: BaseException | None = None, last: bool = False) -> None:
        while not stopped.is_set():
            try:
                return ahead.put((item, error, last), timeout=POLL)
            except queue.Full:
                continue

    try:
        with closing(items):
            for item in items:
                put(item)
                if stopped.is_set():
                    return
    except BaseException as error:
        put(None, error, last=True)
    else:
        put(None, last=True)
