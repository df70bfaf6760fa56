"""Where the time of a training step goes on a GPU, by part of the program.

    python benchmarks/profile_train.py model=liaef128 precision=bfloat16

Traces a few steps of `bench_train.py`'s kind and prints, for each group, the kernels' milliseconds
a step: convolutions and matrix products by layer and direction, the rest by where in the program
they come from. KEY=VALUE are overrides of train.py. Recorded without command buffers (CUDA graphs),
whose kernels have no names.
"""

import gzip
import json
import os
import re
import tempfile
from collections import defaultdict
from pathlib import Path

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_enable_command_buffer="

import jax
from common import parser
from measured_step import compose_config, make_our_step

from odfs_jax.runtime import devices as hardware

STEPS = 5
SHOWN = 60  # lines
SKIPPED = r"jit\(|pmap\(|transpose|jvp\(|vmap\(|closed_call|checkpoint|while|body"


def main() -> None:
    arguments = parser(__doc__, report=False)
    arguments.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    config = compose_config(arguments.parse_args().overrides)
    hardware.prepare(config["hardware"])
    step, _, compiled = make_our_step(config, jax.local_devices()[0])
    step(3)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            step(STEPS)
        kernels = read_trace(Path(folder))
    names = source_names(compiled.as_text())
    groups: dict[str, float] = defaultdict(float)
    for op, milliseconds in kernels.items():
        groups[names.get(op, op)] += milliseconds / STEPS
    rows = sorted(groups.items(), key=lambda pair: -pair[1])
    for name, milliseconds in rows[:SHOWN]:
        print(f"{milliseconds:8.3f} ms  {name}")
    print(f"{sum(groups.values()):8.3f} ms  all kernels of a step")


def read_trace(folder: Path) -> dict[str, float]:
    """Milliseconds of each operation of XLA's program in a trace."""
    (path,) = folder.rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    times: dict[str, float] = defaultdict(float)
    for event in events:
        if "hlo_op" in (facts := event.get("args", {})):
            times[facts["hlo_op"]] += event.get("dur", 0) / 1e3
    return times


def source_names(program: str) -> dict[str, str]:
    """Operation -> direction, place in the network and kind, from a compiled program's text."""
    names = {}
    for line in program.splitlines():
        op = re.match(r"\s*(?:ROOT )?%?([\w.\-]+) = ", line)
        if op is None:
            continue
        source = re.search(r'op_name="([^"]*)"', line)
        target = re.search(r'custom_call_target="([^"]*)"', line)
        place = source[1] if source else ""
        way = "back" if "transpose(" in place else "forth"
        parts = [p for p in place.split("/") if not re.match(SKIPPED, p)]
        kind = target[1] if target else re.sub(r"[.\d]+$", "", op[1])
        names[op[1]] = f"{way:5}  {kind:40}  {'/'.join(parts)}"
    return names


if __name__ == "__main__":
    main()
