"""What the YAML files of `configs/` say of every setting, in their comments; and `--help` of it.

A comment behind a key explains the key, and so do full lines of comment before it; those with two
spaces or more behind the # stay lines of their own, as in a table. Lines before the first key
explain the file, the first of them in short; in that of a command each is an example. Where a file
says nothing of a key, that counts which the files say that its `defaults` name.
"""

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from odfs_jax.config import compose_with_choices, config_dir, leaves, quoted

LINE = re.compile(r"(?P<indent> *)(?P<item>- )?(?P<key>\w+):(?P<value>[^#]*)(#\s*(?P<said>.*))?")
WIDEST, NARROWEST = 100, 60  # columns of --help
COLUMN = 32  # in which explanations begin
MULTIRUN = "several runs, one for each of the values that commas separate: docs/clusters.md"
BOLD, KEY, FAINT, PLAIN = "\x1b[1m", "\x1b[36m", "\x1b[2m", "\x1b[0m"
OPTIONS = {
    "--help": "this page; with model=saehd, say, it shows the settings of that choice",
    "--cfg job": "all settings and their values, as YAML",
    "--version": "the versions of what computes, and the devices that there are",
    "--config-dir DIR": "also take your own DIR/model/NAME.yaml and the like, as model=NAME",
}


@dataclass
class Comments:
    """Of a file: its `head`, and what it says of `keys`, dotted, and of `groups` that it takes.

    An explanation has one line, or several where it is a table.
    """

    head: list[str] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """The first line of the head."""
        return self.head[0].rstrip(".") if self.head else ""


def read_comments(path: Path) -> Comments:
    """What the YAML file at `path` says itself."""
    found, before, parents = Comments(), [], [("", -1)]
    lines = path.read_text(errors="replace").splitlines()
    is_head = True
    for line in lines:
        if line.lstrip().startswith("#"):
            text = line.lstrip()[1:].removeprefix(" ")
            if not text.startswith("@package"):
                (found.head if is_head else before).append(text)
            continue
        is_head = False
        if not (match := LINE.fullmatch(line)):
            continue
        while parents[-1][1] >= len(match["indent"]):
            parents.pop()
        own = [match["said"]] if match["said"] else []
        if match["item"]:
            if parents[-1][0] == "defaults.":
                found.groups[match["key"]] = " ".join(own)
            continue
        name = parents[-1][0] + match["key"]
        found.keys[name] = joined([*before, *own])
        parents.append((f"{name}.", len(match["indent"])))
        before = []
    return found


def joined(lines: Sequence[str]) -> str:
    """`lines` of comment as one, but for those of a table."""
    text = ""
    for line in lines:
        text += f"\n{line}" if line.startswith("  ") else f" {line}" if text else line
    return text


@cache
def comments_of(group: str, name: str, folder: Path | None = None) -> Comments:
    """What configs/<group>/<name>.yaml says, or for keys that it does not explain its bases.

    The group "" has the files of the commands. `folder` has files of the user beside those of
    configs/, as `--config-dir` takes them.
    """
    path = _files_of(group, folder)[name]
    own = read_comments(path)
    for base in yaml.safe_load(path.read_text()).get("defaults", []) if group else []:
        if isinstance(base, str) and base in _files_of(group, folder):
            inherited = comments_of(group, base, folder).keys
            own.keys |= {key: said for key, said in inherited.items() if not own.keys.get(key)}
    return own


def choices_of(group: str, folder: Path | None = None) -> list[str]:
    """The names of the files of configs/<group>/, and of <folder>/<group>/: its choices."""
    return sorted(_files_of(group, folder))


def _files_of(group: str, folder: Path | None) -> dict[str, Path]:
    """Of two files of one name the program's own, as Hydra has it."""
    folders = [Path(config_dir()), *([folder] if folder else [])]
    return {path.stem: path for one in reversed(folders) for path in (one / group).glob("*.yaml")}


@dataclass(frozen=True)
class Group:
    """Settings that belong together: those of a command itself, or of one choice of a group."""

    name: str  # "" for the command's own
    choice: str | None
    about: str
    settings: dict[str, Any]  # values by dotted key
    said: dict[str, str]  # explanations by dotted key


def explained(
    command: str, overrides: Sequence[str] = (), folder: Path | None = None
) -> list[Group]:
    """All settings of `command`, with the values that they have with `overrides`, by groups.

    `folder` is a user's own, as in `comments_of`. Raises Hydra's exceptions for keys and choices
    that there are not.
    """
    if folder:
        overrides = [*overrides, f"hydra.searchpath=[{quoted(f'file://{folder.resolve()}')}]"]
    config, choices = compose_with_choices(command, overrides)
    own = comments_of("", command)
    values = OmegaConf.to_container(config)
    of_groups = {name: values.pop(name, {}) for name in own.groups if name != "hydra"}
    of_command = dict(leaves(values))
    found = [Group("", None, "", of_command, own.keys)]
    for name, inner in of_groups.items():
        choice = choices.get(name)
        said = comments_of(name, choice, folder).keys if choice else {}
        said = {f"{name}.{key}": text for key, text in said.items()}
        said |= {key: text for key, text in own.keys.items() if text and key.startswith(f"{name}.")}
        # What no file of the choice sets, it has no use for: merging is nothing to a mask network.
        settings = {key: value for key, value in leaves(inner, f"{name}.") if key in said}
        found.append(Group(name, choice, own.groups[name], settings, said))
    return found


class Writer:
    """Lines of at most `width` columns; with `colored`, as a terminal shows them."""

    def __init__(self, width: int, colored: bool) -> None:
        self.width, self.colored = width, colored
        self.lines: list[str] = []

    def color(self, text: str, color: str) -> str:
        return f"{color}{text}{PLAIN}" if self.colored and text else text

    def heading(self, text: str, about: str = "") -> None:
        """A line that begins a part."""
        first, *more = textwrap.wrap(f"{text}: {about}" if about else text, self.width)
        colored = self.color(text, BOLD) + first[len(text) :] if first.startswith(text) else first
        self.lines += ["", colored, *more]

    def row(self, name: str, said: str, indent: int = 2, value: str = "") -> None:
        """`name`, its `value`, and what is `said` of it, beside or below."""
        column = " " * COLUMN
        told = []
        for line in said.split("\n"):
            # A row of a table goes on below its second column.
            table = re.match(r" +\S+ +(?=\S)", line)
            hang = " " * (table.end() if table else 0)
            told += textwrap.wrap(
                line, self.width - COLUMN, drop_whitespace=True, subsequent_indent=hang
            )
        shown = " " * indent + self.color(name, KEY) + self.color(value, FAINT)
        length = indent + len(name) + len(value)
        if told and length + 2 <= COLUMN:
            self.lines.append(shown + " " * (COLUMN - length) + told.pop(0))
        else:
            room = self.width - length
            self.lines += [shown] if room >= 0 else self._cut(name, value, indent)
        self.lines += [column + line for line in told]

    def _cut(self, name: str, value: str, indent: int) -> list[str]:
        """A key whose value is longer than a line."""
        first, *more = textwrap.wrap(
            name + value, self.width - indent, subsequent_indent="    ", break_on_hyphens=False
        )
        rest = [self.color(line, FAINT) for line in more]
        return [" " * indent + self.color(first, KEY), *(" " * indent + line for line in rest)]


def page_format() -> tuple[int, bool]:
    """Of a page on stdout the columns, and whether it has colors.

    In a pipe all columns and no colors; on a terminal its own columns, within limits, and colors
    unless NO_COLOR is set.
    """
    if not sys.stdout.isatty():
        return WIDEST, False
    columns = shutil.get_terminal_size((WIDEST, 24)).columns
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return max(NARROWEST, min(WIDEST, columns)), wanted


def help_page(
    command: str,
    about: str,
    overrides: Sequence[str],
    folder: Path | None,
    width: int,
    colored: bool,
) -> list[str]:
    """The lines of `odfs COMMAND --help`; `command` is the name of its YAML file.

    `folder` is a user's own, as in `comments_of`. Raises Hydra's exceptions for `overrides` that
    the command does not take.
    """
    shown = f"odfs {command.replace('_', '-')}"
    page = Writer(width, colored)
    page.heading(shown, about)
    page.heading("Examples")
    for example in comments_of("", command).head:
        line, _, what = example.partition(" # ")
        for text in textwrap.wrap(line, width - 2, subsequent_indent="    "):
            page.lines.append(f"  {page.color(text, KEY)}")
        page.lines += [f"      {text}" for text in textwrap.wrap(what, width - 6)]
    own, *groups = explained(command, overrides, folder)
    page.heading("Settings", "written KEY=VALUE; here with the values that they have unasked")
    for key, value in own.settings.items():
        page.row(key, own.said.get(key, ""), value=f"={plain(value)}")
    for group in groups:
        page.heading(f"{group.name}={group.choice or 'null'}", group.about)
        names = choices_of(group.name, folder)
        if len(names) > 1 or not group.choice:
            for name in names:
                summary = read_comments(_files_of(group.name, folder)[name]).summary
                page.row(f"{group.name}={name}", summary)
            page.lines += [""] if group.settings else []
        for key, value in group.settings.items():
            page.row(key, group.said.get(key, ""), value=f"={plain(value)}")
    page.heading("Options")
    sweeps = {"--multirun": MULTIRUN} if command == "train" else {}
    for option, said in (OPTIONS | sweeps).items():
        page.row(option, said)
    return page.lines[1:]


def plain(value: Any) -> str:
    """`value` about as a command line has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(plain, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
