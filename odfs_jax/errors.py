"""The errors that a user's input can cause; any other exception is a bug."""

import unicodedata
from pathlib import Path

MAX_SHOWN = 4000  # characters of a message: two paths of the greatest length do not fill a screen
CONTROLS = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode categories
JOINERS = "\u200c\u200d"  # which scripts and emoji need inside of words


class UserError(Exception):
    """A mistake the user can mend. One line: what, what was found, what was expected, what to do.

    The command line prints the message and exits with code 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class BadFileError(UserError):
    """A file that cannot be used. Loops over many files name it, skip it and count it."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)
        self.reason = reason

    def __reduce__(self) -> tuple:
        return type(self), (self.path, self.reason)  # so that it comes back from another process


def printable(message: str) -> str:
    """`message` on one line that no terminal obeys, of at most MAX_SHOWN characters.

    Names and texts in a message may be a stranger's. Control characters (a line's end, an escape
    sequence, marks that turn the direction of writing, half of a surrogate pair) are written as
    Python writes them in a literal: \\n, \\x1b, \\u202e. All other text stays as it is.
    """
    if not (message.isascii() and message.isprintable()):
        message = "".join(map(_escaped, message))
    return message if len(message) <= MAX_SHOWN else f"{message[:MAX_SHOWN]}..."


def _escaped(letter: str) -> str:
    if letter in JOINERS or unicodedata.category(letter) not in CONTROLS:
        return letter
    return letter.encode("unicode_escape").decode()
