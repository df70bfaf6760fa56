"""Writes the memory table of docs/performance.md: what a training step takes, in XLA's own figures.

    python benchmarks/memory.py                 every model, compiled only: nothing is allocated
    python benchmarks/memory.py h64 liaef128    those

Each model at batch 4 with its default settings and with experiment=lean. The figures are of the
program compiled for the device that JAX has here, and kept in --report, by default
benchmarks/results/memory_<device>.json.
"""

import json
import re
from pathlib import Path

import jax
import numpy as np
from common import RESULTS, parser, slug
from omegaconf import OmegaConf

from odfs_jax.config import compose
from odfs_jax.data.faceset import OVERSAMPLING, Faceset
from odfs_jax.training.memory import MemoryPlanner, Need
from odfs_jax.training.objectives import make_objective
from odfs_jax.training.objectives.base import Objective

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
BATCH = 4
SETTINGS = {"default": [], "lean": ["experiment=lean"]}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("models", nargs="*", metavar="MODEL", help="default: all of them")
    options = arguments.parse_args()
    every = (path.stem for path in (ROOT / "configs/model").glob("*.yaml"))
    models = options.models or sorted(every)
    device = slug(jax.local_devices()[0].device_kind)
    path = options.report or RESULTS / f"memory_{device}.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    for model in models:
        for name, overrides in SETTINGS.items():
            need = measure(model, overrides)
            found.setdefault(model, {})[name] = vars(need) | {"total": need.total}
            print(f"{model} {name}: {need.total / 1e9:.2f} GB ({need})", flush=True)
            path.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")
    write_table(found)


def measure(model: str, overrides: list[str]) -> Need:
    """What a step of `model` takes of one device."""
    config = compose("train", [f"model={model}", *overrides, f"batch_size={BATCH}"])
    objective = make_objective(OmegaConf.to_container(config, resolve=True))
    devices = jax.local_devices()[:1]
    facesets = {side: one_face(objective, side) for side in objective.sides}
    planner = MemoryPlanner(objective, facesets, devices, free=0)
    return planner.need(objective.make_step(devices), BATCH)


def one_face(objective: Objective, side: str) -> Faceset:
    """A faceset as training would hold it, but for its number of faces."""
    specs = (objective.input_specs[side], *objective.target_specs[side].values())
    size = OVERSAMPLING * max(spec.resolution for spec in specs)
    return Faceset(
        np.zeros((1, size, size, 3 + len(objective.masks)), np.uint8),
        np.zeros((1, 2, 3), np.float32),
        np.zeros(1, np.float32),
        objective.input_specs[side],
        objective.masks,
    )


def write_table(found: dict) -> None:
    """Puts the table between its two marks in the page."""
    lines = [
        f"| GB at batch {BATCH} | parameters | optimizer | the step itself | default | lean |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for model, needs in sorted(found.items()):
        default, lean = needs["default"], needs["lean"]
        parts = [
            default[part] / 1e9 for part in ("parameters", "optimizer", "activations", "total")
        ]
        cells = [*(f"{gb:.2f}" for gb in parts), f"{lean['total'] / 1e9:.2f}"]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    begin, end = "<!-- memory: begin -->", "<!-- memory: end -->"
    page = PAGE.read_text()
    table = "\n".join([begin, *lines, end])
    PAGE.write_text(re.sub(f"{begin}.*{end}", lambda _: table, page, flags=re.DOTALL))
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
