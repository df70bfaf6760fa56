"""Atomic writes: a reader, or the next run after a crash, never sees a half-written file.

What is not finished yet has a hidden name with `.partial`, and its writer holds a lock on it. What
a killed writer left is removed by the next process that writes into the same folder.
"""

import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from odfs_jax.errors import UserError

LEFTOVER = re.compile(r"\..*-[a-z0-9_]{8}\.partial(\.[^.]*)?", re.DOTALL)  # as `_hidden` makes them
LONGEST = 200  # bytes of a name that are kept in its hidden one
UMASK = os.umask(0o077)
os.umask(UMASK)
_cleaned: set[Path] = set()  # folders whose leftovers this process has removed


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is synced and renamed to `path`.

    On any exception the temporary file is removed and `path` is unchanged. The temporary path has
    the suffix of `path`, because some writers choose their format by it. Without `durable` it is
    not synced: after a power cut the file may be empty.
    """
    _make_ready(path.parent)
    temporary, handle = _held(lambda: _new_file(path))
    try:
        yield temporary
        if durable:
            sync(temporary)
        os.chmod(temporary, 0o666 & ~UMASK)  # mkstemp makes 0600
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yields a new temporary folder; on success it is renamed to `path`.

    There must be nothing at `path`, or an empty folder. On any exception the new one is removed and
    `path` is unchanged.
    """
    _make_ready(path.parent)
    parent, handle = _held(lambda: _new_folder(path))
    try:
        new = parent / "new"
        new.mkdir()
        yield new
        os.replace(new, path)  # raises OSError where something is in the way
    finally:
        shutil.rmtree(parent)
        os.close(handle)


def remove_folder(path: Path) -> None:
    """Removes a folder with all that is in it; no reader, nor the next run, sees a part of it."""
    _make_ready(path.parent)
    parent, handle = _held(lambda: _new_folder(path))
    try:
        os.replace(path, parent / "old")
    finally:
        shutil.rmtree(parent)
        os.close(handle)


def write_bytes(path: Path, content: bytes, durable: bool = True) -> None:
    """Writes `content` to `path` atomically. On OSError (disk full) `path` is unchanged."""
    with replacing(path, durable) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str, durable: bool = True) -> None:
    """Writes `content` to `path` as UTF-8, atomically. On OSError `path` is unchanged."""
    write_bytes(path, content.encode(), durable)


@contextmanager
def appending(path: Path) -> Iterator[BinaryIO]:
    """The file at `path`, to be read and appended to; see `open_own`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(open_own(path, os.O_APPEND), "ab+") as file:
        yield file


def open_own(path: Path, flags: int = 0) -> int:
    """A descriptor of the file at `path` for reading and writing; a new one where there is none.

    For files of this program in a folder that may be a stranger's, which are not replaced as a
    whole. Raises UserError for a link, which may lead to a file of the user's, and for what is no
    regular file.
    """
    flags |= os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        handle = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        raise UserError(f"{path}: not a file of this program; remove it") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise UserError(f"{path}: not a file of this program; remove it")
    return handle


def sync(path: Path) -> None:
    """Flushes the content of a file, or the entries of a folder, to the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_writable(path: Path) -> None:
    """Raises UserError when nothing can be written at `path`, a file or folder there or to come.

    To be called before anything slow begins. Makes nothing.
    """
    place = path if path.is_dir() else path.parent
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise UserError(f"{path}: {place} is no folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"{place}: nothing can be written there ({_why_not(place)})")


def _why_not(folder: Path) -> str:
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return os.strerror(errno.EROFS)
    return os.strerror(errno.EACCES)


def _make_ready(folder: Path) -> None:
    """Makes `folder` if need be; the first time, removes what killed writers left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    if folder in _cleaned:
        return
    _cleaned.add(folder)
    with os.scandir(folder) as entries:
        left = [Path(entry.path) for entry in entries if LEFTOVER.fullmatch(entry.name)]
    for path in left:
        with suppress(OSError):  # somebody else's, or gone meanwhile
            _remove_unless_held(path)


def _remove_unless_held(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    finally:
        os.close(handle)


def _held(make: Callable[[], Path]) -> tuple[Path, int]:
    """(what `make` made, open and locked until it is closed or the process ends)."""
    while True:
        path = make()
        handle = os.open(path, os.O_RDONLY)
        with suppress(OSError):  # a file system without locks: there nothing is removed either
            fcntl.flock(handle, fcntl.LOCK_EX)
        if path.exists():  # else somebody removed it before it was locked
            return path, handle
        os.close(handle)


def _new_file(path: Path) -> Path:
    handle, name = tempfile.mkstemp(f".partial{path.suffix}", _hidden(path.stem), path.parent)
    os.close(handle)
    return Path(name)


def _new_folder(path: Path) -> Path:
    return Path(tempfile.mkdtemp(".partial", _hidden(path.name), path.parent))


def _hidden(name: str) -> str:
    """How the hidden name of what will be called `name` begins."""
    return os.fsdecode(b"." + os.fsencode(name)[:LONGEST] + b"-")
