"""Time to quality, as a race: the same seconds of training on each pair of clips, then the score.

    python benchmarks/speedrun.py WORKSPACE --note "what was changed" [--seconds 400]
        [--record FILE.json] [KEY=VALUE ...]

Each pair of assets/ is extracted once into WORKSPACE. A step is timed for a few iterations; as many
of them as fit into the seconds are the target of the run, so that schedules end where the budget
does. Then it is trained, converted with the default merge, and measured against the truth. The
settings are overrides of `python train.py experiment=demo`, or with `--recipe none` of `python
train.py`. With `--record` the run is added to the list in that file; docs/speedrun.md tells what
was tried.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
from common import ROOT, parser, show, slug, timed
from measured_step import compose_config, make_our_step

from odfs_jax.data import atomic
from odfs_jax.evaluation.report import FIGURES

PAIRS = {"ada_ben": ROOT / "assets" / "demo", "chi_dele": ROOT / "assets" / "chi_dele"}
# What the recipe starts from: weights that were never learned on the pair itself.
STARTS = {"ada_ben": "bundled:chi_dele_80", "chi_dele": "bundled:ada_ben_80"}
RECIPE = "experiment=demo"
WITHOUT_WARP = 0.22  # share of the run, at its end, in which nothing is warped
WITHOUT_TRANSFORM = 0.33  # likewise, turned, scaled or moved
TIMED_STEPS = 10  # three times as many are run, and the fastest ten count


def main() -> None:
    arguments = _arguments()
    is_demo = arguments.recipe == "demo"
    settings = [*([RECIPE] if is_demo else []), *arguments.overrides]
    milliseconds = time_step(settings)
    iterations = int(1000 * arguments.seconds / milliseconds)
    run = {
        "note": arguments.note,
        "commit": _output("git", "rev-parse", "--short", "HEAD"),
        "settings": arguments.overrides,
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "seconds": arguments.seconds,
        "ms_per_iteration": round(milliseconds, 1),
        "iterations": iterations,
        "pairs": {},
    }
    for pair in arguments.pair or PAIRS:
        workspace = arguments.workspace / pair
        place(pair, workspace)
        start = [f"init_from={STARTS[pair]}"] if is_demo else []
        own = [*start, *settings]  # an init_from of the command line comes later, and counts
        run["pairs"][pair] = race(workspace, pair, slug(arguments.note), iterations, own)
    show(run, None)
    if arguments.record:
        known = json.loads(arguments.record.read_text()) if arguments.record.exists() else []
        atomic.write_text(arguments.record, json.dumps([*known, run], indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    arguments = parser(__doc__, report=False)
    arguments.add_argument("workspace", type=Path, help="the folder that the bench works in")
    arguments.add_argument("--note", required=True, help="what was changed, in a few words")
    arguments.add_argument("--seconds", type=float, default=400.0, help="of training, a pair")
    arguments.add_argument("--pair", action="append", choices=PAIRS, help="only this one")
    arguments.add_argument("--record", type=Path, metavar="FILE.json", help="a list to add to")
    arguments.add_argument(
        "--recipe", choices=("demo", "none"), default="demo", help="what KEY=VALUE change"
    )
    arguments.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of train.py")
    return arguments.parse_intermixed_args()


def time_step(settings: list[str]) -> float:
    """Milliseconds of an iteration on the first device, on faces of noise."""
    step, _, _ = make_our_step(compose_config(settings), jax.devices()[0])
    step(2)
    return 1000 * min(timed(lambda: step(TIMED_STEPS))[1] for _ in range(3)) / TIMED_STEPS


def place(pair: str, workspace: Path) -> None:
    """The clips of `pair` and their faces in `workspace`, unless they are there."""
    workspace.mkdir(parents=True, exist_ok=True)
    for name in ("src.mp4", "dst.mp4"):
        if not (workspace / name).exists():
            shutil.copy(PAIRS[pair] / name, workspace / name)
    run_command("extract.py", workspace, "data=src_dst")


def race(workspace: Path, pair: str, name: str, iterations: int, settings: list[str]) -> dict:
    """{"train_seconds", "figures": of the swap, "dst": of untouched dst} of a run called `name`."""
    if (workspace / "models" / name).exists():
        sys.exit(f"{workspace / 'models' / name}: a run of this note is here; choose another one")
    settings = [*settings, f"name={name}", f"iterations={iterations}"]
    settings.append(f"augment.warp_until={round((1 - WITHOUT_WARP) * iterations)}")
    settings.append(f"augment.transform_until={round((1 - WITHOUT_TRANSFORM) * iterations)}")
    _, seconds = timed(lambda: run_command("train.py", workspace, *settings))
    result = workspace / f"{name}.mp4"
    run_command("convert.py", workspace, "data=dst", f"name={name}", f"output.path={result}")
    score = (f"result={result}", f"truth={PAIRS[pair]}")
    run_command("scripts/evaluate.py", workspace, "data=dst", *score)
    report = json.loads(result.with_name(f"{name}_evaluation.json").read_text())
    keys = [figure.key for figure in FIGURES]
    swap, dst = (report["values"][column] for column in ("swap", "dst"))
    figures, blank = ({k: own[k] for k in keys if own.get(k) is not None} for own in (swap, dst))
    return {
        "train_seconds": round(seconds, 1),
        "figures": {key: round(value, 4) for key, value in figures.items()},
        "dst": {key: round(value, 4) for key, value in blank.items()},
    }


def run_command(script: str, workspace: Path, *settings: str) -> None:
    """Runs a command of the program; ends with its exit code when it fails."""
    command = [sys.executable, str(ROOT / script), f"workspace={workspace}", *settings]
    sys.stderr.write(f"\n$ {' '.join(command[1:])}\n")
    if code := subprocess.run(command).returncode:
        sys.exit(code)


def _output(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
