"""The bar of a run: what it says, where there is none, and that log lines stay whole above it."""

import io
import logging
import re
import sys
import time

import pytest

from odfs_jax.runtime.progress import heard_by
from odfs_jax.training import console
from odfs_jax.training.console import Console, describe
from odfs_jax.training.metrics import LINE, _line

LOSSES = {"dst_face": 0.25, "dst_mask": 0.125, "src_face": 0.5, "src_mask": 1.0}


class Terminal(io.StringIO):
    """What was written to it, as a terminal's stream."""

    def isatty(self) -> bool:
        return True

    def pieces(self) -> list[str]:
        return [piece for piece in re.split(r"[\r\n]", self.getvalue()) if piece.strip()]


def terminal_for(monkeypatch) -> Terminal:
    """Stands in for stderr from now on; in a fixture pytest's own would replace it."""
    found = Terminal()
    monkeypatch.setattr(sys, "stderr", found)
    monkeypatch.setenv("COLUMNS", "130")
    monkeypatch.setattr(console, "REDRAW", 0.01)
    handler = logging.StreamHandler(found)
    monkeypatch.setattr(logging.root, "handlers", [handler])
    return found


def wait_for(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_bar_below_whole_lines_of_the_log(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "odfs_jax")
    terminal = terminal_for(monkeypatch)
    log, step = logging.getLogger("odfs_jax.test"), 0
    with Console() as shown:
        with shown.waiting("compiling", "compiled"):
            wait_for(lambda: "compiling ... 0 s" in terminal.getvalue())
        shown.follow(4000, 8, lambda: step, lambda: 2.0, lambda: LOSSES)
        wait_for(lambda: "0 of 4,000" in terminal.getvalue())
        step = 3000
        wait_for(lambda: "3,000 of 4,000, 8 min left, 16.0 pairs/s" in terminal.getvalue())
        log.info("a line of the log")
    pieces = terminal.pieces()
    # What clears the bar stands before a line, in the same row.
    assert {"a line of the log", "compiled in 0 s"} <= {piece.strip() for piece in pieces}
    bars = [piece for piece in pieces if "of 4,000" in piece]
    assert max(map(len, bars)) <= 100
    assert bars[-1].endswith("16.0 pairs/s, dst_face 0.2500, src_face 0.5000")
    assert "##" in bars[-1] and "#" not in bars[0]  # blocks, where the terminal has them


def test_in_a_pipe_there_are_plain_lines(monkeypatch, caplog):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with caplog.at_level("INFO", "odfs_jax"), Console() as shown:
        with shown.waiting("compiling", "compiled"):
            pass
        shown.follow(10, 1, lambda: 3, lambda: 1.0, lambda: LOSSES)
    assert caplog.messages == ["compiling ...", "compiled in 0 s"] and stream.getvalue() == ""


def test_no_bar_where_another_loop_draws_or_in_another_process(monkeypatch):
    terminal = terminal_for(monkeypatch)
    with heard_by(lambda *_: None), Console() as shown:
        shown.follow(10, 1, lambda: 3, lambda: 1.0, lambda: LOSSES)
        time.sleep(0.05)
    with Console(enabled=False) as shown:
        shown.follow(10, 1, lambda: 3, lambda: 1.0, lambda: LOSSES)
        time.sleep(0.05)
    assert terminal.getvalue() == ""


@pytest.mark.parametrize(
    ("target", "rate", "losses", "said"),
    [
        (0, 0.0, {}, "iteration 1,234"),
        (0, 2.5, LOSSES, "iteration 1,234, 40.0 pairs/s, dst_face 0.2500, src_face 0.5000"),
        (2000, 0.0, {}, "1,234 of 2,000"),
        (2000, 0.1, {"mask": 0.5}, "1,234 of 2,000, 2 h 8 min left, 1.6 pairs/s, mask 0.5000"),
    ],
)
def test_what_the_bar_says(target, rate, losses, said):
    assert describe(1234, target, rate, 16, losses) == said


def test_a_line_of_the_log_fits_and_has_what_counts_most():
    many = {f"a_term_of_some_length_{i}": 0.1 for i in range(9)} | {"src_held_out": 0.9}
    line = _line(1_000_000, many, 12_345.6)
    assert len(line) <= LINE and "src_held_out 0.90000" in line and "12345.6 pairs/s" in line
    line = _line(7, LOSSES, 9.0)
    assert all(f"{name} {value:.5f}" in line for name, value in LOSSES.items())
