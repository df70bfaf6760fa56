"""The errors that a user's input can cause; any other exception is a bug."""

from pathlib import Path


class UserError(Exception):
    """A mistake the user can mend. One line: what, what was found, what was expected, what to do.

    The command line prints the message and exits with code 2.
    """


class BadFileError(UserError):
    """A file that cannot be used. Loops over many files name it, skip it and count it."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)
        self.reason = reason

    def __reduce__(self) -> tuple:
        return type(self), (self.path, self.reason)  # so that it comes back from another process
