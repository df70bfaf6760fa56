"""Training runs that the studio starts: what can be chosen, and what was chosen for each run.

<workspace>/studio/runs.json remembers the choices of a run by its name, because the same settings
resume it.
"""

import json
import re
from dataclasses import asdict, dataclass, replace
from typing import Any

from odfs_jax.data import atomic, foreign
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.explain import choices_of, comments_of
from odfs_jax.studio.workspace import StudioWorkspace, is_plain

MOST_BATCH, MOST_ITERATIONS = 1 << 16, 1 << 40
LARGEST, MOST_VALUES = 1 << 20, 100_000  # bytes and values of a file that is read
PRESETS = ("recipe", "experiment")  # the groups of configs/ whose files are presets
# Of `more`: no setting in these groups is a path, and no such value is one.
SETTING = re.compile(r"((?:model|augment|loss|optimizer|discriminator)(?:\.\w+)+)=([\w.+-]+)", re.A)
MOST_TEXT = 1000  # letters of `more`


@dataclass(frozen=True)
class Choices:
    """What `train.py` is started with. None: as the model or the preset has it."""

    name: str
    model: str
    preset: str | None = None  # such as recipe=quick
    batch_size: int | None = None
    iterations: int | None = None  # 0: until it is stopped
    more: str = ""  # as on a command line: model.resolution=128 augment.color=0.2

    def settings(self) -> dict[str, str | int | float]:
        """The settings of the command line by key. Raises UserError for what cannot be chosen."""
        if not is_plain(self.name):
            raise UserError(f"name={self.name!r:.80}: expected the name of a folder")
        if self.model not in model_names():
            raise UserError(f"model={self.model!r:.80}: expected one of {', '.join(model_names())}")
        found: dict[str, str | int | float] = {"name": self.name, "model": self.model}
        if self.preset is not None:
            if self.preset not in preset_names():
                expected = ", ".join(preset_names())
                raise UserError(f"preset {self.preset!r:.80}: expected one of {expected}")
            group, _, choice = self.preset.partition("=")
            found[group] = choice
        for key, low, high in (("batch_size", 1, MOST_BATCH), ("iterations", 0, MOST_ITERATIONS)):
            value = getattr(self, key)
            if value is not None:
                if not low <= value <= high:
                    raise UserError(f"{key}={value}: expected {low}..{high}")
                found[key] = value
        return found | _more_settings(self.more)


def model_names() -> list[str]:
    """The networks of configs/model, by name."""
    return choices_of("model")


def preset_names() -> list[str]:
    """The recipes and experiments, as on a command line: recipe=quick."""
    return [f"{group}={name}" for group in PRESETS for name in choices_of(group)]


def describe(group: str, name: str) -> str:
    """The comment at the top of configs/<group>/<name>.yaml."""
    return " ".join(comments_of(group, name).head)


def remember(workspace: StudioWorkspace, choices: Choices) -> None:
    """Keeps `choices` for the run of that name."""
    known = _known(workspace) | {choices.name: asdict(choices)}
    workspace.own.mkdir(parents=True, exist_ok=True)
    atomic.write_text(workspace.own / "runs.json", json.dumps(known))


def recall(workspace: StudioWorkspace, name: str) -> Choices:
    """What the run `name` was started with here; of others what its config.yaml says of it."""
    usual = Choices(name, "h64" if "h64" in model_names() else model_names()[0])
    try:
        return _checked(_known(workspace)[name], usual)
    except (KeyError, ValueError, UserError):
        pass
    try:
        config = foreign.read_yaml(workspace.model(name) / "config.yaml", LARGEST, MOST_VALUES)
        config = foreign.mapping(config, "config", ("model", "batch_size", "iterations"))
        model = foreign.mapping(config["model"], "model", ("name",))["name"]
        found = {key: config[key] for key in ("batch_size", "iterations")}
        return _checked(found | {"model": model}, usual)
    except (BadFileError, ValueError, UserError):
        return usual


def _more_settings(text: str) -> dict[str, str | int | float]:
    """The settings `key=value` in `text` by key. Raises UserError for any of another group."""
    found = {}
    for word in text[:MOST_TEXT].split():
        setting = SETTING.fullmatch(word)
        if setting is None:
            raise UserError(
                f"{word!r:.80}: expected settings of model, augment, loss, optimizer or "
                "discriminator, such as model.resolution=128"
            )
        key, value = setting.groups()
        try:
            known = foreign.parse_yaml(value.encode(), 1)
        except ValueError as error:
            raise UserError(f"{word!r:.80}: {error}") from error
        found[key] = known if isinstance(known, int | float) else value
    return found


def _checked(found: Any, usual: Choices) -> Choices:
    """`usual` with what a file says. Raises ValueError or UserError for other values."""
    found = foreign.mapping(found, "run")
    keys = ("model", "preset", "batch_size", "iterations", "more")
    choices = replace(usual, **{key: found[key] for key in keys if key in found})
    for key, high in (("batch_size", MOST_BATCH), ("iterations", MOST_ITERATIONS)):
        if getattr(choices, key) is not None:
            foreign.integer(getattr(choices, key), key, 0, high)
    foreign.text(choices.more, "more", MOST_TEXT)
    choices.settings()
    return choices


def _known(workspace: StudioWorkspace) -> dict[str, Any]:
    try:
        found = foreign.read_json(workspace.own / "runs.json", LARGEST)
        return foreign.mapping(found, "runs")
    except (BadFileError, ValueError):
        return {}
