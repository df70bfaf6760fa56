"""Running ahead of a consumer in a thread, so that decoding, merging and encoding overlap."""

import queue
import threading
from collections.abc import Generator
from contextlib import closing
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 0.1  # seconds between looks at whether the consumer still listens


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
