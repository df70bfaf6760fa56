"""What a swap came to: <result>_report.json and .md, with what to do for a better one."""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from omegaconf import DictConfig

import odfs_jax
from odfs_jax.data import atomic, foreign
from odfs_jax.data.aligned_png import read_face
from odfs_jax.data.parallel import cores, read_files
from odfs_jax.data.workspace import png_files
from odfs_jax.evaluation.evaluate import summary
from odfs_jax.extraction.journal import ExtractionJournal
from odfs_jax.faces.pose import lacking
from odfs_jax.runtime.progress import duration
from odfs_jax.swap.plan import PRESETS, Plan
from odfs_jax.training.history import total_loss
from odfs_jax.training.metrics import read_losses

if TYPE_CHECKING:
    from odfs_jax.swap.swap import Record

LARGEST_EVALUATION = 1 << 28
FEW_FACES = 300  # of src: fewer show too few looks and words
MISSING = 0.05  # share of dst's faces without such a pose that is worth a word
SIDE, TILT = 15.0, 10.0  # degrees from which on a head looks to a side, up or down
FALLING = 0.01  # share by which the loss still fell in the last tenth that promises more
UNLIKE = 0.9  # share of the faces nearer to src than to dst, below which the likeness is weak


def beside(out: Path, what: str) -> Path:
    """The path of a companion of the result `out`: the report of a.mp4 is a_report.md."""
    return out.with_name(f"{out.stem}_{what}")


def write_report(
    config: DictConfig, out: Path, plan: Plan, training: DictConfig, record: "Record"
) -> list[str]:
    """Writes the report of `out`, and returns it as lines."""
    workspace = Path(training.workspace)
    evaluation = foreign.read_json(beside(out, "evaluation.json"), LARGEST_EVALUATION)
    journal = ExtractionJournal.read(workspace / "dst" / "aligned")
    poses = {side: read_poses(Path(training.data[side].aligned)) for side in ("src", "dst")}
    losses = read_losses(workspace / "models" / training.name)
    stages = ("extract", "train", "convert", "evaluate")
    facts = {
        "result": str(out),
        "src": str(config.src),
        "dst": str(config.dst),
        "workspace": str(workspace),
        "plan": {
            "preset": plan.preset,
            "name": training.name,
            "model": training.model.name,
            "resolution": training.model.resolution,
            "iterations": training.iterations,
            "iteration_seconds": plan.seconds,
            "batch_size": training.batch_size,
            "why": list(plan.why),
        },
        "seconds": {
            s: record.of(s)["seconds"] for s in stages if record.of(s).get("seconds") is not None
        },
        "faces": {side: len(found) for side, found in poses.items()},
        "frames": len(journal.frames),
        "frames_to_look_at": len(journal.doubtful()),
        "poses_missing": missing_poses(poses["src"], poses["dst"]),
        "losses": losses[-1]["losses"] if losses else {},
        "device": jax.devices()[0].device_kind,
        "cores": cores(),
        "versions": {"odfs-jax": odfs_jax.__version__, "jax": jax.__version__},
        "evaluation": evaluation,
    }
    facts["advice"] = advice(facts, losses)
    lines = text_of(facts)
    atomic.write_text(beside(out, "report.json"), json.dumps(facts, indent=1) + "\n")
    atomic.write_text(beside(out, "report.md"), "\n".join(lines) + "\n")
    return [*lines, "", str(beside(out, "report.md"))]


def read_poses(aligned: Path) -> np.ndarray:
    """[n, 2] yaw and pitch, degrees, of the readable faces in the folder `aligned`."""
    faces, _ = read_files(sorted(png_files(aligned)), read_face, "reading poses")
    return np.array([(face.pose.yaw, face.pose.pitch) for _, face in faces]).reshape(-1, 2)


def missing_poses(src: np.ndarray, dst: np.ndarray) -> dict[str, int]:
    """How many of dst's poses src lacks, by where the head is turned: see `faces.pose.lacking`.

    `src` and `dst` are [n, 2], yaw and pitch in degrees.
    """
    return dict(Counter(_where(yaw, pitch) for yaw, pitch in dst[lacking(src, dst)]))


def _where(yaw: float, pitch: float) -> str:
    words = []
    if abs(yaw) >= SIDE:
        words += [f"turned to the picture's {'right' if yaw > 0 else 'left'}"]
    if abs(pitch) >= TILT:
        words += [f"looking {'up' if pitch > 0 else 'down'}"]
    return ", ".join(words) or "from the front"


def advice(facts: dict[str, Any], losses: list[dict[str, Any]]) -> list[str]:
    """What would make the result better, the most promising first."""
    found = []
    plan, faces = facts["plan"], facts["faces"]
    workspace = facts["workspace"]
    for where, count in sorted(facts["poses_missing"].items(), key=lambda item: -item[1]):
        if count >= MISSING * faces["dst"]:
            found += [
                f"{count} of dst's {faces['dst']} faces are {where}, and src has no such pose: "
                "take a clip of src that has it"
            ]
    if faces["src"] < FEW_FACES:
        found += [f"src has {faces['src']} faces: a longer clip shows more of its looks and words"]
    if facts["frames_to_look_at"]:
        found += [
            f"{facts['frames_to_look_at']} of {facts['frames']} frames of dst have no face, or a "
            f"doubtful one: python extract.py data=dst workspace={workspace} manual_fix=true"
        ]
    least, fell = PRESETS[plan["preset"]].least, falling(losses)
    if plan["iterations"] < least:
        seconds = plan["iteration_seconds"]
        more = (
            f"train.iterations={least}"
            if seconds is None
            else f"hours={least * seconds / 3600:.2g}"
        )
        found += [
            f"{plan['iterations']} iterations are few, {plan['preset']} wants {least}: {more} "
            f"preset={plan['preset']}; the model goes on where it is"
        ]
    elif fell is not None and fell > FALLING:
        found += [
            f"the loss still fell by {fell:.0%} in the last tenth of the training: give more time, "
            f"a higher hours= with preset={plan['preset']}; the model goes on where it is"
        ]
    larger = [p for p in PRESETS.values() if p.pixels > PRESETS[plan["preset"]].pixels]
    if larger:
        why = f"{larger[0].gigabytes:.1f} GB of a card, {larger[0].least} iterations or more"
        found += [
            f"a sharper face: preset={larger[0].name}, {larger[0].pixels} pixels, wants {why}"
        ]
    likeness = facts["evaluation"]["values"].get("swap", {}).get("identity")
    if likeness is not None and likeness < UNLIKE:
        found += [
            f"{likeness:.0%} of the new faces are nearer to src than to dst: more time, and faces "
            "of src in dst's light"
        ]
    if facts["evaluation"]["frames_unchanged"]:
        found += [f"{facts['evaluation']['frames_unchanged']} frames are as dst: nothing swapped"]
    dst = f"workspace={workspace} data=dst name={plan['name']}"
    found += [
        "how large src's face is in dst's head is a matter of taste, which no clip tells: "
        "merge.scale, -5 say, about dst's eyes with merge.anchor=eyes",
        f"colors, edges, sharpness: the other settings of python convert.py {dst}, "
        "docs/conversion.md; no training is needed for them",
    ]
    return found


def falling(losses: list[dict[str, Any]]) -> float | None:
    """The share by which all losses together fell from one tenth of the rows to the last tenth."""
    totals = [total_loss(row["losses"]) for row in losses]
    tenth = len(totals) // 10
    if not tenth:
        return None
    before, last = np.mean(totals[-2 * tenth : -tenth]), np.mean(totals[-tenth:])
    return float(1 - last / before) if before > 0 else None


def text_of(facts: dict[str, Any]) -> list[str]:
    """The report in Markdown."""
    plan, seconds = facts["plan"], facts["seconds"]
    took = ", ".join(f"{stage} {duration(value)}" for stage, value in seconds.items())
    return [
        f"# {Path(facts['result']).name}",
        "",
        f"The face of {facts['src']} in {facts['dst']}.",
        "",
        f"- **Chosen**: preset {plan['preset']}: {plan['model']}, {plan['resolution']} pixels, "
        f"{plan['iterations']} iterations, batch {plan['batch_size']}.",
        *(f"  - {why}" for why in plan["why"]),
        f"- **Faces**: {facts['faces']['src']} of src, {facts['faces']['dst']} of dst in "
        f"{facts['frames']} frames.",
        f"- **Time**: {took} (of each stage its last call), on {facts['cores']} cores and "
        f"{facts['device']}.",
        f"- **Faces, models, log**: {facts['workspace']}",
        "",
        "## How good it is",
        "",
        *summary(facts["evaluation"]).splitlines(),
        "",
        "## For a better one",
        "",
        *(f"- {line}" for line in facts["advice"]),
    ]
