"""The benches' command lines, and where they leave their figures."""

import argparse
import json
import os
import re
import sys
from pathlib import Path

from odfs_jax.data import atomic

RESULTS = Path(__file__).resolve().parent / "results"


def slug(device: str) -> str:
    """The kind of a device as a part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "_", device.lower()).strip("_")


def parser(doc: str) -> argparse.ArgumentParser:
    """One whose `--help` prints `doc`."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def parse(doc: str, *inputs: str) -> argparse.Namespace:
    """A path for each of `inputs` and, as `report`, for the figures (None: they are only printed).

    `--help` prints `doc`.
    """
    arguments = parser(doc)
    for name in inputs:
        arguments.add_argument(name, type=Path)
    arguments.add_argument("report", type=Path, nargs="?")
    return arguments.parse_args()


def show(report: dict, path: Path | None) -> None:
    """Prints `report` as JSON, and writes it to `path` if there is one."""
    text = json.dumps(report, indent=2) + "\n"
    sys.stdout.write(text)
    if path is not None:
        atomic.write_text(path, text)


def write(name: str, report: dict) -> None:
    """Prints `report` and writes it to benchmarks/results/<name>_<its "device">.json.

    BENCH_OUT= in the environment is another folder.
    """
    folder = Path(os.environ.get("BENCH_OUT", RESULTS))
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}_{slug(report['device'])}.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    for key, value in report.items():
        print(f"{key:>30}  {value}")
    print(f"written: {path}")
