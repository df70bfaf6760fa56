"""What a run shows on a terminal: what it waits for, then a bar; the lines of the log go above it.

It is drawn by a thread of its own from what others have measured anyway, so that the loop neither
waits for it nor knows of it.
"""

import logging
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Self

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from odfs_jax.runtime.progress import duration, shows_bars

log = logging.getLogger(__name__)

REDRAW = 0.5  # seconds
WIDEST = 100  # columns
SHOWN = 2  # losses beside the bar
LAST = "_face"  # how the names of losses end that are shown before others


class Console:
    """The bar of a run, as long as it is entered; in a pipe there is the log alone.

    Where another loop draws, that of `odfs-swap` say, there is none either.
    """

    def __init__(self, enabled: bool = True) -> None:
        """Of several processes of a run one is `enabled`."""
        self._shown = enabled and shows_bars()
        self._text: Callable[[], str] = lambda: ""
        self._where: Callable[[], int] = lambda: 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="console", daemon=True)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        if self._shown:
            self._open.enter_context(logging_redirect_tqdm())
            size = shutil.get_terminal_size((WIDEST, 24))
            self._bar = tqdm(
                bar_format="{desc}",
                file=sys.stderr,
                ncols=min(WIDEST, size.columns),
                nrows=size.lines,  # by itself tqdm draws nothing where a terminal says it has none
                leave=False,
            )
            self._open.callback(self._bar.close)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        self._open.close()

    @contextmanager
    def waiting(self, what: str, done: str) -> Iterator[None]:
        """Shows that the run is busy with `what`, and for how long; then logs that it is `done`."""
        start = time.monotonic()
        if not self._shown:
            log.info("%s ...", what)
        self._text = lambda: f"{what} ... {time.monotonic() - start:.0f} s"
        yield
        self._text = lambda: ""
        log.info("%s in %.0f s", done, time.monotonic() - start)

    def follow(
        self,
        target: int,
        batch_size: int,
        where: Callable[[], int],
        rate: Callable[[], float],
        losses: Callable[[], Mapping[str, float]],
    ) -> None:
        """From now on shows how far the run is: the iteration `where`, `rate` of them a second.

        `target` 0: it has none. `losses` are the last means by name.
        """
        self._where = where
        self._text = lambda: describe(where(), target, rate(), batch_size, losses())
        if self._shown and target:
            self._bar.total, self._bar.bar_format = target, "|{bar}| {desc}"

    def _run(self) -> None:
        while not self._over.wait(REDRAW):
            self._bar.n = self._where()
            self._bar.set_description_str(self._text(), refresh=False)
            self._bar.refresh()


def describe(
    step: int, target: int, rate: float, batch_size: int, losses: Mapping[str, float]
) -> str:
    """Where a run is, in words; `rate` in iterations a second, 0 while it is not known."""
    parts = [f"{step:,} of {target:,}" if target else f"iteration {step:,}"]
    if rate and target:
        parts.append(f"{duration((target - step) / rate)} left")
    if rate:
        parts.append(f"{rate * batch_size:.1f} pairs/s")
    names = sorted(losses, key=lambda name: not name.endswith(LAST))
    parts += [f"{name} {losses[name]:.4f}" for name in names[:SHOWN]]
    return ", ".join(parts)
