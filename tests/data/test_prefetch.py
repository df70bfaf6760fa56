"""Running ahead: order, bounds, errors, an early end."""

import threading
import time
from contextlib import closing

import pytest

from odfs_jax.data.prefetch import prefetch, side_by_side


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


def test_side_by_side_keeps_the_order_and_uses_all_workers():
    together = threading.Barrier(3, timeout=20)

    def slow_at_first(number):
        if number < 3:
            together.wait()  # all three are under way at once
        time.sleep(0.05 if number % 3 == 0 else 0)
        return 2 * number

    closed: list[str] = []
    done = list(side_by_side(slow_at_first, counted(12, [], closed), 3))
    assert done == list(range(0, 24, 2)) and closed


def test_side_by_side_is_bounded_and_closes_the_source():
    made, closed = [], []
    with closing(side_by_side(str, counted(1000, made, closed), 3)) as items:
        assert [next(items), next(items)] == ["0", "1"]
    assert closed and len(made) <= 2 + 3


def test_an_error_of_the_work_arrives_in_its_place():
    items = side_by_side(lambda number: 1 / (2 - number), counted(9, [], []), 4)
    assert [next(items), next(items)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(items)
