"""Work in threads beside the consumer's, so that decoding, merging and encoding overlap."""

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

PATIENCE = 0.1  # seconds between looks at whether the consumer still listens


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prefetch(items: Generator[T], depth: int) -> Generator[T]:
    """Yields `items`, made in a thread that is at most `depth` items ahead.

    An exception in `items` is raised here, in its place. Closing this generator (do it with
    `contextlib.closing` where `items` reads something that is closed afterwards) stops the thread,
    waits for it and closes `items`.
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


def side_by_side(work: Callable[[T], R], items: Generator[T], workers: int) -> Generator[R]:
    """What `work` makes of `items`, in their order, on as many threads as there are `workers`.

    `items` run in the consumer's thread, at most `workers` ahead of it; closing this generator
    closes them. An exception of `work` is raised here, in its place.
    """
    with closing(items), ThreadPoolExecutor(workers, "worker") as pool:
        yield from in_order((pool.submit(work, item) for item in items), workers + 1)


def in_order(jobs: Iterable[Future[R]], ahead: int) -> Generator[R]:
    """Results of `jobs`, at most `ahead` of them under way."""
    running: deque[Future[R]] = deque()
    for job in jobs:
        running.append(job)
        if len(running) >= ahead:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


def _fill(items: Generator[T], ahead: queue.Queue, stopped: threading.Event) -> None:
    """Puts (item, error, whether it was the last) into `ahead`, until the consumer has stopped."""

    def put(item: T | None, error: BaseException | None = None, last: bool = False) -> None:
        while not stopped.is_set():
            try:
                return ahead.put((item, error, last), timeout=PATIENCE)
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
