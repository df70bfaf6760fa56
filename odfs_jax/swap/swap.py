"""`odfs-swap src=anna.mov dst=scene.mp4 out=result.mp4`: everything, in one command.

Faces and models lie in a workspace, with which all other commands work too. Each stage goes on
where it was stopped, whatever stopped it; `swap.json` there notes what is finished, and what was
chosen, so that the same command line goes on with the same choices.
"""

import dataclasses
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from odfs_jax import saved_model
from odfs_jax.config import (
    STAGES,
    compose,
    fitting,
    misspelt,
    quoted,
    require_complete,
    with_plain_paths,
)
from odfs_jax.conversion.convert import convert
from odfs_jax.data import atomic, foreign
from odfs_jax.data.lock import locked
from odfs_jax.data.media.frame_io import check_output, open_frames
from odfs_jax.data.media.marking import Marking
from odfs_jax.data.workspace import LARGEST_SWAP_RECORD, SWAP_RECORD, png_files
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.evaluation.evaluate import evaluate_result
from odfs_jax.extraction.extract import extract
from odfs_jax.provenance.signing import make_marking
from odfs_jax.runtime import devices
from odfs_jax.runtime.output import say
from odfs_jax.swap.jobs import run_jobs
from odfs_jax.swap.overview import Overview, shown
from odfs_jax.swap.plan import AUTO, PRESETS, Plan, make_plan, read_plan, seconds_per_iteration
from odfs_jax.swap.report import beside, write_report
from odfs_jax.training.step import Step
from odfs_jax.training.train import train

log = logging.getLogger(__name__)

SIDES = ("src", "dst")
LOG = "swap.log"
EVALUATED = 5  # frames that are converted while one is evaluated, about


def swap(config: DictConfig) -> None:
    """Makes the result that a `SwapConfig` asks for, and a report of it.

    Raises UserError, and KeyboardInterrupt where training was asked to stop; what was finished is
    kept.
    """
    if config.jobs is not None:
        run_jobs(config)
        return

    # ---- What is given: a mistake is named before anything slow begins

    for key in (*SIDES, "out"):
        if config[key] is None:
            raise UserError(f"{key}: no value; write odfs-swap src=CLIP dst=CLIP out=RESULT")
    out = Path(config.out)
    workspace = Path(config.workspace or out.with_name(f"{out.stem}_swap"))
    devices.prepare(config.hardware)
    atomic.check_writable(out)
    atomic.check_writable(workspace)
    workspace.mkdir(parents=True, exist_ok=True)

    with locked(workspace, "swapping"):
        clips = {side: place(Path(config[side]), side, workspace) for side in SIDES}
        inputs = {side: f"data.{side}.input={quoted(str(clip))}" for side, clip in clips.items()}
        both = [f"workspace={quoted(str(workspace))}", "data=src_dst", *inputs.values()]
        of_dst = [f"workspace={quoted(str(workspace))}", "data=dst", inputs["dst"]]
        of_result = [*of_dst, f"output.path={quoted(str(out))}"]
        extraction = compose_stage(config, "extract", both)
        conversion = compose_stage(config, "convert", of_result)
        check_training(config, both)
        record = Record(workspace / SWAP_RECORD)
        check_result(out, make_marking(conversion.provenance, clips["dst"]), record, config)

        frames = {}
        for side in SIDES:
            with open_frames(Path(config[side])) as source:  # errors name the user's own file
                frames[side] = source.count
        stages = {
            "extract src": frames["src"],
            "extract dst": frames["dst"],
            "plan": None,
            "train": None,
            "convert": frames["dst"],
            "evaluate": frames["dst"] and EVALUATED * frames["dst"],
        }
        if config.truth is not None:
            stages["against the truth"] = None
        overview = Overview(stages)
        for short in ("plan", "against the truth"):
            overview.expect(short, 0)
        if config.hours is not None:
            overview.expect("train", config.hours * 3600)

        with shown(overview, workspace / LOG):
            # ---- Faces

            made_of = digest(extraction, *clips.values())
            if not record.has("extract", made_of):
                with record.timed("extract", made_of):
                    extract(extraction)
            elif None not in frames.values() and (seconds := record.of("extract").get("seconds")):
                overview.rate = sum(frames.values()) / seconds

            # ---- The plan: what is trained, for how long

            made_of = digest(config.preset, config.hours, config.train)
            plan = read_plan(record.of("plan"), made_of)
            if plan is None:
                overview.hear("plan", 0, None)
                plan = choose(config, both)
                record.put("plan", {"of": made_of} | dataclasses.asdict(plan))
            for line in plan.why:
                log.info("plan: %s", line)
            training = compose_stage(config, "train", both, plan.settings())

            # ---- Training: the model's folder says how far it is

            model = workspace / "models" / training.name
            if plan.seconds is not None:
                overview.expect("train", plan.seconds * training.iterations)
            if (saved_model.latest_step(model) or 0) < training.iterations:
                with record.timed("train", ""):
                    train(training, heard_by_step(overview, training, model))
                if (saved_model.latest_step(model) or 0) < training.iterations:
                    raise KeyboardInterrupt

            # ---- The result, and how good it is

            name = f"name={quoted(training.name)}"
            conversion = compose_stage(config, "convert", [*of_result, name])
            faces = png_files(Path(conversion.data.dst.aligned))
            made_of = digest(
                conversion, saved_model.latest_step(model), clips["dst"], *sorted(faces)
            )
            if not (
                record.has("convert", made_of) and record.of("convert").get("out") == state(out)
            ):
                record.put("convert", {"of": None, "running": True})
                with record.timed("convert", made_of):
                    convert(conversion)
                made = {"out": state(out), "path": os.path.abspath(out)}
                record.put("convert", {"running": False} | made)
            evaluation = [*of_dst, f"result={quoted(str(out))}"]
            if config.truth is not None:
                evaluation += [f"truth={quoted(config.truth)}"]
            evaluation = compose_stage(config, "evaluate", evaluation)
            made_of = digest(evaluation, state(out), clips["dst"])
            if not (record.has("evaluate", made_of) and beside(out, "evaluation.json").exists()):
                with record.timed("evaluate", made_of):
                    evaluate_result(evaluation)

            # ---- What came of it

            lines = write_report(config, out, plan, training, record)
        say(*lines)


def place(clip: Path, side: str, workspace: Path) -> Path:
    """Where the other commands find `clip`: a link in the workspace, or the folder of pictures.

    Raises UserError for what is not there, and where the workspace has another clip.
    """
    if not clip.exists():
        raise UserError(f"{side}={clip}: no such file or folder")
    if clip.is_dir():
        return clip
    link = workspace / f"{side}{clip.suffix.lower()}"
    if link.is_symlink():
        was_moved = not link.exists()
        if was_moved or not (os.path.samefile(link, clip) or (workspace / side).exists()):
            link.unlink()  # nothing was made of another clip yet
    if not link.exists():
        link.symlink_to(clip.resolve())
    elif not os.path.samefile(link, clip):
        raise UserError(f"{link}: another clip than {side}={clip}; give another workspace=")
    return link


def compose_stage(
    config: DictConfig, command: str, needed: list[str], own: Sequence[str] = ()
) -> DictConfig:
    """The configuration of `command`: `needed`, and `own` settings unless the user has others.

    Raises UserError for a setting of the user's that the command does not have.
    """
    users = with_plain_paths(config[command]) if command in STAGES else []
    try:
        composed = compose(command, [*needed, *fitting(own, users)])
    except HydraException as error:
        if line := misspelt(command, error):
            raise UserError(f"{command}.{line}") from error
        raise
    composed.hardware, composed.debug = config.hardware, config.debug
    require_complete(composed)
    return composed


def check_training(config: DictConfig, data: list[str]) -> None:
    """Raises UserError for a setting of the user's that no preset in question takes."""
    if config.preset not in (AUTO, *PRESETS):
        raise UserError(f"preset={config.preset}: expected {AUTO}, {', '.join(PRESETS)}")
    names = list(PRESETS) if config.preset == AUTO else [config.preset]
    for name in names:
        try:
            compose_stage(config, "train", data, PRESETS[name].settings)
        except (UserError, HydraException):
            if name == names[-1]:
                raise
        else:
            return


def choose(config: DictConfig, data: list[str]) -> Plan:
    """The plan for this machine. Raises UserError."""
    used = devices.choose(config.hardware)
    free = devices.free_memory(used)
    if config.hardware.memory_gb is not None:
        free = min(free, int(config.hardware.memory_gb * 1e9))

    def measure(plan: Plan) -> float:
        return seconds_per_iteration(compose_stage(config, "train", data, plan.settings()))

    given = any(setting.partition("=")[0] == "iterations" for setting in config.train)
    iterations = compose_stage(config, "train", data).iterations if given else None
    if iterations == 0:
        raise UserError("train.iterations=0: expected the number after which the result is made")
    return make_plan(config.preset, config.hours, iterations, used, free, measure)


def heard_by_step(overview: Overview, config: DictConfig, model: Path) -> Callable[[Step], Step]:
    """What `train` wraps its step in, so that `overview` hears of each iteration."""

    def wrap(step: Step) -> Step:
        done = saved_model.latest_step(model) or 0
        overview.hear("train", done, config.iterations)

        def run(state, batch):
            nonlocal done
            result = step(state, batch)
            done += config.steps_per_dispatch
            overview.hear("train", done, config.iterations)
            return result

        return run

    return wrap


def check_result(out: Path, marking: Marking, record: "Record", config: DictConfig) -> None:
    """Raises UserError unless `out` is to come, this swap's own, or may be replaced."""
    check_output(out, marking, "out")
    known = record.of("convert")
    own = known.get("running") is True or known.get("out") == state(out)
    if out.exists() and not own and not config.overwrite:
        raise UserError(
            f"out={out}: not of this swap; move it, give another out=, or replace it with "
            "overwrite=true"
        )


def state(path: Path) -> list[int] | None:
    """What changes when the file or folder at `path` does; None: there is none."""
    with suppress(FileNotFoundError):
        found = path.stat()
        return [found.st_size, found.st_mtime_ns]
    return None


def digest(*values: Any) -> str:
    """A text that is the same for the same settings and the same state of the same files."""

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return [value.name, state(value)]
        return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value

    content = json.dumps([plain(value) for value in values], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


class Record:
    """`swap.json`: of each finished stage what it was made of, its seconds, and what it found."""

    def __init__(self, path: Path) -> None:
        """Raises BadFileError for a file that is no record."""
        self._path = path
        self._stages: dict[str, dict[str, Any]] = {}
        if path.exists():
            try:
                content = foreign.mapping(foreign.read_json(path, LARGEST_SWAP_RECORD), "record")
                for name, value in content.items():
                    self._stages[name] = foreign.mapping(value, name)
                    if (seconds := value.get("seconds")) is not None:
                        foreign.number(seconds, "seconds", 0, 1e9)
            except ValueError as error:
                raise BadFileError(path, f"no record of a swap ({error}); remove it") from error

    def of(self, stage: str) -> dict[str, Any]:
        """What is noted of `stage`."""
        return self._stages.get(stage, {})

    def has(self, stage: str, made_of: str) -> bool:
        """True when `stage` is finished, made of the same."""
        return self.of(stage).get("of") == made_of

    def put(self, stage: str, facts: dict[str, Any]) -> None:
        """Adds to what is noted, and writes it."""
        self._stages[stage] = self.of(stage) | facts
        atomic.write_text(self._path, json.dumps(self._stages, indent=1) + "\n")

    @contextmanager
    def timed(self, stage: str, made_of: str) -> Iterator[None]:
        """Notes that `stage` is finished, and how long it took, when the context ends well."""
        start = time.monotonic()
        yield
        self.put(stage, {"of": made_of, "seconds": round(time.monotonic() - start, 1)})
