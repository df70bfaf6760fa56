"""Stages: settings that change at given iterations, so that a whole recipe is one command.

stages:
  - from: 500000
    optimizer.dropout: 0.3
  - from: 700000
    augment.warp: 0.0
    discriminator.name: unet

Each entry changes settings from its iteration on; those of earlier ones stay changed. A stage ends
with a checkpoint, from which the next one goes on as a resumed run does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from odfs_jax.config import require_complete
from odfs_jax.errors import UserError
from odfs_jax.training.objectives import make_objective

START = "from"
# What a stage may change: groups, and settings beside them.
GROUPS = ("optimizer", "augment", "loss", "discriminator")
# What pretraining is: faces of many people, unwarped, and nothing that is about two of them.
PRETRAINING = {
    "augment.warp": 0.0,
    "augment.hsv": 0.0,
    "augment.color_transfer": "none",
    "data.sampling": "uniform_yaw",
    "discriminator.name": "none",
    "loss.true_face": 0.0,
    "loss.face_style": 0.0,
    "loss.background_style": 0.0,
    "loss.light": 0.0,
    "optimizer.dropout": None,
}
SETTINGS = ("batch_size", "precision", "remat", "accumulate", "ema", "freeze")


@dataclass(frozen=True)
class Stage:
    """Iterations `start` to `end` (None: to the run's end) and the settings for them."""

    start: int
    end: int | None
    changes: dict[str, Any]  # in this stage and before, by dotted key
    config: dict[str, Any]  # a `TrainConfig`


def read_stages(config: DictConfig) -> list[Stage]:
    """The stages of a `TrainConfig`, the one before the first entry too; one where it has none.

    Raises UserError naming the entry and the key that does not fit, before anything is trained.
    """
    if config.pretrain:
        return [_pretraining(config)]
    stages, changes, start = [], {}, 0
    for entry in [*config.stages, None]:
        end = None if entry is None else _start_of(entry, start)
        if end != start:
            stages.append(Stage(start, end, dict(changes), _changed(config, changes, start)))
        if entry is not None:
            changes |= {key: value for key, value in entry.items() if key != START}
            start = end
    if len(stages) > 1 or changes:
        for stage in stages:
            make_objective(stage.config)
    return stages


def _pretraining(config: DictConfig) -> Stage:
    """The only stage of a run with `pretrain`. Raises UserError."""
    if config.stages:
        raise UserError("pretrain=true: there are no stages in it; leave out stages= and recipe=")
    config, changes = config.copy(), {}
    for key, value in PRETRAINING.items():
        if OmegaConf.select(config, key) != value:
            changes[key] = value
            OmegaConf.update(config, key, value)
    return Stage(0, None, changes, OmegaConf.to_container(config, resolve=True))


def _start_of(entry: Any, before: int) -> int:
    start = entry.get(START) if OmegaConf.is_dict(entry) else None
    if type(start) is not int or start < before:
        raise UserError(
            f"stages: expected entries of from: and settings, by rising iterations; found {entry}"
        )
    return start


def _changed(config: DictConfig, changes: dict[str, Any], start: int) -> dict[str, Any]:
    config = config.copy()
    for key, value in changes.items():
        where = f"stages: from {start}: {key}"
        group, _, name = str(key).partition(".")
        if not ((name and group in GROUPS) or key in SETTINGS):
            may = ", ".join([*(f"{group}.*" for group in GROUPS), *SETTINGS])
            raise UserError(f"{where}: a stage cannot change that, only {may}")
        try:
            OmegaConf.update(config, key, value)
            require_complete(config)
        except (OmegaConfBaseException, UserError) as error:
            raise UserError(f"{where}: {str(error).splitlines()[0]}") from error
    return OmegaConf.to_container(config, resolve=True)


def from_iteration(stages: list[Stage], number: int) -> Iterator[Stage]:
    """The stages that a run at iteration `number` has before it."""
    return (stage for stage in stages if stage.end is None or number < stage.end)
