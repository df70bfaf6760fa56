"""The record of the losses is exact across restarts, and checked when it is read."""

import numpy as np
import pytest

from odfs_jax.training.history import History


def test_a_row_that_a_restart_cuts_is_the_row_of_one_go():
    values = np.random.default_rng(0).uniform(0, 1, (2, 30)).astype(np.float32)
    whole, cut = History(), History()
    whole.add(dict(zip("ab", values, strict=True)))
    for part in np.split(values, [7, 8, 23], axis=1):
        cut = History.from_json(cut.to_json())
        cut.add(dict(zip("ab", part, strict=True)))
    assert cut == whole and cut.count == 30
    assert cut.means()["a"] == pytest.approx(values[0].astype(np.float64).mean(), abs=1e-12)
    cut.end_row(30, cut.means())
    assert cut.rows == [[30, whole.means()]] and cut.count == 0


def test_losses_of_other_names_begin_a_new_mean():
    history = History()
    history.add({"a": np.float32([1, 1]), "b": np.float32([1, 1])})
    history.add({"a": np.float32([4])})
    assert history.means() == {"a": 4}


def test_a_sweep_minimizes_the_last_losses_or_what_held_out_faces_lack():
    rows = [[10 * i, {"src_face": 1.0 / i, "dst_face": 2.0 / i}] for i in range(1, 31)]
    last = np.mean([3 / i for i in (28, 29, 30)])
    assert History(rows).score() == pytest.approx(last)
    assert History(rows[:1]).score() == 3
    figures = {"src_held_out": 0.8, "dst_held_out": 0.9}
    rows[20][1].update({"src_held_out": 0.1, "dst_held_out": 0.1})
    rows[25][1].update(figures)
    assert History(rows).score() == pytest.approx(0.15)
    masks = History([[5, {"mask": 0.3, "iou": 0.9, "boundary": 0.7}]])
    assert masks.score() == pytest.approx(0.2)
    unfinished = History()
    assert np.isnan(unfinished.score())
    unfinished.add({"a": np.float32([1, 3])})
    assert unfinished.score() == 2


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"rows": 3},
        {"rows": [[1]]},
        {"rows": [[1, {"a": 1.0}, 2]]},
        {"rows": [["1", {"a": 1.0}]]},
        {"rows": [[1, {"a": "1"}]]},
        {"rows": [[1, {"a": True}]]},
        {"rows": [[1, [1.0]]]},
        {"rows": [[-1, {}]]},
        {"rows": [], "count": 1.5, "sums": {"a": 1.0}},
        {"rows": [], "count": 1},
        {"rows": [], "sums": {"a": 1.0}},
        {"rows": [], "more": 1},
    ],
)
def test_a_history_that_is_none(value):
    with pytest.raises(ValueError):
        History.from_json(value)
