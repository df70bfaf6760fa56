"""The reader of foreign pickles: what Python and NumPy write comes back, all else is refused."""

import collections
import datetime
import os
import pickle
import pickletools
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odfs_jax.errors import BadFileError
from odfs_jax.interop import pickles

WITNESS = Path("/tmp/odfs-was-unpickled")
CODES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")

arrays = st.builds(
    lambda code, shape, order: np.arange(np.prod(shape)).reshape(shape).astype(code, order=order),
    st.sampled_from(CODES), st.lists(st.integers(0, 3), max_size=4).map(tuple),
    st.sampled_from("CF"),
)  # fmt: skip
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=300) | arrays
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(st.sampled_from(["a/weight:0", "iter", ""]), inner, max_size=5)
    ),
    max_leaves=6,
)


def assert_same(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        found, expected = list(found.values()), list(expected.values())
    if isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype and found.shape == expected.shape
        assert found.tobytes() == expected.tobytes()
    elif isinstance(expected, float):
        assert struct.pack("d", found) == struct.pack("d", expected)
    else:
        assert found == expected


@given(values, st.sampled_from([3, 4, 5]))
@settings(max_examples=40, deadline=None)
def test_what_python_writes_comes_back(value, protocol):
    assert_same(pickles.parse(pickle.dumps(value, protocol)), value)


@given(values)
@settings(max_examples=40, deadline=None)
def test_what_is_written_here_is_read_by_python_and_here(value):
    content = b"".join(pickles.encode(value))
    assert_same(pickle.loads(content), value)
    assert_same(pickles.parse(content), value)
    assert b"_core" not in content  # which NumPy before 2.0 has not


def test_scalars_of_numpy_become_python_numbers():
    options = {"a": np.int64(-7), "b": np.int32(3), "c": np.float64(0.5), "d": np.bool_(True)}
    found = pickles.parse(pickle.dumps(options, 4))
    assert found == {"a": -7, "b": 3, "c": 0.5, "d": True}
    assert [type(value) for value in found.values()] == [int, int, float, bool]


def test_the_names_of_old_numpy_are_known():
    content = pickle.dumps(np.arange(6.0).reshape(2, 3), 3)
    old = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != content
    assert_same(pickles.parse(old), np.arange(6.0).reshape(2, 3))
    assert_same(pickles.parse(OLD_DTYPE), np.array([1, 2], "<i2"))


def test_enumerations_only_where_they_are_awaited():
    content = b"\x80\x04" + text("facelib.FaceType") + text("FaceType") + b"\x93K\x04\x85R."
    assert pickles.parse(content, pickles.ENUMS) == 4
    with pytest.raises(ValueError, match=r"the global 'facelib\.FaceType\.FaceType'"):
        pickles.parse(content)


def test_an_array_is_a_view_and_cannot_be_written():
    content = pickle.dumps(np.zeros(1000, np.float32), 4)
    found = pickles.parse(content)
    assert not found.flags.owndata and not found.flags.writeable


def test_long_histories_are_read():
    history = [[0.25 * i, 0.5] for i in range(1500)]
    assert pickles.parse(pickle.dumps(history, 4)) == history


# ------------------------------------------------------------------------------------ hostile files


class Calls:
    """Pickled, it calls `what` with `arguments`."""

    def __init__(self, what, *arguments):
        self._how = (what, arguments)

    def __reduce__(self):
        return self._how


class Stated:
    def __init__(self):
        self.__dict__["a"] = 1


class Slotted(dict):
    def __reduce_ex__(self, protocol):
        return (dict, (), {"a": 1})


class New:
    def __reduce_ex__(self, protocol):
        import copyreg

        return (copyreg.__newobj__, (New, 1))


class NewEx:
    def __reduce_ex__(self, protocol):
        import copyreg

        return (copyreg.__newobj_ex__, (NewEx, (), {"a": 1}))


def text(value):
    return b"\x8c" + bytes([len(value.encode())]) + value.encode()


def touch(protocol):
    return pickle.dumps(Calls(os.system, f"touch {WITNESS}"), protocol)


def named(module, name):
    return text(module) + text(name) + b"\x93"


def array(shape, content=b"", code="f4", order="<", version=1, rest=b"\x89", state=None, kind=None):
    """A pickled array with anything in it."""
    dtype = named("numpy", "dtype") + text(code) + b"\x89\x88\x87R("
    dtype += state or (b"K\x03" + text(order) + b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00")
    made = named("numpy.core.multiarray", "_reconstruct")
    made += (kind or named("numpy", "ndarray")) + b"K\x00\x85C\x01b\x87R("
    made += bytes([0x4B, version]) + shape + dtype + b"tb" + rest
    return b"\x80\x04" + made + b"B" + struct.pack("<I", len(content)) + content + b"tb."


def lengths(*shape):
    return b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", n) for n in shape) + b"t"


OLD_DTYPE = (
    b"\x80\x03cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85q\x02"
    b"C\x01bq\x03\x87q\x04Rq\x05(K\x01K\x02\x85q\x06cnumpy\ndtype\nq\x07X\x02\x00\x00\x00i2q\x08"
    b"K\x00K\x01\x87q\x09Rq\x0a(K\x03X\x01\x00\x00\x00<q\x0bNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
    b"K\x00tq\x0cb\x89C\x04\x01\x00\x02\x00q\x0dtq\x0eb."
)
GOOD = array(lengths(2), b"\0" * 8)
LAUGHS = b"\x80\x04]\x94" + b"".join(
    b"](" + b"h" + bytes([n]) + b"h" + bytes([n]) + b"e\x94" for n in range(40)
)
SYSTEM = text("os") + text("system")
COMMAND = text(f"touch {WITNESS}")
HOSTILE = {
    "os.system, protocol 0": (touch(0), "no pickle of protocol"),
    "os.system, protocol 1": (touch(1), "no pickle of protocol"),
    "os.system, protocol 2": (touch(2), "no pickle of protocol"),
    "os.system, GLOBAL": (touch(3), r"the global 'posix\.system'"),
    "os.system, STACK_GLOBAL": (touch(4), r"the global 'posix\.system'"),
    "os.system, protocol 5": (touch(5), r"the global 'posix\.system'"),
    "os.system, INST": (b"\x80\x03(" + COMMAND[:0] + b"Vtouch\nios\nsystem\n.", "UNICODE|INST"),
    "INST": (b"\x80\x04(ios\nsystem\n.", "the operation INST"),
    "os.system, OBJ": (b"\x80\x04(" + COMMAND + b"o.", "the operation OBJ"),
    "NEWOBJ": (pickle.dumps(New(), 3), "the global"),
    "NEWOBJ of an allowed one": (b"\x80\x04" + named("numpy", "ndarray") + b")\x81.", "NEWOBJ"),
    "NEWOBJ_EX": (pickle.dumps(NewEx(), 4), "the global"),
    "NEWOBJ_EX of an allowed one":
        (b"\x80\x04" + named("numpy", "ndarray") + b")}\x92.", "NEWOBJ_EX"),
    "EXT1": (b"\x80\x04\x82\x01.", "the operation EXT1"),
    "EXT2": (b"\x80\x04\x83\x01\x00.", "the operation EXT2"),
    "EXT4": (b"\x80\x04\x84\x01\x00\x00\x00.", "the operation EXT4"),
    "PERSID": (b"\x80\x04Pa\n.", "the operation PERSID"),
    "BINPERSID": (b"\x80\x04NQ.", "the operation BINPERSID"),
    "NEXT_BUFFER": (b"\x80\x05\x97.", "the operation NEXT_BUFFER"),
    "READONLY_BUFFER": (b"\x80\x05\x97\x98.", "NEXT_BUFFER"),
    "BUILD of an object": (pickle.dumps(Stated(), 4), "the global"),
    "BUILD of a dict": (b"\x80\x04}}b.", "BUILD of dict"),
    "BUILD of a global": (b"\x80\x04" + named("numpy", "ndarray") + b"}b.", "BUILD of ndarray"),
    "BUILD of an array twice": (GOOD[:-1] + b"}b.", "BUILD of ndarray"),
    "a subclass of dict": (pickle.dumps(Slotted(), 4), "the global"),
    "eval": (pickle.dumps(Calls(eval, "1+1"), 4), r"the global 'builtins\.eval'"),
    "getattr": (pickle.dumps(Calls(getattr, 1, "real"), 4), r"'builtins\.getattr'"),
    "OrderedDict": (pickle.dumps(collections.OrderedDict(a=1), 4), "OrderedDict"),
    "datetime": (pickle.dumps(datetime.date(2020, 1, 1), 4), "datetime"),
    "a class by name": (pickle.dumps(Path, 4), "the global"),
    "a set": (pickle.dumps({1, 2}, 4), "EMPTY_SET"),
    "a frozenset": (pickle.dumps(frozenset([1]), 4), "the operation FROZENSET"),
    "complex": (pickle.dumps(1j, 4), "complex"),
    "bytes": (pickle.dumps(b"abc", 4), "bytes outside of an array"),
    "a huge integer": (pickle.dumps(1 << 80, 4), "more than 64 bits"),
    "LONG4": (b"\x80\x04\x8b\xff\xff\xff\x7f.", "the operation LONG4"),
    "text opcodes": (b"\x80\x04I5\n.", "the operation INT"),
    "DUP": (b"\x80\x04]2.", "the operation DUP"),
    "POP": (b"\x80\x04]0.", "the operation POP"),
    "an unknown opcode": (b"\x80\x04\xff.", "unknown operation 0xff"),
    "numpy by attribute": (b"\x80\x04" + named("numpy", "ndarray.__class__") + b".", "the global"),
    "numpy load": (b"\x80\x04" + named("numpy", "load") + b".", r"the global 'numpy\.load'"),
    "another module": (b"\x80\x04" + named("numpy.core", "multiarray._reconstruct") + b".", "glob"),
    "a spoof, dotless i": (b"\x80\x04" + named("numpy.core.multıarray", "scalar") + b".", "global"),
    "a spoof, wide letters": (b"\x80\x04" + named("ｎｕｍｐｙ", "dtype") + b".", "global"),
    "a spoof, no-break space": (b"\x80\x04" + named("numpy\xa0", "dtype") + b".", "global"),
    "a spoof with escapes": (b"\x80\x04" + named("\x1b[31mnumpy\n", "dtype") + b".", "global"),
    "a name that is no text": (b"\x80\x04K\x01K\x02\x93.", "a global whose name"),
    "GLOBAL in protocol 4": (b"\x80\x04cnumpy\ndtype\n.", "the operation GLOBAL"),
    "GLOBAL without an end": (b"\x80\x03cnumpy", "cut off"),
    "a global as a value": (b"\x80\x04" + named("numpy", "dtype") + b".", "no value"),
    "ndarray called": (b"\x80\x04" + named("numpy", "ndarray") + b"K\x09\x85\x85R.", "odd arg"),
    "_reconstruct of another": (array(lengths(2), b"\0" * 8, kind=b"N"), "odd arguments"),
    "_reconstruct of a dtype":
        (array(lengths(2), b"\0" * 8, kind=named("numpy", "dtype")), "odd arguments"),
    "array without a state": (b"\x80\x04" + named("numpy.core.multiarray", "_reconstruct")
                              + named("numpy", "ndarray") + b"K\x00\x85C\x01b\x87R.", "without"),
    "objects": (pickle.dumps(np.array([Calls(os.system, "true")], object), 4), "odd arguments"),
    "dtype O": (array(lengths(1), b"\0" * 8, code="O8"), "odd arguments"),
    "dtype V": (array(lengths(1), b"\0" * 8, code="V8"), "odd arguments"),
    "dtype U": (pickle.dumps(np.array(["ab"]), 4), "odd arguments"),
    "a structured dtype": (pickle.dumps(np.zeros(2, "i4,f4"), 4), "odd arguments|operation"),
    "a dtype with fields": (array(lengths(2), b"\0" * 8, state=b"K\x03" + text("<")
                                  + b"}}N" + b"K\x08K\x04K\x00"), "odd state"),
    "big-endian": (pickle.dumps(np.zeros(2, ">f4"), 4), "byte order"),
    "datetime64": (pickle.dumps(np.zeros(1, "M8[s]"), 4), "odd arguments"),
    "a type without a state": (b"\x80\x04" + named("numpy.core.multiarray", "scalar")
                               + named("numpy", "dtype") + text("f4") + b"\x89\x88\x87R"
                               + b"C\x04\0\0\0\0\x86R.", "without a type"),
    "a huge shape": (array(lengths(1 << 60), b"\0" * 8), "the length of an array"),
    "a product above 64 bits": (array(lengths(*[1 << 39] * 4), b"\0" * 8), "in 8 bytes"),
    "a negative shape": (array(lengths(-1, -2), b"\0" * 8), "the length of an array"),
    "a bool for a length": (array(b"\x88\x85", b"\0" * 4), "the length of an array"),
    "five axes": (array(lengths(1, 1, 1, 1, 2), b"\0" * 8), "more than 4 axes"),
    "no shape": (array(b"N", b"\0" * 8), "no shape"),
    "too few bytes": (array(lengths(3), b"\0" * 8), "in 8 bytes"),
    "too many bytes": (array(lengths(1), b"\0" * 8), "in 8 bytes"),
    "a wrong version": (array(lengths(2), b"\0" * 8, version=2), "odd state"),
    "an odd order": (array(lengths(2), b"\0" * 8, rest=b"K\x01"), "odd state"),
    "the same bytes in many arrays": (None, "more bytes than the file has"),
    "laughs": (LAUGHS + b".", "a list in two places"),
    "laughs of tuples": (b"\x80\x04)" + b"".join(
        b"\x94h" + bytes([n]) + b"h" + bytes([n]) + b"\x87" for n in range(30)) + b".", "places"),
    "a list in itself": (b"\x80\x04]\x94h\x00a.", "a list in two places"),
    "a dict in itself": (pickle.dumps((lambda d: d.update(a=d) or d)({}), 4), "a dict in two"),
    "deep lists": (b"\x80\x04" + b"]" * 9 + b"a" * 8 + b".", "in each other"),
    "very deep tuples": (b"\x80\x04N" + b"\x85" * 20_000 + b".", "in each other"),
    "very deep key": (b"\x80\x04}N" + b"\x85" * 20_000 + b"Ns.", "a key that is no text"),
    "very deep state": (b"\x80\x04}N" + b"\x85" * 20_000 + b"b.", "BUILD of dict"),
    "lists without end": (b"\x80\x04" + b"]" * 70_000 + b".", "too many values"),
    "keys that are numbers": (pickle.dumps({1: 2}, 4), "a key that is no text"),
    "a key twice": (b"\x80\x04}(" + text("a") + b"N" + text("a") + b"Nu.", "twice"),
    "a key without a value": (b"\x80\x04}(" + text("a") + b"u.", "without a value"),
    "items for a tuple": (b"\x80\x04)Na.", "no list"),
    "items for a number": (b"\x80\x04K\x01(Ne.", "no list"),
    "no mark": (b"\x80\x04]NNe.", "MARK that is not there"),
    "a mark as the value": (b"\x80\x04(.", "no value"),
    "a mark in a tuple": (b"\x80\x04(\x85.", "a mark where"),
    "a mark kept": (b"\x80\x04(\x94.", "a mark in the memo"),
    "memo out of range": (b"\x80\x04h\x07.", "value 7 of the memo"),
    "memo far out of range": (b"\x80\x04j\xff\xff\xff\xff.", "value 4294967295 of the memo"),
    "memo twice": (b"\x80\x04Nq\x00q\x00.", "a second value 0"),
    "an empty stack": (b"\x80\x04\x86.", "cut off"),
    "nothing": (b"\x80\x04.", "0 values"),
    "two values": (b"\x80\x04NN.", "2 values"),
    "two STOPs": (b"\x80\x04N..", "1 bytes behind"),
    "trailing data": (pickle.dumps([], 4) + b"cos\nsystem\n", "bytes behind"),
    "two pickles": (pickle.dumps([], 4) * 2, "bytes behind"),
    "no STOP": (b"\x80\x04N", "cut off"),
    "empty": (b"", "no pickle"),
    "one byte": (b"\x80", "no pickle"),
    "protocol 6": (b"\x80\x06N.", "no pickle of protocol"),
    "a second PROTO": (b"\x80\x04\x80\x03N.", "the operation PROTO"),
    "operations of later protocols": (b"\x80\x03N\x94.", "MEMOIZE at byte 3 .* protocol 3"),
    "BYTEARRAY8 before protocol 5": (b"\x80\x04\x96" + b"\0" * 8 + b".", "BYTEARRAY8"),
    "a bytearray": (pickle.dumps(bytearray(b"ab"), 5), "bytes outside"),
    "a frame past the end": (b"\x80\x04\x95" + b"\xff" * 8 + b"N.", "FRAME of more"),
    "a text past the end": (b"\x80\x04X\xff\xff\xff\xffab.", "more than there are"),
    "bytes past the end": (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7fab.", "more than there are"),
    "text that is no UTF-8": (b"\x80\x04\x8c\x01\xff.", "utf-8"),
    "half a surrogate pair": (pickle.dumps("\ud800", 4), "utf-8"),
    "_codecs.encode": (pickle.dumps(b"\xff", 2).replace(b"\x80\x02", b"\x80\x03"), "_codecs"),
}  # fmt: skip
_state = array(lengths(64), b"\0" * 256)
_start = _state.index(b"B" + struct.pack("<I", 256))
_once = _state[2:_start] + b"h\x00tb"
HOSTILE["the same bytes in many arrays"] = (
    b"\x80\x04](" + _state[2:-3] + b"\x94tb" + _once * 20 + b"e.",
    "more bytes than the file has",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line(tmp_path, name):
    content, reason = HOSTILE[name]
    path = tmp_path / "a_SAEHD_data.dat"
    path.write_bytes(content)
    with pytest.raises(BadFileError, match=reason) as error:
        pickles.read(path, 1 << 24)
    message = str(error.value)
    assert message.startswith(str(path)) and message.isprintable() and len(message) < 400
    assert not WITNESS.exists()


def test_a_cut_file_is_refused_wherever_it_is_cut():
    content = pickle.dumps({"iter": 3, "a": np.ones((2, 2), "f4"), "b": [1, (2.5, "x")]}, 4)
    for end in range(len(content)):
        with pytest.raises(ValueError):
            pickles.parse(content[:end])


def test_every_operation_of_python_is_either_taken_or_refused_by_name():
    for operation in pickletools.opcodes:
        if operation.name not in pickles.OPERATIONS and operation.name != "STOP":
            with pytest.raises(ValueError, match=f"the operation {operation.name} at byte 2"):
                pickles.parse(b"\x80\x05" + operation.code.encode("latin-1") + b"\0" * 16)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(GOOD)
    assert pickles.read(path, len(GOOD)).shape == (2,)
    with pytest.raises(BadFileError, match="more than 10 bytes"):
        pickles.read(path, 10)


def test_the_package_never_loads_with_python_unpickler():
    for path in Path(pickles.__file__).parent.glob("*.py"):
        source = path.read_text()
        for way in (
            "import pickle\n",
            "from pickle ",
            "import marshal",
            "allow_pickle=True",
            "eval(",
        ):
            assert way not in source, path
