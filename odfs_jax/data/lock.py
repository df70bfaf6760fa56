"""One writer at a time: `with locked(folder, "sorting faces"):`, for faces and for models.

Whatever renames, adds or removes files in an aligned folder or in a model's folder holds its lock.
The lock is the operating system's (flock): it ends with its process, whatever ends that, so none is
ever stale. The file `.odfs_lock` in the folder carries it, and says who has it.
"""

import errno
import fcntl
import logging
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from odfs_jax.errors import UserError

log = logging.getLogger(__name__)

LOCK = ".odfs_lock"
TRIES, POLL = 6, 0.2  # a folder in use is tried again; seconds apart
LONGEST = 200  # bytes that are read of who holds a lock
_ours: dict[Path, int] = {}  # folder locked by this process -> the thread that locked it


@contextmanager
def locked(folder: Path, work: str) -> Iterator[None]:
    """Holds the lock of `folder`, which must be there; `work` tells others what is done in it.

    Inside of another `locked` of the same folder and thread it does nothing. Raises UserError when
    another process, or another thread, holds it for longer than TRIES * POLL seconds; OSError when
    the folder cannot be written.
    """
    real = folder.resolve()
    if _ours.get(real) == threading.get_ident():
        yield
        return
    handle = _acquire(folder, real / LOCK, work)
    _ours[real] = threading.get_ident()
    try:
        yield
    finally:
        del _ours[real]
        with suppress(OSError):
            if _is_at(handle, real / LOCK):  # not so where the folder was replaced meanwhile
                (real / LOCK).unlink()
        os.close(handle)


def holder(folder: Path) -> str | None:
    """Who holds the lock of `folder`, as a message says it; None when nobody does."""
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(handle)
    except OSError:
        return None
    finally:
        os.close(handle)
    return None


def require_empty(folder: Path) -> None:
    """Raises UserError unless nothing is at `folder`, or an empty one that nobody works in."""
    if who := holder(folder):
        raise UserError(f"{folder}: in use ({who}); wait for that to end, or stop it")
    if folder.is_dir():
        (folder / LOCK).unlink(missing_ok=True)  # of a process that was killed
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: not empty; move its files, or give another data.*.aligned=")


def _acquire(folder: Path, path: Path, work: str) -> int:
    """The open and locked file at `path`."""
    who = "another process"
    for attempt in range(TRIES):
        if attempt:
            time.sleep(POLL)
        handle = _open(path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = _read(handle)
            os.close(handle)
            continue
        except OSError as error:
            reason = error.strerror
            log.warning("%s: cannot be locked (%s); let nothing else write there", folder, reason)
        if _is_at(handle, path):  # else who held it has removed it just now
            os.truncate(handle, 0)
            os.write(handle, f"{work}, process {os.getpid()} on {socket.gethostname()}".encode())
            return handle
        os.close(handle)
    raise UserError(f"{folder}: in use ({who}); wait for that to end, or stop it")


def _open(path: Path) -> int:
    """Opens the file of a lock, a new one if there is none. Raises UserError for anything else."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        handle = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        raise UserError(f"{path}: not the lock of this program; remove it") from error
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:  # its content will be replaced
        os.close(handle)
        raise UserError(f"{path}: not the lock of this program; remove it")
    return handle


def _is_at(handle: int, path: Path) -> bool:
    """True when the open file `handle` is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def _read(handle: int) -> str:
    return os.pread(handle, LONGEST, 0).decode(errors="replace") or "another process"
