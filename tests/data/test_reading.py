"""Reading many files: order, bad files, and an end that does not wait."""

import threading
from pathlib import Path

import pytest

from odfs_jax.data.reading import read_all
from odfs_jax.errors import BadFileError

FILES = [Path(str(number)) for number in range(50)]


def test_order_is_kept_and_bad_files_are_apart():
    def read(path):
        if int(path.name) % 7 == 3:
            raise BadFileError(path, "odd")
        return int(path.name) ** 2

    done, bad = read_all(FILES, read, "reading")
    assert done == [(p, int(p.name) ** 2) for p in FILES if int(p.name) % 7 != 3]
    assert [error.path for error in bad] == [p for p in FILES if int(p.name) % 7 == 3]


def test_another_error_ends_it_without_reading_the_rest():
    started, go = [], threading.Event()

    def read(path):
        started.append(path)
        if path.name == "0":
            raise KeyError("a bug")
        go.wait(0.2)

    with pytest.raises(KeyError, match="a bug"):
        read_all(FILES * 20, read, "reading")
    assert len(started) < 200
