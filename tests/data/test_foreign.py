"""The way in for foreign data: what is taken, what is refused, and in what time."""

import os
import time

import pytest

from odfs_jax.data import foreign
from odfs_jax.errors import BadFileError, UserError


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("pipe", "zero", "folder", "loop", "none", "a" * 300, "nul\0"):
        with pytest.raises(BadFileError):
            foreign.open_regular(tmp_path / name)
        with pytest.raises(BadFileError):
            foreign.size_of_regular(tmp_path / name)
    (tmp_path / "file").write_bytes(b"123")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert foreign.read_bytes(tmp_path / "link", 3) == b"123"
    assert foreign.size_of_regular(tmp_path / "link") == 3
    with pytest.raises(BadFileError, match="more than 2 bytes"):
        foreign.read_bytes(tmp_path / "file", 2)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"NaN",
        b"[Infinity]",
        b"1e999",
        b"1" * 401,
        b"9223372036854775808",
        b"1" * 5000,
        b'{"a": 1, "a": 2}',
        b"[" * 33 + b"]" * 33,
        b"[" * 100_000,
        b'{"a":' * 50_000,
    ],
)
def test_json_that_is_refused(content):
    with pytest.raises(ValueError):
        foreign.parse_json(content)


def test_json_that_is_taken():
    assert foreign.parse_json(b'\xef\xbb\xbf{"a": [1, -2.5e3, null, true, "\\u00e9["]}') == {
        "a": [1, -2500.0, None, True, "é["]
    }
    assert foreign.parse_json("[" * 32 + "]" * 32)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff",
        b"a: [",
        b"&a [1]",
        b"- &a x\n- *a",
        b"!!python/object/apply:os.system [ls]",
        b"!!timestamp 2001-01-01",
        b"!!str x",
        b"! x",
        b"a: 1\na: 2",
        b"[a]: 1",
        b"1\n---\n2",
        b"a: ${oc.env:HOME}",
        b"${a}: 1",
        b"a: '???'",
        b"1" * 401,
        b"-9223372036854775808",
        b"1e999",
        b"[" * 33 + b"]" * 33,
        b"[" * 10_000,
        b"- - - " * 5_000,
        b"\x00",
    ],
)
def test_yaml_that_is_refused(content):
    with pytest.raises(ValueError):
        foreign.parse_yaml(content, 1000)


def test_yaml_that_is_taken():
    content = (
        b"\xef\xbb\xbf- from: 120  # a comment\n  mode: seamless\n  erode: -10\n  blur: 1e1\n"
        b"  keep: [eyes, 'null', \"1\", ~]\n  on: 1_000\n  at: 2001-01-01\n  hex: 0x10\n"
        b"  far: .5\n  plus: +3\n  dash: '-'\n  odd: 1-2\n  dot: .\n  inf: .inf\n  e: e1\n"
        b"  yes: True\n"
    )
    assert foreign.parse_yaml(content, 1000) == [
        {
            **{"from": 120, "mode": "seamless", "erode": -10, "blur": 10.0},
            **{"keep": ["eyes", "null", "1", None], "on": "1_000", "at": "2001-01-01"},
            **{"hex": "0x10", "far": 0.5, "plus": 3, "dash": "-", "odd": "1-2", "dot": "."},
            **{"inf": ".inf", "e": "e1", "yes": True},
        }
    ]
    assert foreign.parse_yaml(b"", 1) is None
    assert foreign.parse_yaml(b"x", 1) == "x"
    with pytest.raises(ValueError, match="more than 3 values"):
        foreign.parse_yaml(b"[1, 2, 3]", 3)


def test_a_megabyte_of_yaml_takes_seconds():
    content = b"".join(b"- from: %d\n  erode: 1\n" % number for number in range(40_000))
    start = time.perf_counter()
    assert len(foreign.parse_yaml(content, 1_000_000)) == 40_000
    assert time.perf_counter() - start < 10


def test_values_are_checked():
    assert foreign.integer(3, "n", 0, 3) == 3
    assert foreign.number(3, "n") == 3.0
    assert foreign.plain_name("é\u3000.png", "n") == "é\u3000.png"
    for check, value in (
        (lambda v: foreign.integer(v, "n", 0, 3), 4),
        (lambda v: foreign.integer(v, "n", 0, 3), True),
        (lambda v: foreign.integer(v, "n", 0, 3), 1.0),
        (lambda v: foreign.number(v, "n"), float("nan")),
        (lambda v: foreign.number(v, "n"), 10**400),
        (lambda v: foreign.number(v, "n"), "1"),
        (lambda v: foreign.text(v, "n", 3), "four"),
        (lambda v: foreign.listing(v, "n", 2), [1]),
        (lambda v: foreign.mapping(v, "n", ["a"]), {}),
        (lambda v: foreign.mapping(v, "n"), {1: 2}),
        (lambda v: foreign.mapping(v, "n", allowed=["a"]), {"b": 1}),
    ):
        with pytest.raises(ValueError, match=r"^n "):
            check(value)
    for name in ("", ".", "..", "a/b", "a/", "a\0", "a" * 256, "é" * 128, 3):
        with pytest.raises(ValueError, match=r"not a plain file name|not a text"):
            foreign.plain_name(name, "n")


def test_foreign_text_cannot_command_a_terminal():
    hostile = "\x1b[2J\x1b]0;pwn\x07\nsecond\r\x7f\x9b\u202e\u2028\ud800"
    written = "\\x1b[2J\\x1b]0;pwn\\x07\\nsecond\\r\\x7f\\x9b\\u202e\\u2028\\ud800"
    assert str(UserError(f"é 名\u3000: {hostile}")) == f"é 名\u3000: {written}"
    assert str(BadFileError(f"a{hostile}", hostile)) == f"a{written}: {written}"
    assert len(str(UserError("x" * 100_000))) < 5000
    assert foreign.shown(hostile, 500) == repr(hostile)
    assert foreign.shown("x" * 100_000) == "'" + "x" * 59 + "..."
