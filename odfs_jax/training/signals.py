"""Stopping a run from outside: Ctrl-C and SIGTERM ask, the loop answers after its step."""

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Gives `asked()`, true once SIGINT or SIGTERM came. A second signal kills as usual."""
    asked = False
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _frame: object) -> None:
        nonlocal asked
        asked = True
        log.info("%s: saving, then stopping", signal.Signals(number).name)
        for known, handler in before.items():
            signal.signal(known, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
