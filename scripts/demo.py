"""Two clips in, a swapped clip and its score out: python scripts/demo.py [KEY=VALUE ...]

Runs the three commands as a user would, in `workspace=` (workspace/demo), the other settings going
to `train.py experiment=demo`; then scores the result against the truth, which no command sees.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import jax
import numpy as np

from odfs_jax.data import atomic
from odfs_jax.errors import UserError
from odfs_jax.evaluation import Score, Truth, frames_at, load_truth, score, side_by_side

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "assets" / "demo"
WORKSPACE = "workspace=workspace/demo"
ROWS, CELL = 5, 224  # of the comparison picture; CELL in pixels


def main() -> None:
    settings = [WORKSPACE, *sys.argv[1:]]
    workspace = [s for s in settings if s.startswith("workspace=")][-1]
    training = [s for s in sys.argv[1:] if not s.startswith("workspace=")]
    folder = Path(workspace.removeprefix("workspace="))
    _place_clips(folder)
    seconds = {
        "extract": _run("extract.py", workspace, "data=src_dst", "overwrite=true"),
        "train": _run("train.py", workspace, "experiment=demo", *training),
        "convert": _run("convert.py", workspace, "data=dst"),
    }
    truth = load_truth(ASSETS)
    numbers = [t.frame for t in truth]
    swap, dst = frames_at(folder / "result.mp4", numbers), frames_at(folder / "dst.mp4", numbers)
    report = _report(_scores(swap, truth), _scores(dst, truth), truth)
    report |= {"seconds": seconds, "cores": os.cpu_count(), "jax": jax.__version__}
    report |= {"device": jax.devices()[0].device_kind, "settings": training}
    atomic.write_text(folder / "report.json", json.dumps(report, indent=2) + "\n")
    atomic.write_text(folder / "report.md", _table(report))
    _, picture = cv2.imencode(".png", _comparison(dst, swap, truth)[..., ::-1])
    atomic.write_bytes(folder / "comparison.png", picture.tobytes())
    sys.stdout.write(_table(report))


def _place_clips(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("src.mp4", "dst.mp4"):
        if not (folder / name).exists():
            shutil.copy(ASSETS / name, folder / name)


def _run(script: str, *settings: str) -> float:
    """Seconds that a command took; leaves with its exit code when it fails."""
    sys.stderr.write(f"\n$ python {script} {' '.join(settings)}\n")
    start = time.monotonic()
    code = subprocess.run([sys.executable, str(ROOT / script), *settings]).returncode
    if code:
        sys.exit(code)
    return round(time.monotonic() - start, 1)


def _scores(images: list[np.ndarray], truth: list[Truth]) -> list[Score]:
    return [score(image, t) for image, t in zip(images, truth, strict=True)]


def _report(swap: list[Score], dst: list[Score], truth: list[Truth]) -> dict:
    better = [s.ssim > d.ssim for s, d in zip(swap, dst, strict=True)]
    names = [field.name for field in dataclasses.fields(Score)]
    return {
        "truth_frames": len(truth),
        "swap": {name: float(np.mean([getattr(s, name) for s in swap])) for name in names},
        "dst": {name: float(np.mean([getattr(d, name) for d in dst])) for name in names},
        "swap_beats_dst": float(np.mean(better)),
        "by_frame": [
            {"frame": t.frame, "swap": dataclasses.asdict(s), "dst": dataclasses.asdict(d)}
            for t, s, d in zip(truth, swap, dst, strict=True)
        ],
    }


def _table(report: dict) -> str:
    seconds = report["seconds"]
    rows = [
        f"| {label} | {s['ssim']:.3f} | {s['error']:.3f} | {s['error_matched']:.3f} |"
        for label, s in (("swap", report["swap"]), ("untouched dst", report["dst"]))
    ]
    return "\n".join(
        (
            f"Inside the exact face hull, against {report['truth_frames']} truth frames:",
            "",
            "| | luma SSIM | error | error, means matched |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            f"The swap's SSIM is above untouched dst's in {report['swap_beats_dst']:.0%} of them.",
            "",
            f"Time on {report['cores']} cores ({report['device']}): "
            + ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
            + f", together {sum(seconds.values()):.0f} s.",
            "",
        )
    )


def _comparison(dst: list[np.ndarray], swap: list[np.ndarray], truth: list[Truth]) -> np.ndarray:
    """dst | swap | truth of evenly spaced truth frames, never chosen by score."""
    chosen = np.linspace(0, len(truth) - 1, ROWS).round().astype(int)
    rows = [(dst[i], swap[i], truth[i].image) for i in chosen]
    picture = side_by_side(rows, [truth[i] for i in chosen], CELL)
    header = np.full((32, picture.shape[1], 3), 255, np.uint8)
    for column, label in enumerate(("dst", "swap", "truth")):
        place = (column * CELL + 8, 23)
        cv2.putText(header, label, place, cv2.FONT_HERSHEY_SIMPLEX, 0.65, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([header, picture])


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"demo: {error}")
