"""The one way in for what others made: files, JSON, YAML, and text that is shown.

Whatever a user was given (a clip, a faceset, a model, a workspace) may have been made to do harm.
So only regular files are opened; they are read up to a limit; JSON and YAML are parsed to plain
values (None, bool, int, float, str, list, dict) of bounded depth and number; and every value is
checked for its type and range before it is used. The parsers and the checks raise ValueError, whose
text says what is wrong; the functions that take a path raise BadFileError.
"""

import contextlib
import json
import math
import os
import re
import stat
import zipfile
from collections.abc import Collection, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import yaml
from numpy.lib import format as npy

from odfs_jax.errors import BadFileError, printable

MAX_DEPTH = 32  # of lists and objects in each other
MAX_INTEGER = 1 << 63  # an integer is smaller than this and larger than its negative
MAX_ARRAYS = 1 << 31  # bytes of the arrays of an .npz; the largest weight file has 96 MB
PLAIN_NUMBERS = {int, float}
LONGEST_NAME = 255  # bytes of a file name, on all file systems of today
INTEGER = re.compile(r"[+-]?\d+", re.ASCII)  # plain scalars of YAML
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


# Files


def open_regular(path: Path) -> BinaryIO:
    """Opens the file at `path` for reading. Raises BadFileError unless it is a regular file.

    A pipe would wait for ever, a device never ends. A link to a regular file is followed.
    """
    try:
        _check_regular(path, os.stat(path).st_mode)
        # Another file may take its place meanwhile: opening must not wait, and is checked again.
        # `open` with an opener, not os.fdopen: libraries ask a file for its name.
        file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 the caller closes it
    except (OSError, ValueError) as error:  # ValueError: a name with NUL
        raise BadFileError(path, _why(error)) from error
    try:
        _check_regular(path, os.fstat(file.fileno()).st_mode)
    except BadFileError:
        file.close()
        raise
    return file


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def size_of_regular(path: Path) -> int:
    """The size in bytes of the file at `path`. Raises BadFileError unless it is a regular file.

    For libraries that open files by themselves: call it first.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        raise BadFileError(path, _why(error)) from error
    _check_regular(path, found.st_mode)
    return found.st_size


def read_bytes(path: Path, most: int) -> bytes:
    """The content of the regular file at `path`, of at most `most` bytes. Raises BadFileError."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise BadFileError(path, f"more than {most} bytes")
        try:
            content = file.read(size + 1)
            if len(content) > size:  # it grows
                content += file.read(most + 1 - len(content))
        except OSError as error:
            raise BadFileError(path, _why(error)) from error
    if len(content) > most:
        raise BadFileError(path, f"more than {most} bytes")
    return content


def read_secret(path: Path, most: int) -> bytes:
    """The content of a file that only its owner may read or change. Raises BadFileError."""
    with open_regular(path) as file:
        if os.name == "posix" and os.fstat(file.fileno()).st_mode & 0o077:
            raise BadFileError(path, f"other users can read this secret; run: chmod 600 {path}")
    return read_bytes(path, most)


def read_json(path: Path, most: int) -> Any:
    """The plain value in the JSON file at `path`, of at most `most` bytes. Raises BadFileError."""
    try:
        return parse_json(read_bytes(path, most))
    except ValueError as error:
        raise BadFileError(path, f"not JSON ({error})") from error


def read_yaml(path: Path, most: int, values: int) -> Any:
    """The plain value in the YAML file at `path`: see `parse_yaml`. Raises BadFileError."""
    try:
        return parse_yaml(read_bytes(path, most), values)
    except ValueError as error:
        raise BadFileError(path, f"not YAML that is taken ({error})") from error


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz by name. Raises BadFileError; objects in it are refused, not run.

    An array may be as large as its member of the zip, all of them MAX_ARRAYS.
    """
    arrays: dict[str, np.ndarray] = {}
    with open_regular(path) as file:
        try:
            with zipfile.ZipFile(file) as members:
                left = MAX_ARRAYS
                for info in members.infolist():
                    left -= info.file_size
                    if left < 0:
                        raise ValueError(f"arrays of more than {MAX_ARRAYS:,} bytes")
                    with members.open(info) as member:
                        array = _read_array(member, info.file_size)
                    arrays[info.filename.removesuffix(".npy")] = array
        except Exception as error:  # zipfile and numpy raise many kinds for foreign bytes
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise BadFileError(path, f"no .npz of arrays ({reason})") from error
    return arrays


def _read_array(member: IO[bytes], size: int) -> np.ndarray:
    """The array in an .npy of `size` bytes. Raises ValueError and others."""
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    shape, in_columns, dtype = readers[npy.read_magic(member)](member, max_header_size=10_000)
    if dtype.hasobject or dtype.kind not in "fiub":
        raise ValueError(f"an array of {dtype}")
    if math.prod(shape) * dtype.itemsize > size:  # before any of it is made
        raise ValueError(f"an array of shape {shape} in {size:,} bytes")
    content = member.read(math.prod(shape) * dtype.itemsize)
    return np.frombuffer(content, dtype).reshape(shape, order="F" if in_columns else "C")


def _check_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        is_folder = stat.S_ISDIR(mode)
        raise BadFileError(path, "a folder, not a file" if is_folder else "not a regular file")


def _why(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return f"cannot be read ({getattr(error, 'strerror', None) or error})"


# Text to values


def parse_json(content: bytes | str) -> Any:
    """The plain value of a JSON text. Raises ValueError.

    Stricter than `json.loads`: no NaN or infinity, no integer of 64 bits or more, no key twice in
    an object, at most MAX_DEPTH lists and objects in each other.
    """
    value = parse_known_json(content)
    check_plain(value)
    return value


def parse_known_json(content: bytes | str) -> Any:
    """The plain value of a JSON text whose every part is checked afterwards. Raises ValueError.

    No NaN or infinity and no key twice in an object; numbers and depth are not limited here. For
    forms of which each list and number is known, and of which there are many.
    """
    try:
        return json.loads(content, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
    except RecursionError as error:
        raise ValueError(f"more than {MAX_DEPTH} lists and objects in each other") from error


def parse_yaml(content: bytes, values: int) -> Any:
    """The plain value of a YAML text in UTF-8, of at most `values` scalars and lists. ValueError.

    Plain scalars are null, true, false, decimal numbers, or text: dates, hexadecimal numbers, yes
    and no are text. Refused: anchors and aliases, whose expansion has no bound; tags, which name
    what is made of a value; a key twice; and what `refuse_references` refuses. The work is linear
    in the size of the text.
    """
    events = yaml.parse(content.decode("utf-8-sig"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    try:
        next(events)  # the stream's start
        if isinstance(next(events), yaml.StreamEndEvent):
            return None
        value = _YamlValues(events, values).read(next(events), 0)
        next(events)  # the document's end
        if not isinstance(next(events), yaml.StreamEndEvent):
            raise ValueError("a second document")
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    refuse_references(value)
    return value


def refuse_references(value: Any) -> None:
    """Raises ValueError when a text anywhere in `value` would not stand for itself in a setting.

    In OmegaConf's configurations, ${...} stands for another value, which may be a secret of the
    environment, and ??? for a missing one. A plain `value` from a file or a browser is to pass here
    before it is merged into a configuration.
    """
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            waiting += [*found.keys(), *found.values()]
        elif isinstance(found, list):
            waiting += found
        elif isinstance(found, str) and ("${" in found or found == "???"):
            raise ValueError(f"{shown(found)}: references are not resolved here")


class _YamlValues:
    """Makes plain values of YAML events."""

    def __init__(self, events: Iterator[yaml.Event], values: int) -> None:
        self._events, self._most, self._left = events, values, values

    def read(self, event: yaml.Event, depth: int) -> Any:
        """The value that begins with `event`, inside of `depth` lists and mappings."""
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"more than {self._most} values")
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise ValueError("anchors (&) and aliases (*) are not taken; write the values out")
        if event.tag is not None:
            raise ValueError(f"the tag {shown(event.tag)}: tags (!) are not taken")
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event.value) if event.implicit[0] else event.value
        if depth == MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} lists and mappings in each other")
        if isinstance(event, yaml.SequenceStartEvent):
            return [self.read(item, depth + 1) for item in self._until(yaml.SequenceEndEvent)]
        pairs = []
        for key in self._until(yaml.MappingEndEvent):
            if not isinstance(key, yaml.ScalarEvent):
                raise ValueError("a key that is a list or a mapping")
            pairs.append((self.read(key, depth + 1), self.read(next(self._events), depth + 1)))
        return _unique_keys(pairs)

    def _until(self, end: type[yaml.Event]) -> Iterator[yaml.Event]:
        while not isinstance(event := next(self._events), end):
            yield event


def _scalar(text: str) -> bool | int | float | str | None:
    """The value of a plain scalar."""
    if text in ("", "~") or text.lower() == "null":
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if INTEGER.fullmatch(text):
        return _integer(text)
    return _finite(text) if NUMBER.fullmatch(text) else text


def _integer(text: str) -> int:
    if len(text) > 20 or abs(int(text)) >= MAX_INTEGER:
        raise ValueError(f"the number {shown(text)} is too large")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {shown(text)} is too large")
    return value


def _refuse_constant(constant: str) -> float:
    raise ValueError(f"{constant} is no number")


def _unique_keys(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """The object of `pairs`; a second value of a key would replace the first unseen."""
    result: dict[Any, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"{shown(key)} stands there twice")
        result[key] = value
    return result


def check_plain(value: Any) -> None:
    """Raises ValueError for numbers in `value` that are too large, and for too great a depth."""
    level, depth = [value], 0
    while level:
        inner = []
        for item in level:
            if isinstance(item, dict | list):
                if depth == MAX_DEPTH:
                    raise ValueError(f"more than {MAX_DEPTH} lists and objects in each other")
                inner += item.values() if isinstance(item, dict) else item
            elif isinstance(item, int) and abs(item) >= MAX_INTEGER:
                raise ValueError("a number of 64 bits or more")
            elif isinstance(item, float) and not math.isfinite(item):
                raise ValueError("a number that is too large")
        level, depth = inner, depth + 1


# Values: `name` is what an error calls them


def integer(value: Any, name: str, low: int, high: int) -> int:
    """`value`, an int (no bool) of `low` to `high`. Raises ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} {shown(value)} is not an integer in {low}..{high}")
    return value


def number(value: Any, name: str, low: float = -1e9, high: float = 1e9) -> float:
    """`value`, an int or float (no bool) of `low` to `high`, as a float. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} {shown(value)} is not a number")
    if not low <= value <= high:  # false for NaN
        raise ValueError(f"{name} {shown(value)} is out of range ({low:g} to {high:g})")
    return float(value)


def numbers(value: Any, name: str, shape: tuple[int, int], limit: float = 1e9) -> np.ndarray:
    """`value`, lists of numbers of -`limit` to `limit`, as float64 [*shape]. Raises ValueError."""
    rows = listing(value, name, shape[0])
    if all(type(row) is list and len(row) == shape[1] for row in rows):
        flat = list(chain.from_iterable(rows))
        with contextlib.suppress(OverflowError):  # an integer of hundreds of digits
            if PLAIN_NUMBERS.issuperset(map(type, flat)):
                found = np.array(flat, np.float64).reshape(shape)
                if (np.abs(found) <= limit).all():
                    return found
    for row in rows:  # to say what is wrong
        for item in listing(row, name, shape[1]):
            number(item, name, -limit, limit)
    raise ValueError(f"{name} is not {shape[0]} lists of {shape[1]} numbers")


def text(value: Any, name: str, longest: int = 1024) -> str:
    """`value`, a text of at most `longest` characters. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"{name} {shown(value)} is not a text")
    if len(value) > longest:
        raise ValueError(f"{name} {shown(value)} has more than {longest} characters")
    return value


def plain_name(value: Any, name: str) -> str:
    """`value`, the name of a file without a folder, which can be written. Raises ValueError."""
    value = text(value, name)
    odd = value in ("", ".", "..") or "\0" in value or Path(value).name != value
    if odd or len(value.encode("utf-8", "surrogatepass")) > LONGEST_NAME:
        raise ValueError(f"{name} {shown(value)} is not a plain file name")
    return value


def listing(value: Any, name: str, length: int | None = None) -> list[Any]:
    """`value`, a list, of `length` items where that is given. Raises ValueError."""
    if not isinstance(value, list):
        raise ValueError(f"{name} {shown(value)} is not a list")
    if length is not None and len(value) != length:
        raise ValueError(f"{name} is a list of {len(value)}, not of {length}")
    return value


def mapping(
    value: Any, name: str, required: Collection[str] = (), allowed: Collection[str] | None = None
) -> dict[str, Any]:
    """`value`, an object (dict) with text keys: all of `required`, and no other than `allowed`.

    `allowed` None takes any. Raises ValueError.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{name} {shown(value)} is not an object")
    for key in required:
        if key not in value:
            raise ValueError(f"{name} has no {key}")
    for key in value:
        if not isinstance(key, str) or (allowed is not None and key not in allowed):
            known = f"; known: {', '.join(sorted(allowed))}" if allowed is not None else ""
            raise ValueError(f"{name} has the unknown key {shown(key)}{known}")
    return value


# Shown


def shown(value: Any, longest: int = 60) -> str:
    """`value` for a message: as `repr` writes it, control characters escaped, cut to `longest`."""
    whole = repr(value[: longest + 1] if isinstance(value, str | bytes) else value)
    return printable(whole if len(whole) <= longest else f"{whole[:longest]}...")
