"""The losses of a run so far, as its checkpoints keep them."""

import math
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from odfs_jax.data import foreign

MAX_ROWS = 1 << 24
MAX_STEP = 1 << 31


@dataclass
class History:
    """A row [step, {name: mean since the row before}] for each log line, and sums since the last.

    The sums make the mean of a row that a restart cuts in two exact.
    """

    rows: list = field(default_factory=list)
    count: int = 0  # of the values in `sums`
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, columns: dict[str, np.ndarray]) -> None:
        """Adds the values [n] of n iterations, by name."""
        if self.sums.keys() - columns.keys():  # the settings of the loss changed at a restart
            self.count, self.sums = 0, {}
        self.count += len(next(iter(columns.values())))
        for name, values in columns.items():
            # One after the other: what is left to add after a restart then gives the same sum.
            total = np.cumsum(np.append(self.sums.get(name, 0.0), values.astype(np.float64)))
            self.sums[name] = float(total[-1])

    def means(self) -> dict[str, float]:
        """The means since the last row."""
        return {name: total / self.count for name, total in self.sums.items()}

    def end_row(self, step: int, means: dict[str, float]) -> None:
        """Adds the row of `step`; the next one begins."""
        self.rows.append([step, means])
        self.count, self.sums = 0, {}

    def to_json(self) -> dict[str, Any]:
        """A copy, which `from_json` reads."""
        return {"rows": list(self.rows), "count": self.count, "sums": dict(self.sums)}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The history that `to_json` gave; one without sums is of an older version.

        Raises ValueError for anything else.
        """
        content = foreign.mapping(value, "history", ("rows",), ("rows", "count", "sums"))
        rows = foreign.listing(content["rows"], "history.rows")
        if len(rows) > MAX_ROWS:
            raise ValueError(f"a history of {len(rows)} rows")
        for row in rows:
            step, losses = foreign.listing(row, "a row of the history", 2)
            foreign.integer(step, "its step", 0, MAX_STEP)
            _check_losses(losses)
        sums = content.get("sums", {})
        _check_losses(sums)
        count = foreign.integer(content.get("count", 0), "history.count", 0, MAX_STEP)
        if bool(count) != bool(sums):
            raise ValueError("history.sums do not fit history.count")
        return cls(rows, count, sums)


def _check_losses(losses: Any) -> None:
    for name, value in foreign.mapping(losses, "losses").items():
        foreign.text(name, "the name of a loss", 200)
        foreign.number(value, f"the loss {foreign.shown(name)}", -math.inf, math.inf)
