"""Reading many files at once, in threads: OpenCV decodes without the interpreter's lock."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from odfs_jax.errors import BadFileError
from odfs_jax.runtime.progress import progress

T = TypeVar("T")


def read_all(
    files: list[Path], read: Callable[[Path], T], what: str
) -> tuple[list[tuple[Path, T]], list[BadFileError]]:
    """([(file, what `read` gives of it)], the BadFileErrors that it raised), in order of `files`.

    `what` names the loop in the progress. Anything else that `read` raises ends it at once.
    """
    done: list[tuple[Path, T]] = []
    bad: list[BadFileError] = []
    with ThreadPoolExecutor() as pool:
        jobs = [pool.submit(read, path) for path in files]
        try:
            for path, job in progress(zip(files, jobs, strict=True), len(files), what, "face"):
                try:
                    done.append((path, job.result()))
                except BadFileError as error:
                    bad.append(error)
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C need not wait for the rest
    return done, bad
