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
from odfs_jax.data.media import png
from odfs_jax.errors import UserError
from odfs_jax.evaluation import (
    Score,
    Truth,
    flat_face,
    frames_at,
    load_truth,
    score,
    side_by_side,
)

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "assets" / "demo"
WORKSPACE = "workspace=workspace/demo"
# The same for every frame; why the eyes are the anchor, and why seamless: docs/demo.md.
CONVERT = ("merge=seamless", "merge.anchor=eyes", "merge.blur=80", "merge.feather=smooth")
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
        "convert": _run("convert.py", workspace, "data=dst", "name=demo", *CONVERT),
    }
    truth = load_truth(ASSETS)
    numbers = [t.frame for t in truth]
    swap, dst = frames_at(folder / "result.mp4", numbers), frames_at(folder / "dst.mp4", numbers)
    flat = [flat_face(image, t) for image, t in zip(dst, truth, strict=True)]
    report = _report(
        truth, swap=_scores(swap, truth), dst=_scores(dst, truth), flat=_scores(flat, truth)
    )
    report |= {"seconds": seconds, "cores": os.cpu_count(), "jax": jax.__version__}
    report |= {"device": jax.devices()[0].device_kind, "settings": training}
    atomic.write_text(folder / "report.json", json.dumps(report, indent=2) + "\n")
    atomic.write_text(folder / "report.md", _table(report))
    picture = _comparison(dst, swap, truth)
    atomic.write_bytes(folder / "comparison.png", png.encode(picture))
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


def _report(truth: list[Truth], **scores: list[Score]) -> dict:
    pairs = list(zip(scores["swap"], scores["dst"], strict=True))
    return {
        "truth_frames": len(truth),
        "mean": {name: _mean(values) for name, values in scores.items()},
        "swap_beats_dst": {
            measure: float(np.mean([getattr(s, measure) > getattr(d, measure) for s, d in pairs]))
            for measure in ("ssim", "correlation")
        },
        "by_frame": [
            {"frame": t.frame} | {name: dataclasses.asdict(v[i]) for name, v in scores.items()}
            for i, t in enumerate(truth)
        ],
    }


def _mean(scores: list[Score]) -> dict[str, float]:
    rows = [dataclasses.asdict(s) for s in scores]
    return {measure: float(np.mean([row[measure] for row in rows])) for measure in rows[0]}


def _table(report: dict) -> str:
    seconds, better = report["seconds"], report["swap_beats_dst"]
    labels = {"swap": "swap", "dst": "untouched dst", "flat": "dst with a flat face"}
    rows = [
        f"| {labels[name]} | " + " | ".join(f"{value:.3f}" for value in mean.values()) + " |"
        for name, mean in report["mean"].items()
    ]
    return "\n".join(
        (
            f"Inside the exact face hull, against {report['truth_frames']} truth frames:",
            "",
            "| | luma SSIM | error | error, means matched | luma correlation |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
            f"The swap is above untouched dst in {better['ssim']:.0%} of them by SSIM, in "
            f"{better['correlation']:.0%} by correlation.",
            "",
            f"This run on {report['cores']} cores ({report['device']}): "
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
