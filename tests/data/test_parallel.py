"""Threads beside the consumer: order, bounds, errors, an early end; files read at once."""

import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from odfs_jax.data.parallel import parallel_map, prefetch, read_files
from odfs_jax.errors import BadFileError

FILES = [Path(str(number)) for number in range(50)]


def counted(limit, made, closed):
    try:
        for number in range(limit):
            made.append(number)
            yield number
    finally:
        closed.append(threading.current_thread().name)


def test_order_is_kept_and_the_thread_ends():
    made, closed = [], []
    assert list(prefetch(counted(50, made, closed), 3)) == list(range(50))
    assert closed == ["prefetch"]


def test_no_more_than_depth_is_made_ahead():
    made: list[int] = []
    with closing(prefetch(counted(50, made, []), 3)) as items:
        next(items)
        time.sleep(0.2)
        assert len(made) <= 1 + 3 + 1  # handed over, waiting, and one in the thread's hand


def test_closing_early_stops_and_closes_the_source():
    made, closed = [], []
    with closing(prefetch(counted(1000, made, closed), 2)) as items:
        assert next(items) == 0
    assert closed and len(made) < 10


def test_closing_a_chain_closes_all_of_it():
    closed: list[str] = []
    inner = prefetch(counted(1000, [], closed), 2)

    def doubled():
        with closing(inner):
            for item in inner:
                yield 2 * item

    with closing(prefetch(doubled(), 2)) as items:
        assert [next(items), next(items)] == [0, 2]
    assert closed


def test_an_error_arrives_in_its_place():
    def broken():
        yield 1
        raise ValueError("the second")

    items = prefetch(broken(), 4)
    assert next(items) == 1
    with pytest.raises(ValueError, match="the second"):
        next(items)


def test_parallel_map_keeps_the_order_and_uses_all_workers():
    together = threading.Barrier(3, timeout=20)

    def slow_at_first(number):
        if number < 3:
            together.wait()  # all three are under way at once
        time.sleep(0.05 if number % 3 == 0 else 0)
        return 2 * number

    closed: list[str] = []
    done = list(parallel_map(slow_at_first, counted(12, [], closed), 3))
    assert done == list(range(0, 24, 2)) and closed


def test_parallel_map_is_bounded_and_closes_the_source():
    made, closed = [], []
    with closing(parallel_map(str, counted(1000, made, closed), 3)) as items:
        assert [next(items), next(items)] == ["0", "1"]
    assert closed and len(made) <= 2 + 3


def test_an_error_of_the_function_arrives_in_its_place():
    items = parallel_map(lambda number: 1 / (2 - number), counted(9, [], []), 4)
    assert [next(items), next(items)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(items)


def test_files_keep_their_order_and_bad_ones_are_apart():
    def read(path):
        if int(path.name) % 7 == 3:
            raise BadFileError(path, "odd")
        return int(path.name) ** 2

    done, bad = read_files(FILES, read, "reading")
    assert done == [(p, int(p.name) ** 2) for p in FILES if int(p.name) % 7 != 3]
    assert [error.path for error in bad] == [p for p in FILES if int(p.name) % 7 == 3]


def test_another_error_ends_the_reading_without_the_rest():
    started, never = [], threading.Event()

    def read(path):
        started.append(path)
        if path.name == "0":
            raise KeyError("a bug")
        never.wait(0.2)

    with pytest.raises(KeyError, match="a bug"):
        read_files(FILES * 20, read, "reading")
    assert len(started) < 200
