"""Merge settings for parts of a clip: `dst.shots.yaml` beside the clip, or `shots=PATH`.

- from: 120        # the frame, counted from 0 (of a folder: the position by name)
  mode: seamless   # what differs from the command's own settings, which hold before the first shot
  erode: 10
- from: 300        # every shot starts from the command's settings again
  ramp: 25         # over its first 25 frames, RAMPED settings go from the shot before to these
"""

import copy
import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from odfs_jax.data import atomic, foreign
from odfs_jax.errors import UserError

SUFFIX = ".shots.yaml"
MAX_BYTES = 1 << 20
MAX_VALUES = 500_000
MAX_SHOTS = 10_000
MAX_RAMP = 1000  # frames
MAX_RAMPS = 20_000  # frames of all ramps together: each has settings of its own, 4 ms
# What goes evenly in a ramp: numbers that programs have as inputs, see `merge.Amounts`. The other
# settings change with the first frame.
RAMPED = ("scale", "erode", "blur", "opacity", "sharpen", "motion_blur")
MAX_SETTINGS = 500  # different ones in a clip: each is checked, and compiled, by itself


@dataclass(frozen=True)
class Shot:
    """The merge settings from frame `start` on."""

    start: int
    merge: DictConfig  # a `MergeConfig`; shots with the same settings may share one
    settings: str  # `merge` as YAML, to compare settings
    ramp: int = 0  # frames in which the settings of the shot before become these


def ramp_merges(before: DictConfig, shot: Shot) -> dict[int, DictConfig]:
    """The settings of the frames of the ramp at the start of `shot`, by number.

    `before` are those of the shot before it. Both are `MergeConfig`s.
    """
    merges = {}
    for step in range(shot.ramp):
        share = (step + 1) / (shot.ramp + 1)
        between = {}
        for name in RAMPED:
            first, last = before[name], shot.merge[name]
            between[name] = first + share * (last - first)
        merges[shot.start + step] = OmegaConf.merge(shot.merge, between)
    return merges


def find_shots(configured: str | None, clip: Path) -> Path | None:
    """The file of shots: as configured, else the one beside `clip`; None: there is none.

    Raises UserError when the configured file does not exist.
    """
    if configured is None:
        stem = clip.name if clip.is_dir() else clip.stem
        beside = clip.with_name(stem + SUFFIX)
        return beside if beside.is_file() else None
    path = Path(configured)
    if not path.is_file():
        raise UserError(f"shots={path}: no such file")
    return path


def read_shots(path: Path | None, base: DictConfig) -> list[Shot]:
    """The shots of the file at `path`, in order, after `base` from frame 0 on.

    Each shot is `base` with the changes of its entry; `path` None: the only shot is `base`. Raises
    UserError when the file cannot be read as shots. Ranges of settings are checked by
    `build_merge`.
    """
    return parse_shots(path, [] if path is None else read_entries(path), base)


def parse_shots(path: Path | None, entries: list[dict[str, Any]], base: DictConfig) -> list[Shot]:
    """The shots of `entries`, which `path` contains, after `base` from frame 0 on.

    `entries` may be a stranger's, or a browser's: text in them is data and refers to nothing.
    Raises UserError that names `path`, for an entry that is no shot, for wrong order and for too
    many.
    """
    where = path or "the shot"
    try:
        foreign.check_plain(entries)
        foreign.refuse_references(entries)
        if len(entries) > MAX_SHOTS:
            raise ValueError(f"{len(entries)} shots, more than {MAX_SHOTS}")
        shots = _shots(entries, base)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
    first = Shot(0, base, OmegaConf.to_yaml(base))
    for before, after in pairwise(shots):
        if after.start <= before.start:
            raise UserError(
                f"{path}: from: {after.start} stands after from: {before.start}; expected rising "
                "numbers"
            )
    shots = shots if shots and shots[0].start == 0 else [first, *shots]
    if shots[0].ramp:
        raise UserError(f"{where}: the shot from 0: ramp: there is no shot before it")
    return shots


def write_shots(path: Path, entries: list[dict[str, Any]], base: DictConfig) -> None:
    """Replaces the file at `path` by `entries`.

    Raises UserError, before the file is changed, for entries that are no shots.
    """
    parse_shots(path, entries, base)
    atomic.write_text(path, yaml.safe_dump(entries, sort_keys=False))


def read_entries(path: Path) -> list[dict[str, Any]]:
    """The entries of the file at `path`. Raises UserError when it is no list of shots."""
    entries = foreign.read_yaml(path, MAX_BYTES, MAX_VALUES)
    entries = [] if entries is None else entries
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{path}: expected a list of shots, each beginning '- from: FRAME'")
    return entries


def _shots(entries: list[dict[str, Any]], base: DictConfig) -> list[Shot]:
    """A shot for each of `entries`; every different setting is merged once. Raises ValueError."""
    merged: dict[str, tuple[DictConfig, str]] = {}
    shots = []
    for entry in entries:
        start = entry.get("from")
        if not isinstance(start, int) or isinstance(start, bool) or start < 0:
            raise ValueError(f"from: {foreign.shown(start)}: expected the number of a frame")
        changes = foreign.mapping(entry, f"the shot from {start}")
        changes = {key: value for key, value in changes.items() if key not in ("from", "ramp")}
        try:
            ramp = foreign.integer(entry.get("ramp", 0), "ramp", 0, MAX_RAMP)
        except ValueError as error:
            raise ValueError(f"the shot from {start}: {error}") from error
        key = json.dumps(changes)
        if key not in merged:
            if len(merged) == MAX_SETTINGS:
                raise ValueError(f"more than {MAX_SETTINGS} different settings")
            merge = _merged(changes, base, start)
            merged[key] = merge, OmegaConf.to_yaml(merge)
        shots.append(Shot(start, *merged[key], ramp))
    if sum(shot.ramp for shot in shots) > MAX_RAMPS:
        raise ValueError(f"ramps of more than {MAX_RAMPS} frames together")
    return shots


def _merged(changes: dict[str, Any], base: DictConfig, start: int) -> DictConfig:
    merge = copy.deepcopy(base)
    if changes.get("mode", base.mode) != base.mode:
        merge.args = {}  # those of the command are for its own mode
    try:
        return OmegaConf.merge(merge, changes)
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        raise ValueError(f"the shot from {start}: {str(error).splitlines()[0]}") from error
