"""`odfs COMMAND`: which commands there are, and what reaches them."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from odfs_jax import __main__, cli
from odfs_jax.config import SCHEMAS
from odfs_jax.runtime.processes import own_command

ROOT = Path(__file__).parents[1]


def call(monkeypatch, *arguments: str) -> int | str | None:
    """The exit code of `odfs` with `arguments`."""
    monkeypatch.setattr(sys, "argv", ["odfs", *arguments])
    try:
        __main__.main()
    except SystemExit as ended:
        return ended.code
    return 0


def test_every_command_is_behind_the_one_name_and_has_one_of_its_own():
    functions = {command.replace("-", "_") for command in __main__.COMMANDS}
    assert set(SCHEMAS) <= functions
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts.pop("odfs") == "odfs_jax.__main__:main"
    for name, target in scripts.items():
        command = name.removeprefix("odfs-")
        assert command in __main__.COMMANDS
        assert target == f"odfs_jax.cli:{command.replace('-', '_')}"


def test_help_says_of_every_command_what_it_does(monkeypatch, capsys):
    assert call(monkeypatch) == call(monkeypatch, "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    for command in __main__.COMMANDS:
        said = [line for line in lines if line.split()[:1] == [command]]
        assert len(said) == 2 and said[0].endswith(".")


def test_a_command_gets_its_arguments_and_its_exit_code_goes_out(monkeypatch, capsys):
    assert call(monkeypatch, "verify", str(ROOT / "LICENSE"), "/no/such") == 2
    assert capsys.readouterr().err.startswith("odfs-verify: /no/such: no such file")
    assert call(monkeypatch, "train", "batchsize=3") == 2
    assert "odfs-train: batchsize: no such setting" in capsys.readouterr().err
    assert call(monkeypatch, "import_dfl", "facs=x") == 2  # the name of its YAML is welcome too
    assert "odfs-import-dfl: facs: no such setting" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("trian", "odfs: trian: no such command; did you mean train?\n"),
        ("\x1b[2J", "odfs: \\x1b[2J: no such command; odfs --help names them\n"),
    ],
)
def test_a_name_that_there_is_not(name, said, monkeypatch, capsys):
    assert call(monkeypatch, name) == 2
    assert capsys.readouterr() == ("", said)


def test_the_version_is_that_of_every_command(monkeypatch, capsys):
    assert call(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"{cli.version()}\n"


def test_a_command_starts_another_in_the_same_program(monkeypatch):
    done = subprocess.run(own_command("--version"), capture_output=True, text=True, check=True)
    assert done.stdout == f"{cli.version()}\n"
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "executable", "/opt/odfs/odfs")
    assert own_command("sort", "data=src") == ["/opt/odfs/odfs", "sort", "data=src"]
