"""All that wants a GPU, in one command of a few minutes: pictures, race, benches, tests.

    python benchmarks/gpu_round.py FOLDER [--seconds 600] [--small]

The parts run one after the other, the most important first. Each has a limit of its own and is cut
off by what is left of the whole; what a part printed and measured is in FOLDER when it ends, and
gpu_round.json there says how each one went. `--small` is for a try without a GPU: the same
commands, a few seconds and a narrow network each.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import jax
from common import ROOT, parser

from odfs_jax.data import atomic

LEAST_SECONDS = 10  # for which a part is worth starting


@dataclass(frozen=True)
class Part:
    """A command, and what it leaves."""

    name: str
    limit: float  # seconds
    command: tuple[str, ...]  # after the Python interpreter
    pictures: tuple[Path, ...] = ()  # copied into the folder


def parts(folder: Path, work: Path, small: bool) -> list[Part]:
    """All parts, the most important first. They work in `work` and report into `folder`."""
    full = ("--recipe", "none", "model=liaef128", "batch_size=32", "precision=bfloat16")
    full += ("data.sampling=yaw_matched", "loss.eyes_mouth=8", "loss.margin=0.06")
    full += ("optimizer.learning_rate=1e-4", "optimizer.schedule=cosine", "optimizer.warmup=100")
    if small:
        full = ("--recipe", "none", "model=h64", "model.width=0.03125", "batch_size=2")
    race = "benchmarks/speedrun.py"

    def picture(pair: str) -> Part:
        note = f"full width {pair}"
        name = note.replace(" ", "_")
        seconds = "2" if small else "150"
        record = str(folder / f"picture_{pair}.json")
        run = (race, str(work), "--pair", pair, "--note", note, "--seconds", seconds)
        sheet = work / pair / f"{name}_evaluation.png"
        return Part(f"picture_{pair}", 240, (*run, "--record", record, *full), (sheet,))

    def report(bench: str, *inputs: str) -> Part:
        run = (f"benchmarks/{bench}.py", *inputs, "--report", str(folder / f"{bench}.json"))
        return Part(bench, 90, run)

    narrow = ("model.width=0.03125",) if small else ()
    short = ("optimizer.warmup=5",) if small else ()
    budget = ("--seconds", "2" if small else "60", "--note", "demo recipe")
    record = ("--record", str(folder / "speedrun.json"))
    train = ("model=h64", "batch_size=16") if not small else ("model=h64", *narrow, "batch_size=2")
    return [
        picture("ada_ben"),
        picture("chi_dele"),
        Part("gpu_tests", 150, ("-m", "pytest", "-q", "-m", "gpu", "tests/test_gpu.py")),
        Part("speedrun", 200, (race, str(work), *budget, *record, *narrow, *short)),
        report("bench_extract", str(ROOT / "assets" / "demo" / "dst.mp4")),
        report("bench_train", *train),
        report("bench_convert"),
    ]


def main() -> None:
    arguments = _arguments()
    folder, end = arguments.folder, time.monotonic() + arguments.seconds
    folder.mkdir(parents=True, exist_ok=True)
    report = {"device": jax.devices()[0].device_kind, "jax": jax.__version__, "parts": {}}
    for part in parts(folder.resolve(), arguments.work.resolve(), arguments.small):
        left = min(part.limit, end - time.monotonic())
        if left < LEAST_SECONDS:
            report["parts"][part.name] = {"code": None, "seconds": 0.0}
        else:
            report["parts"][part.name] = run(part, folder, left)
        atomic.write_text(folder / "gpu_round.json", json.dumps(report, indent=1) + "\n")
        sys.stdout.write(f"{part.name}: {report['parts'][part.name]}\n")


def run(part: Part, folder: Path, limit: float) -> dict:
    """{"code": the exit code, None for a part that was cut off, "seconds"}."""
    start, code = time.monotonic(), None
    with (folder / f"{part.name}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *part.command],
            cwd=ROOT,
            stdout=log,
            stderr=log,
            start_new_session=True,  # so that the commands it starts can be ended with it
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    for picture in part.pictures:
        if picture.exists():
            shutil.copy(picture, folder / f"{part.name}.png")
    return {"code": code, "seconds": round(time.monotonic() - start, 1)}


def _arguments() -> argparse.Namespace:
    arguments = parser(__doc__, report=False)
    arguments.add_argument("folder", type=Path, help="where all that it finds goes")
    arguments.add_argument("--seconds", type=float, default=600.0, help="for all parts together")
    arguments.add_argument(
        "--work", type=Path, default=Path("workspace/gpu_round"), help="clips, faces, models"
    )
    arguments.add_argument("--small", action="store_true", help="a try of the commands")
    return arguments.parse_args()


if __name__ == "__main__":
    main()
