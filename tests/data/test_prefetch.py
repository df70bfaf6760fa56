"""Running ahead: order, bounds, errors, an early end."""

import threading
import time
from contextlib import closing

import pytest

from odfs_jax.data.prefetch import prefetch


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
