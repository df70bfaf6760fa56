"""Two clips in, a swapped clip and its score out: python scripts/demo.py [pair=...] [KEY=VALUE ...]

Runs the commands as a user would, in `workspace=` (workspace/demo), the other settings going to
`train.py experiment=demo`; the last scores the result against the truth, which no other sees.
`pair=chi_dele` takes the harder pair of clips, and works in workspace/chi_dele.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax

from odfs_jax.data import atomic
from odfs_jax.evaluation.evaluate import summary

ROOT = Path(__file__).resolve().parent.parent
# Folders of assets/, and the weights that training starts from: never learned on the pair itself.
PAIRS = {"demo": "bundled:chi_dele_80", "chi_dele": "bundled:ada_ben_80"}


def main() -> None:
    pair, workspace, training = next(iter(PAIRS)), None, []
    for setting in sys.argv[1:]:
        key, _, value = setting.partition("=")
        if key == "pair":
            pair = value
        elif key == "workspace":
            workspace = setting
        else:
            training.append(setting)
    if pair not in PAIRS:
        sys.exit(f"pair={pair}: expected one of {', '.join(PAIRS)}")
    start = f"init_from={PAIRS[pair]}"
    assets, workspace = ROOT / "assets" / pair, workspace or f"workspace=workspace/{pair}"
    folder = Path(workspace.removeprefix("workspace="))
    _place_clips(assets, folder)
    seconds = {
        "extract": _run("extract.py", workspace, "data=src_dst", "overwrite=true"),
        "train": _run("train.py", workspace, "experiment=demo", start, *training),
        "convert": _run("convert.py", workspace, "data=dst", "name=demo"),
    }
    _run("scripts/evaluate.py", workspace, "data=dst", f"truth={assets}")
    report = json.loads((folder / "result_evaluation.json").read_text())
    report |= {"seconds": seconds, "cores": os.cpu_count(), "jax": jax.__version__}
    report |= {"device": jax.devices()[0].device_kind, "settings": training}
    took = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    run = (
        f"This run on {report['cores']} cores ({report['device']}): {took}, "
        f"together {sum(seconds.values()):.0f} s.\n"
    )
    atomic.write_text(folder / "report.json", json.dumps(report, indent=2) + "\n")
    atomic.write_text(folder / "report.md", f"{summary(report)}\n{run}")
    sys.stdout.write(f"\n{run}")


def _place_clips(assets: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("src.mp4", "dst.mp4"):
        if not (folder / name).exists():
            shutil.copy(assets / name, folder / name)


def _run(script: str, *settings: str) -> float:
    """Seconds that a command took; leaves with its exit code when it fails."""
    sys.stderr.write(f"\n$ python {script} {' '.join(settings)}\n")
    start = time.monotonic()
    code = subprocess.run([sys.executable, str(ROOT / script), *settings]).returncode
    if code:
        sys.exit(code)
    return round(time.monotonic() - start, 1)


if __name__ == "__main__":
    main()
