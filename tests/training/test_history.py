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
