"""`--help` of every command, from the comments of the YAML files: whole, true, and of one width."""

import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from odfs_jax import explain
from odfs_jax.command_line import own_folder, settings_of
from odfs_jax.config import SCHEMAS, config_dir, setting_names
from odfs_jax.errors import UserError
from odfs_jax.explain import (
    NARROWEST,
    WIDEST,
    choices_of,
    comments_of,
    explained,
    help_page,
    page_format,
    read_comments,
)
from odfs_jax.runtime.processes import own_command
from odfs_jax.studio.runs import PRESETS

COMMANDS = sorted(SCHEMAS)
COLORS = re.compile(r"\x1b\[\d*m")
FILES = [
    path for path in sorted(Path(config_dir()).glob("*/*.yaml")) if path.parent.name != "hydra"
]


@pytest.mark.parametrize("file", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_key_of_every_choice_has_a_comment(file):
    found = comments_of(file.parent.name, file.stem)
    assert found.summary
    parents = {key.rpartition(".")[0] for key in found.keys} | {"defaults", "args"}
    if file.parent.name not in PRESETS:  # they only change what others explain
        assert [key for key, said in found.keys.items() if not said and key not in parents] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_page_has_all_of_a_command_and_no_line_is_too_long(command, monkeypatch):
    found = explained(command, [])
    monkeypatch.setattr(explain, "explained", lambda *_: found)  # which takes its time
    for group in found:
        assert [key for key in group.settings if not group.said.get(key)] == []
        assert group.about or not group.name
    lines = help_page(command, "what it does", [], None, WIDEST, False)
    assert max(map(len, lines)) <= WIDEST
    text = "\n".join(lines)
    for group in found:
        assert all(f"  {key}=" in text for key in group.settings)
        if group.name and len(choices_of(group.name)) > 1:
            rows = [line for line in lines if line.startswith(f"  {group.name}=")]
            assert [row.split()[0].split("=")[1] for row in rows] == choices_of(group.name)
            assert all(row.split()[1:] for row in rows)  # in one line each
    colored = help_page(command, "what it does", [], None, WIDEST, True)
    assert colored != lines and [COLORS.sub("", line) for line in colored] == lines
    narrow = help_page(command, "what it does", [], None, NARROWEST, False)
    assert max(map(len, narrow)) <= NARROWEST


@pytest.mark.parametrize("command", COMMANDS)
def test_three_examples_of_what_the_command_takes(command):
    examples = comments_of("", command).head
    assert len(examples) == 3
    groups, known = comments_of("", command).groups, set(setting_names(SCHEMAS[command]))
    if command == "swap":
        known |= {f"train.{key}" for key in setting_names(SCHEMAS["train"])}
    for example in examples:
        program, name, *settings = shlex.split(example, comments=True)
        assert (program, name.replace("-", "_")) == ("odfs", command)
        for key, value in (setting.split("=") for setting in settings):
            assert value in choices_of(key) if key in groups else key in known


def test_a_page_shows_the_choice_that_is_asked_for():
    text = "\n".join(
        help_page("train", "", ["model=saehd_256", "batch_size=3"], None, WIDEST, False)
    )
    assert "  model.args.archi=liae-udt" in text and "\nmodel=saehd_256: " in text
    assert "  batch_size=3 " in text and "model.args.encoder" not in text


def test_a_page_shows_choices_of_a_users_own_folder(tmp_path):
    folder = tmp_path / "né [1] 50%, #2"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "mine.yaml").write_text(
        "# What I trained.\n\ndefaults: [h64, _self_]\nresolution: 80 # as I like it\n"
    )
    (folder / "model" / "h64.yaml").write_text("# not the program's own\n")
    (folder / "model" / "bad.yaml").write_bytes(b"# a {broken\xff one\n: [")
    assert own_folder(["--help", "--config-dir", str(folder)]) == folder
    assert own_folder([f"-cd={folder}"]) == folder and own_folder(["model=h64"]) is None
    with pytest.raises(UserError, match="no such folder"):
        own_folder(["--config-dir", f"{folder}/none"])
    text = "\n".join(help_page("train", "", ["model=mine"], folder, WIDEST, False))
    assert re.search(r"  model=mine +What I trained\n", text) and "  model=bad " in text
    assert re.search(r"  model\.resolution=80 +as I like it\n", text)
    assert re.search(r"  model\.width=1 +\w", text)  # in the words of what it is based on
    assert "the program's own" not in text


def test_comments_of_a_file(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(
        "# In short.\n# And at length.\ndefaults:\n  - other: x # which one\n  - _self_\n\n"
        "plain: 1 # said\n# before\n# it:\n#   a  one\n#   b  two\ntable: x\n"
        "group: # of several\n  inner: [1, 2] # inside\n  silent: 3\nafter: {a: 1}\n"
    )
    found = read_comments(path)
    assert found.summary == "In short" and found.groups == {"other": "which one"}
    assert found.keys == {
        "defaults": "",
        "plain": "said",
        "table": "before it:\n  a  one\n  b  two",
        "group": "of several",
        "group.inner": "inside",
        "group.silent": "",
        "after": "",
    }


def test_a_choice_has_its_bases_comments_unless_it_has_its_own():
    own, base = comments_of("optimizer", "adabelief").keys, comments_of("optimizer", "adam").keys
    assert own["b2"] == base["b2"] and own["b1"] != base["b1"]


def test_colors_are_for_terminals_and_for_who_wants_them(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert page_format() == (WIDEST, False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "72")
    assert page_format() == (72, True)
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setenv("NO_COLOR", "1")
    assert page_format() == (WIDEST, False)


def test_the_real_command_on_a_terminal():
    """The page comes in colors, after which a program still runs: nothing is trained."""
    parent, child = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm"}
    done = subprocess.Popen(
        own_command("export-dfl", "name=x", "--help"), stdout=child, env=environment
    )
    os.close(child)
    text = b""
    while True:
        try:
            part = os.read(parent, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        text += part
    os.close(parent)
    assert done.wait() == 0 and b"\x1b[1modfs export-dfl" in text and b"name" in text


def test_a_mistake_beside_help_is_one_line():
    done = subprocess.run(
        own_command("train", "model=none_such", "--help"), capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "sweeps", "settings"),
    [
        ("--help model=saehd", False, ["model=saehd"]),
        ("a=1 --cfg job --help -cd /own ~b", False, ["a=1", "~b"]),
        ("-m shard=0,1 name='a,b' hydra/launcher=joblib -h", True,
         ["name='a,b'", "hydra/launcher=joblib"]),
        ("batch_size=1,2 --help", False, ["batch_size=1,2"]),
    ],
)  # fmt: skip
def test_hydras_own_options_beside_help_are_no_settings(line, sweeps, settings):
    assert settings_of(line.split(), sweeps) == settings
