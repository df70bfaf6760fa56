"""Where the benches leave their figures."""

import json
import os
import re
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def slug(device: str) -> str:
    """The kind of a device as a part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "_", device.lower()).strip("_")


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
