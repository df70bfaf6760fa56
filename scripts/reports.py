"""The benches' command lines, and where they leave their figures."""

import argparse
import json
import os
import re
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def slug(device: str) -> str:
    """The kind of a device as a part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "_", device.lower()).strip("_")


def parse(doc: str, *inputs: str) -> argparse.Namespace:
    """A path for each of `inputs` and, as `report`, for the figures (None: they are only printed).

    `--help` prints `doc`.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in inputs:
        parser.add_argument(name, type=Path)
    parser.add_argument("report", type=Path, nargs="?")
    return parser.parse_args()


def write(name: str, report: dict) -> None:
    """Prints `report` and writes it to benchmarks/<name>_<its "device">.json; BENCH_OUT= is another
    folder."""
    folder = Path(os.environ.get("BENCH_OUT", BENCHMARKS))
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}_{slug(report['device'])}.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    for key, value in report.items():
        print(f"{key:>30}  {value}")
    print(f"written: {path}")
