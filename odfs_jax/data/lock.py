"""One writer at a time: `with locked(folder, "sorting faces"):`, for faces, models and results.

Whatever renames, adds or removes files in an aligned folder or in a model's folder holds its lock;
what writes a result, which is replaced as a whole, holds that of `locked_result`. The lock is the
operating system's (flock): it ends with its process, whatever ends that, so none is ever stale. The
file `.odfs_lock` in the folder, or `.NAME.odfs_lock` beside the result, carries it, and says who
has it.

Workers that each do a part of one clip share that lock, and each holds one of its part alone, in a
file whose name ends in the part's.
"""

import fcntl
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from odfs_jax.data import atomic
from odfs_jax.errors import UserError

log = logging.getLogger(__name__)

LOCK = ".odfs_lock"
TRIES, POLL = 6, 0.2  # a folder in use is tried again; seconds apart
TRIES_TO_BEGIN = 300  # while other parts begin, each in turn
LONGEST = 200  # bytes that are read of who holds a lock
_ours: set[tuple[Path, int]] = set()  # files of locks of this process, and the threads with them


class InUseError(UserError):
    """Another process, or another thread, holds a lock."""


@contextmanager
def locked(folder: Path, work: str, part: str | None = None) -> Iterator[None]:
    """Holds the lock of `folder`, which must be there; `work` tells others what is done in it.

    With `part` it is shared with other parts, but not with this one. Inside of another `locked` of
    the same folder and thread it does nothing. Raises UserError when the folder cannot be written,
    or another process, or another thread, holds the lock for longer than TRIES * POLL seconds.
    """
    atomic.check_writable(folder)
    with _locked(folder.resolve() / LOCK, folder, work, part):
        yield


@contextmanager
def locked_result(path: Path, work: str, part: str | None = None) -> Iterator[None]:
    """Holds the lock of a file or folder that is, or will be, at `path`; `work` is done to it.

    `part`, a lock that the thread holds already, and the UserError raised are as in `locked`.
    """
    atomic.check_writable(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(_lock_of_result(path), path, work, part):
        yield


@contextmanager
def beginning(folder: Path) -> Iterator[None]:
    """Lets one part at a time look at, and write, what all workers in `folder` begin with.

    Raises UserError when another one takes longer than TRIES_TO_BEGIN * POLL seconds.
    """
    with _held(folder.resolve() / f"{LOCK}.begin", folder, "beginning", tries=TRIES_TO_BEGIN):
        yield


@contextmanager
def beginning_result(path: Path) -> Iterator[None]:
    """Lets one part at a time look at, and write, what all workers at a result begin with.

    The result is, or will be, at `path`. Raises UserError as `beginning`.
    """
    lock = _lock_of_result(path)
    with _held(lock.with_name(f"{lock.name}.begin"), path, "beginning", tries=TRIES_TO_BEGIN):
        yield


def _lock_of_result(path: Path) -> Path:
    name = os.fsdecode(os.fsencode(path.name)[: atomic.LONGEST])
    return path.parent.resolve() / f".{name}{LOCK}"


@contextmanager
def _locked(lock: Path, what: Path, work: str, part: str | None) -> Iterator[None]:
    ours = lock, threading.get_ident()
    if ours in _ours:
        yield
        return
    with ExitStack() as stack:
        if part is not None:
            own = lock.with_name(f"{lock.name}.{part}")
            stack.enter_context(_held(own, what, f"{work}, shard {part}"))
        stack.enter_context(_held(lock, what, work, is_shared=part is not None))
        _ours.add(ours)
        try:
            yield
        finally:
            _ours.remove(ours)


@contextmanager
def _held(
    lock: Path, what: Path, work: str, is_shared: bool = False, tries: int = TRIES
) -> Iterator[None]:
    handle = _acquire(what, lock, work, is_shared, tries)
    try:
        yield
    finally:
        with suppress(OSError):
            if is_shared:  # others may go on; who is alone takes the file away
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_at(handle, lock):  # not so where the folder was replaced meanwhile
                lock.unlink()
        os.close(handle)


def holder(folder: Path) -> str | None:
    """Who holds the lock of `folder` or of a part, as a message says it; None when nobody does."""
    for path in (folder / LOCK, *sorted(folder.glob(f"{LOCK}.*"))):
        if who := _holder_of(path):
            return who
    return None


def _holder_of(path: Path) -> str | None:
    handle = open_there(path, os.O_RDONLY)
    if handle is None:
        return None
    try:
        is_held = isinstance(refusal(handle, fcntl.LOCK_SH), BlockingIOError)
        return _read(handle) if is_held else None
    finally:
        os.close(handle)


def open_there(path: Path, mode: int) -> int | None:
    """A descriptor of the file at `path`, no symlink; None where it is not to be had."""
    try:
        return os.open(path, mode | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None


def refusal(handle: int, kind: int) -> OSError | None:
    """Takes the lock of an open file, LOCK_SH or LOCK_EX, at once; else why it cannot be had."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except OSError as error:
        return error
    return None


def require_empty(folder: Path) -> None:
    """Raises UserError unless nothing is at `folder`, or an empty one that nobody works in."""
    if who := holder(folder):
        raise UserError(f"{folder}: in use ({who}); wait for that to end, or stop it")
    if folder.is_dir():
        for left in (folder / LOCK, *folder.glob(f"{LOCK}.*")):  # by processes that were killed
            left.unlink(missing_ok=True)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: not empty; move its files, or give another data.*.aligned=")


def _acquire(what: Path, path: Path, work: str, is_shared: bool, tries: int) -> int:
    """The open and locked file at `path`, the lock of `what`."""
    who, kind = "another process", fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
    for attempt in range(tries):
        if attempt:
            time.sleep(POLL)
        handle = _open(path)
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            who = _read(handle)
            os.close(handle)
            continue
        except OSError as error:
            reason = error.strerror
            log.warning("%s: cannot be locked (%s); let nothing else write there", what, reason)
        if is_at(handle, path):  # else who held it has removed it just now
            os.truncate(handle, 0)
            os.write(handle, f"{work}, process {os.getpid()} on {socket.gethostname()}".encode())
            return handle
        os.close(handle)
    raise InUseError(f"{what}: in use ({who}); wait for that to end, or stop it")


def _open(path: Path) -> int:
    """Opens the file of a lock, a new one if there is none. Raises UserError for anything else."""
    handle = atomic.open_own(path)
    if os.fstat(handle).st_nlink > 1:  # its content will be replaced
        os.close(handle)
        raise UserError(f"{path}: not a file of this program; remove it")
    return handle


def is_at(handle: int, path: Path) -> bool:
    """True when the open file `handle` is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def _read(handle: int) -> str:
    return os.pread(handle, LONGEST, 0).decode(errors="replace") or "another process"
