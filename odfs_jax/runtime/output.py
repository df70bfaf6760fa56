"""What commands say: lines on stdout, and log lines on stderr, which no terminal obeys.

Names of files and texts in them may be a stranger's: see `errors.printable`.
"""

import logging
import sys

from odfs_jax.errors import printable


def say(*lines: str) -> None:
    """Writes `lines` to stdout."""
    sys.stdout.write("".join(f"{printable(line)}\n" for line in lines))


def start_logging() -> None:
    """Shows the program's log on stderr, and warnings of libraries: one line a message."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Printable("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("odfs_jax").setLevel(logging.INFO)


class Printable(logging.Formatter):
    """A log line that no terminal obeys."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))
