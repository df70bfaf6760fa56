"""What the benches share: one style of command line, and how they leave their figures.

    python benchmarks/bench_NAME.py [INPUT ...] [--report FILE.json] [--pairs N] [KEY=VALUE ...]

Figures are printed as JSON and, with `--report`, written to a file: benchmarks/results/ keeps those
that the documentation quotes.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from odfs_jax.data import atomic

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"


def parser(doc: str, report: bool = True) -> argparse.ArgumentParser:
    """A parser whose `--help` prints `doc`, with the option `--report` if figures can be kept."""
    arguments = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if report:
        arguments.add_argument(
            "--report", type=Path, metavar="FILE.json", help="keep the figures here"
        )
    return arguments


def parse(
    doc: str, *inputs: str, pairs: int | None = None, overrides: bool = False
) -> argparse.Namespace:
    """Reads a bench's command line. `--help` prints `doc`.

    `inputs` are the names of its paths, in order. `pairs` is the default of `--pairs`, the number
    of timed pairs of runs; None: the bench has no pairs. With `overrides` the arguments that remain
    are Hydra overrides of a command.
    """
    arguments = parser(doc)
    for name in inputs:
        arguments.add_argument(name, type=Path)
    if pairs is not None:
        arguments.add_argument(
            "--pairs", type=int, default=pairs, help=f"timed pairs of runs (default {pairs})"
        )
    if overrides:
        arguments.add_argument(
            "overrides", nargs="*", metavar="KEY=VALUE", help="overrides, as of the command"
        )
    return arguments.parse_intermixed_args()


def show(report: dict, path: Path | None) -> None:
    """Prints `report` as JSON, and writes it to `path` unless that is None."""
    text = json.dumps(report, indent=2) + "\n"
    sys.stdout.write(text)
    if path is not None:
        atomic.write_text(path, text)


def timed(run: Callable[[], T]) -> tuple[T, float]:
    """(what `run` returns, the seconds it took)."""
    start = time.perf_counter()
    result = run()
    return result, time.perf_counter() - start


def slug(device: str) -> str:
    """The kind of a device as part of a file name: "NVIDIA H100" becomes "nvidia_h100"."""
    return re.sub(r"[^a-z0-9]+", "_", device.lower()).strip("_")
