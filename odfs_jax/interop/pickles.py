"""The pickles that DeepFaceLab's files are: read without running anything, and written.

A pickle is a program, and Python's own unpickler calls whatever the program names. `parse` is
another machine: it knows the operations that such files need, keeps what they name as plain text,
and makes None, bool, int, float, str, list, tuple, dict with text keys, and NumPy arrays of
numbers. Nothing that a file names is ever imported or called. All else is refused.

Sources: docs/from_deepfacelab.md; the operations and their arguments: Python's `pickletools`, whose
table of names is all that is used of it; numpy/core/src/multiarray/methods.c and descriptor.c for
what an array's and a type's state is.
"""

import math
import pickletools
import struct
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from struct import Struct
from typing import Any

import numpy as np

from odfs_jax.data import foreign
from odfs_jax.errors import BadFileError

MAX_DEPTH = 8  # of lists, tuples and dicts in each other
MAX_RANK = 4  # axes of an array
MAX_STEPS = 1 << 25  # operations: a history of five million iterations
MAX_MEMO = 1 << 23  # values that are kept to be used again
MAX_STACK = 1 << 16  # values that wait to be put into a container; Python does so by the thousand
SMALL = 8  # items of a tuple that may stand in several places
STOP = 0x2E
BATCH = 1000  # items at once, in what is written
UINT8, UINT16, UINT32, UINT64 = map(Struct, ("<B", "<H", "<I", "<Q"))
INT32, FLOAT64 = Struct("<i"), Struct(">d")
NAMES = {ord(operation.code): operation.name for operation in pickletools.opcodes}
CODES = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)} | {"f2", "f4", "f8", "b1"}

_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
GLOBALS = {
    **{(module, "_reconstruct"): "array" for module in _MULTIARRAY},
    **{(module, "scalar"): "scalar" for module in _MULTIARRAY},
    **{(module, "_frombuffer"): "buffer" for module in _NUMERIC},
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
}
ENUMS = {("facelib.FaceType", "FaceType"), ("samplelib.Sample", "SampleType")}  # in faceset.pak


def read(path: Path, most: int) -> Any:
    """The value in the pickle at `path`, of at most `most` bytes: see `parse`. BadFileError."""
    content = foreign.read_bytes(path, most)
    try:
        return parse(content)
    except ValueError as error:
        raise BadFileError(path, str(error)) from error


def parse(content: bytes | memoryview, enums: Collection[tuple[str, str]] = ()) -> Any:
    """The value of a pickle of protocol 3, 4 or 5. Raises ValueError saying what is refused.

    Arrays are read-only views of `content`, of at most MAX_RANK axes, and have no more bytes
    together than it has. Scalars of NumPy become those of Python. `enums` are (module, name) of
    enumerations whose members become their int.
    """
    return _Machine(memoryview(content), enums).run()


class _Global:
    """What a file named: one of the things that a file may name, by what it is here."""

    def __init__(self, meaning: str) -> None:
        self.meaning = meaning


class _Type:
    """A NumPy type of numbers; usable once its state is set, which tells its byte order."""

    def __init__(self, code: str) -> None:
        self.code, self.is_set = code, False


class _Array:
    """An array before its state is set. `kept` are its places in the memo."""

    def __init__(self) -> None:
        self.kept: list[int] = []


_MARK = object()


class _Machine:
    """The stack, the memo and the place in one pickle."""

    def __init__(self, content: memoryview, enums: Collection[tuple[str, str]]) -> None:
        self._content, self._place = content, 0
        self._globals = GLOBALS | dict.fromkeys(enums, "enum")
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._protocol = 0
        self._array_bytes = 0

    def run(self) -> Any:
        """The value that the pickle makes."""
        content, stack, steps = self._content, self._stack, 0
        if bytes(content[:1]) != b"\x80" or len(content) < 2 or content[1] not in (3, 4, 5):
            raise ValueError("no pickle of protocol 3, 4 or 5")
        self._protocol, self._place = content[1], 2
        operations = OPERATIONS_OF[self._protocol]
        try:
            while (code := content[self._place]) != STOP:
                self._place += 1
                if code not in operations:
                    raise ValueError(self._refusal(code))
                operations[code](self)
                steps += 1
                if steps > MAX_STEPS or len(stack) > MAX_STACK:
                    raise ValueError("a pickle of too many values")
        except (IndexError, struct.error) as error:  # of `content` or of the stack
            raise ValueError("a pickle that is cut off, or takes what is not there") from error
        if self._place + 1 != len(content):
            raise ValueError(f"{len(content) - self._place - 1} bytes behind the pickle's STOP")
        if len(stack) != 1:
            raise ValueError(f"{len(stack)} values at the pickle's STOP, not one")
        _check(stack[0])
        return stack[0]

    def _refusal(self, code: int) -> str:
        """Why the operation `code` is not taken."""
        name = f"operation {NAMES[code]}" if code in NAMES else f"unknown operation {code:#04x}"
        return f"the {name} at byte {self._place - 1} of a pickle of protocol {self._protocol}"

    # Bytes

    def _take(self, count: int) -> memoryview:
        end = self._place + count
        if end > len(self._content):
            raise ValueError(f"a value of {count:,} bytes, more than there are")
        part = self._content[self._place : end]
        self._place = end
        return part

    def _number(self, form: Struct) -> Any:
        (value,) = form.unpack_from(self._content, self._place)
        self._place += form.size
        return value

    def _text(self, form: Struct) -> None:
        self._stack.append(str(self._take(self._number(form)), "utf-8"))

    def _buffer(self, form: Struct) -> None:
        self._stack.append(self._take(self._number(form)))

    # Structure

    def _frame(self) -> None:
        if self._number(UINT64) > len(self._content) - self._place:
            raise ValueError("a FRAME of more bytes than there are")

    def _keep(self, index: int) -> None:
        if index in self._memo:
            raise ValueError(f"a second value {index} in the memo")
        if len(self._memo) >= MAX_MEMO:
            raise ValueError(f"more than {MAX_MEMO:,} values in the memo")
        value = self._stack[-1]
        if value is _MARK:
            raise ValueError("a mark in the memo")
        if isinstance(value, _Array):
            value.kept.append(index)
        self._memo[index] = value

    def _get(self, form: Struct) -> None:
        """Puts a kept value on the stack; no container, whose copies in copies have no end."""
        index = self._number(form)
        if index not in self._memo:
            raise ValueError(f"value {index} of the memo, which is not there")
        value = self._memo[index]
        if isinstance(value, tuple) and len(value) <= SMALL:
            fits = not any(isinstance(item, list | tuple | dict) for item in value)
        else:
            fits = not isinstance(value, list | tuple | dict | _Array)
        if not fits:
            raise ValueError(f"a {type(value).__name__.strip('_').lower()} in two places")
        self._stack.append(value)

    # Containers

    def _since_mark(self) -> list[Any]:
        stack = self._stack
        place = len(stack) - 1
        while stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise ValueError("a MARK that is not there")
        found = stack[place + 1 :]
        del stack[place:]
        return found

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value is wanted")
        return value

    def _append(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise ValueError("items for what is no list")
        self._stack[-1].extend(items)

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise ValueError("items for what is no dict, or a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not str:
                raise ValueError(f"a key that is no text, {_shown(key)}")
            if key in target:
                raise ValueError(f"the key {foreign.shown(key)} twice")
            target[key] = value

    def _tuple(self, count: int) -> None:
        items = tuple(self._pop() for _ in range(count))[::-1]
        self._stack.append(items)

    # Objects

    def _global(self, module: str, name: str) -> None:
        meaning = self._globals.get((module, name))
        if meaning is None:
            raise ValueError(f"the global {foreign.shown(f'{module}.{name}', 120)}: not taken")
        self._stack.append(_Global(meaning))

    def _global_of_lines(self) -> None:
        end = self._place
        for _ in range(2):
            while self._content[end] != 0x0A:
                end += 1
            end += 1
        module, name, _ = str(self._take(end - self._place), "utf-8").split("\n")
        self._global(module, name)

    def _global_of_stack(self) -> None:
        name, module = self._pop(), self._pop()
        if type(module) is not str or type(name) is not str:
            raise ValueError("a global whose name is no text")
        self._global(module, name)

    def _reduce(self) -> None:
        arguments, what = self._pop(), self._pop()
        if not isinstance(what, _Global) or type(arguments) is not tuple:
            raise ValueError(f"REDUCE of {_shown(what)}")
        match what.meaning, arguments:
            case "array", (_Global(meaning="ndarray"), (0,), memoryview() as code) if code == b"b":
                made = _Array()
            case "dtype", (str(code), 0 | False, 1 | True) if code in CODES:  # 0, 1: old NumPy
                made = _Type(code)
            case "scalar", (_Type() as kind, memoryview() as content):
                made = self._numbers(content, kind, (), "C").item()
            case "buffer", (memoryview() as content, kind, shape, "C" | "F" as order):
                if self._protocol < 5:
                    raise ValueError("_frombuffer before protocol 5")
                made = self._numbers(content, kind, shape, order)
            case "enum", (int(value),):
                made = foreign.integer(value, "the member of an enumeration", 0, 1000)
            case _:
                shown = ", ".join(map(_shown, arguments[:5]))
                raise ValueError(f"a NumPy {what.meaning} of odd arguments ({shown})")
        self._stack.append(made)

    def _build(self) -> None:
        state = self._pop()
        what = self._stack[-1]
        match what, state:
            case _Type(is_set=False), (3, str(order), None, None, None, -1, -1, 0):
                if order != ("|" if what.code[1] == "1" else "<"):
                    raise ValueError(f"a type of byte order {_shown(order)}")
                what.is_set = True
            case _Array(), (1, shape, kind, bool(in_columns), memoryview() as content):
                array = self._numbers(content, kind, shape, "F" if in_columns else "C")
                self._stack[-1] = array
                for index in what.kept:
                    self._memo[index] = array
            case _Type() | _Array(), _:
                raise ValueError("BUILD of an array or a type with an odd state")
            case _:
                raise ValueError(f"BUILD of {_shown(what)}")

    def _numbers(self, content: memoryview, kind: Any, shape: Any, order: str) -> np.ndarray:
        dtype = _dtype(kind)
        if type(shape) is not tuple or len(shape) > MAX_RANK:
            raise ValueError(f"an array of more than {MAX_RANK} axes, or of no shape")
        for length in shape:
            foreign.integer(length, "the length of an array", 0, 1 << 40)
        if math.prod(shape) * dtype.itemsize != len(content):
            raise ValueError(f"an array of shape {shape} and type {dtype} in {len(content)} bytes")
        self._array_bytes += len(content)
        if self._array_bytes > len(self._content):
            raise ValueError("arrays of more bytes than the file has")
        return np.frombuffer(content, dtype).reshape(shape, order=order)


def _dtype(kind: Any) -> np.dtype:
    if not isinstance(kind, _Type) or not kind.is_set:
        raise ValueError("an array without a type")
    return np.dtype(f"<{kind.code}")


def _shown(value: Any) -> str:
    """`value` for a message; containers, which may be deep, by their kind."""
    if value is None or isinstance(value, bool | int | float | str):
        return foreign.shown(value)
    return getattr(value, "meaning", type(value).__name__.strip("_").lower())


def _check(value: Any) -> None:
    """Raises ValueError for a depth above MAX_DEPTH, and for what is no value of its own."""
    level, depth = [value], 0
    while level:
        inner: list[Any] = []
        for item in level:
            if isinstance(item, list | tuple | dict):
                if depth == MAX_DEPTH:
                    raise ValueError(f"more than {MAX_DEPTH} lists and dicts in each other")
                inner.extend(item.values() if isinstance(item, dict) else item)
            elif not (item is None or isinstance(item, bool | int | float | str | np.ndarray)):
                kinds = {
                    _Array: "an array without content",
                    memoryview: "bytes outside of an array",
                }
                raise ValueError(kinds.get(type(item), "something that is no value"))
        level, depth = inner, depth + 1


def _integer_of_bytes(machine: _Machine) -> None:
    content = machine._take(machine._number(UINT8))
    if len(content) > 8:
        raise ValueError("an integer of more than 64 bits")
    machine._stack.append(int.from_bytes(content, "little", signed=True))


def _constant(value: Any) -> Callable[[_Machine], None]:
    return lambda m: m._stack.append(value)


def _scalar(form: Struct) -> Callable[[_Machine], None]:
    return lambda m: m._stack.append(m._number(form))


def _pair(machine: _Machine) -> list[Any]:
    value, key = machine._pop(), machine._pop()
    return [key, value]


# What is taken: {name: (first protocol, last protocol, what it does)}
OPERATIONS: dict[str, tuple[int, int, Callable[[_Machine], None]]] = {
    "FRAME": (4, 5, _Machine._frame),
    "MARK": (3, 5, _constant(_MARK)),
    "MEMOIZE": (4, 5, lambda m: m._keep(len(m._memo))),
    "BINPUT": (3, 5, lambda m: m._keep(m._number(UINT8))),
    "LONG_BINPUT": (3, 5, lambda m: m._keep(m._number(UINT32))),
    "BINGET": (3, 5, lambda m: m._get(UINT8)),
    "LONG_BINGET": (3, 5, lambda m: m._get(UINT32)),
    "NONE": (3, 5, _constant(None)),
    "NEWTRUE": (3, 5, _constant(True)),
    "NEWFALSE": (3, 5, _constant(False)),
    "BININT": (3, 5, _scalar(INT32)),
    "BININT1": (3, 5, _scalar(UINT8)),
    "BININT2": (3, 5, _scalar(UINT16)),
    "LONG1": (3, 5, _integer_of_bytes),
    "BINFLOAT": (3, 5, _scalar(FLOAT64)),
    "SHORT_BINUNICODE": (4, 5, lambda m: m._text(UINT8)),
    "BINUNICODE": (3, 5, lambda m: m._text(UINT32)),
    "SHORT_BINBYTES": (3, 5, lambda m: m._buffer(UINT8)),
    "BINBYTES": (3, 5, lambda m: m._buffer(UINT32)),
    "BINBYTES8": (4, 5, lambda m: m._buffer(UINT64)),
    "BYTEARRAY8": (5, 5, lambda m: m._buffer(UINT64)),
    "EMPTY_DICT": (3, 5, lambda m: m._stack.append({})),
    "SETITEM": (3, 5, lambda m: m._set(_pair(m))),
    "SETITEMS": (3, 5, lambda m: m._set(m._since_mark())),
    "EMPTY_LIST": (3, 5, lambda m: m._stack.append([])),
    "APPEND": (3, 5, lambda m: m._append([m._pop()])),
    "APPENDS": (3, 5, lambda m: m._append(m._since_mark())),
    "EMPTY_TUPLE": (3, 5, _constant(())),
    "TUPLE": (3, 5, lambda m: m._stack.append(tuple(m._since_mark()))),
    "TUPLE1": (3, 5, lambda m: m._tuple(1)),
    "TUPLE2": (3, 5, lambda m: m._tuple(2)),
    "TUPLE3": (3, 5, lambda m: m._tuple(3)),
    "GLOBAL": (3, 3, _Machine._global_of_lines),
    "STACK_GLOBAL": (4, 5, _Machine._global_of_stack),
    "REDUCE": (3, 5, _Machine._reduce),
    "BUILD": (3, 5, _Machine._build),
}

OPERATIONS_OF = {  # {protocol: {code: what it does}}
    protocol: {
        code: OPERATIONS[name][2]
        for code, name in NAMES.items()
        if name in OPERATIONS and OPERATIONS[name][0] <= protocol <= OPERATIONS[name][1]
    }
    for protocol in (3, 4, 5)
}


# Writing


def encode(value: Any) -> Iterator[bytes]:
    """`value` as a pickle of protocol 4, in parts to be written one after the other.

    Of None, bool, int, float, str, list, tuple, dict, NumPy arrays. Arrays are named as NumPy
    before 2.0 names them, which all later versions read. Nothing is kept for a second use.
    """
    yield b"\x80\x04"
    yield from _parts(value)
    yield b"."


def _parts(value: Any) -> Iterator[bytes]:
    match value:
        case None:
            yield b"N"
        case bool():
            yield b"\x88" if value else b"\x89"
        case int():
            content = value.to_bytes(8, "little", signed=True)
            yield b"\x8a\x08" + content
        case float():
            yield b"G" + struct.pack(">d", value)
        case str():
            content = value.encode()
            yield b"X" + struct.pack("<I", len(content)) + content
        case tuple():
            yield b"("
            for item in value:
                yield from _parts(item)
            yield b"t"
        case list():
            yield from _batches(b"]", value, b"e")
        case dict():
            yield from _batches(b"}", [part for pair in value.items() for part in pair], b"u")
        case np.ndarray():
            yield from _array_parts(value)
        case _:
            raise TypeError(f"{type(value).__name__} is not written into a pickle")


def _batches(empty: bytes, items: list[Any], put: bytes) -> Iterator[bytes]:
    """A container that is filled by a thousand items at a time, as Python does."""
    yield empty
    for start in range(0, len(items), BATCH):
        yield b"("
        for item in items[start : start + BATCH]:
            yield from _parts(item)
        yield put


def _array_parts(array: np.ndarray) -> Iterator[bytes]:
    array = np.asarray(array, order="C")
    code = array.dtype.str[1:]
    order = "|" if array.dtype.itemsize == 1 else "<"
    if code not in CODES or array.dtype.str[0] != order:
        raise TypeError(f"an array of {array.dtype} is not written into a pickle")
    yield from _named("numpy.core.multiarray", "_reconstruct")
    yield b"(" + b"".join(_named("numpy", "ndarray")) + b"K\x00\x85" + b"C\x01b" + b"tR"
    yield b"("
    yield from _parts(1)
    yield from _parts(array.shape)
    yield from _named("numpy", "dtype")
    yield b"".join(_parts((code, False, True))) + b"R"
    yield b"".join(_parts((3, order, None, None, None, -1, -1, 0))) + b"b"
    yield b"\x89"
    yield b"\x8e" + struct.pack("<Q", array.nbytes)
    yield array.data if array.nbytes else b""
    yield b"tb"


def _named(module: str, name: str) -> Iterator[bytes]:
    for text in (module, name):
        yield b"\x8c" + struct.pack("<B", len(text)) + text.encode()
    yield b"\x93"
