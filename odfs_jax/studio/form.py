"""The merge settings as fields of a form, read from their schema: a new one appears by itself."""

import inspect
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from odfs_jax.config import MergeConfig, config_dir
from odfs_jax.conversion.convert import ANCHORS
from odfs_jax.conversion.masks import KEPT
from odfs_jax.conversion.merge import CHOICES, RANGES
from odfs_jax.conversion.modes import MODES

ONE_OF = CHOICES | {"anchor": ANCHORS}
SOME_OF = {"keep": KEPT}


def merge_fields() -> list[dict[str, Any]]:
    """Every setting: name, kind, what it may be, and the words beside its default in the YAML.

    `kind` is number (with low, high, step), choice, several (with options) or words. Options of a
    mode are called `args.<name>` and have its `mode`.
    """
    found = [{"name": "mode", "kind": "choice", "options": list(MODES)}]
    found += _of_mode() + _of(MergeConfig)
    help_of = _comments(Path(config_dir()) / "merge" / "overlay.yaml")
    return [field | {"help": help_of.get(field["name"], "")} for field in found]


def _of(config: type, prefix: str = "") -> list[dict[str, Any]]:
    """The fields of a dataclass, those of the dataclasses in it too."""
    hints, found = get_type_hints(config), []
    for field in fields(config):
        name, kind = f"{prefix}{field.name}", hints[field.name]
        if is_dataclass(kind):
            found += _of(kind, f"{name}.")
        elif name not in ("mode", "args"):
            found.append({"name": name} | _kind(name, kind))
    return found


def _kind(name: str, kind: Any) -> dict[str, Any]:
    if name in ONE_OF:
        return {"kind": "choice", "options": list(ONE_OF[name])}
    if name in SOME_OF:
        return {"kind": "several", "options": list(SOME_OF[name])}
    if kind is bool:
        return {"kind": "choice", "options": [True, False]}
    if kind in (int, float):
        low, high = RANGES.get(name, (None, None))
        step = 1 if kind is int or high is None or high - low > 10 else 0.05
        return {"kind": "number", "low": low, "high": high, "step": step}
    return {"kind": "words"}


def _of_mode() -> list[dict[str, Any]]:
    """The options of each mode; None: as the model likes it."""
    found = []
    for mode, build in MODES.items():
        for name, option in inspect.signature(build).parameters.items():
            kinds = get_args(option.annotation) or (option.annotation,)
            field = _kind(f"args.{name}", kinds[0])
            if field["kind"] == "choice":
                field["options"] = [None, *field["options"]]
            found.append({"name": f"args.{name}", "mode": mode} | field)
    return found


def _comments(path: Path) -> dict[str, str]:
    """The comment beside each key of a YAML file of at most two levels."""
    found, above = {}, ""
    for line in path.read_text().splitlines():
        match = re.match(r"( *)(\w+):([^#]*)(?:#\s*(.*))?$", line)
        if match:
            indent, key, value, comment = match.groups()
            name = f"{above}.{key}" if indent else key
            above = key if not indent and not value.strip() else above
            found[name] = comment or found.get(above, "")
    return found
