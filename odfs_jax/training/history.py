"""The losses of a run so far, as its checkpoints keep them."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from odfs_jax.data import foreign

# As `Objective.make_measure` names them: those that a run is judged by, and all.
HELD_OUT = re.compile(r".*_held_out|iou|boundary")
MEASURED = re.compile(r".*_held_out(/.*)?|iou|boundary")
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

    def score(self) -> float:
        """What a sweep minimizes; NaN where nothing was trained.

        1 less the mean of the last figures of held-out faces, where there are some; else the sum of
        all losses, a mean over the last tenth of the rows.
        """
        figures = [row for row in (held_out(means) for _, means in self.rows) if row]
        if figures:
            return 1 - float(np.mean(figures[-1]))
        means = [means for _, means in self.rows] or [self.means()]
        last = means[-max(1, len(means) // 10) :]
        return float(np.mean([total_loss(losses) for losses in last])) if last[0] else math.nan

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


def held_out(means: dict[str, float]) -> list[float]:
    """Of a row the figures of held-out faces, each 1 for the best."""
    return [value for name, value in means.items() if HELD_OUT.fullmatch(name)]


def total_loss(means: Mapping[str, float | None]) -> float:
    """The sum of a row's losses: figures of held-out faces are none, nor is what was not finite."""
    losses = (value for name, value in means.items() if not MEASURED.fullmatch(name))
    return sum(value for value in losses if value is not None)


def _check_losses(losses: Any) -> None:
    for name, value in foreign.mapping(losses, "losses").items():
        foreign.text(name, "the name of a loss", 200)
        foreign.number(value, f"the loss {foreign.shown(name)}", -math.inf, math.inf)
