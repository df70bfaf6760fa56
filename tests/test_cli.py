"""The commands' entry points: what they make of a command line, and what they print."""

import logging
import os
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from odfs_jax import cli
from odfs_jax.config import (
    SCHEMAS,
    compose,
    quoted,
    require_complete,
    setting_names,
    with_plain_paths,
)
from odfs_jax.errors import UserError
from odfs_jax.runtime.output import say

COMMANDS = (
    "swap",
    "train",
    "extract",
    "convert",
    "sort",
    "faceset",
    "studio",
    "import_dfl",
    "export_dfl",
    "export",
)


@pytest.mark.parametrize("name", COMMANDS)
def test_an_entry_point_says_what_it_does(name):
    entry = getattr(cli, name)
    assert entry.__name__ == name and entry.__doc__.endswith(".")


ODD = (
    *(
        "ä 日本 clip",
        "[a]",
        "(a)",
        "a=b",
        "a,b",
        "it's",
        "#1",
        "x~",
        "{a: b}",
        "1e3",
        "null",
        "true",
    ),
    *(
        "a\\",
        "\\'",
        'a "b"',
        "$",
        "${oc.env:HOME}",
        "a\\${oc.env:HOME}",
        "${",
        "$${x}",
        "'",
        "%s",
        "?",
    ),
)


TEXTS = (
    *("workspace", "name", "identity", "shots", "output.path", "data.src.input", "data.dst.input"),
    *("data.src.aligned", "provenance.key", "provenance.cert", "hardware.compilation_cache"),
)


def composed(arguments: dict[str, str]) -> dict[str, str]:
    """The values of settings, with `arguments` by key, each as it is written behind the `=`."""
    found = {}
    for first in range(0, len(arguments), len(TEXTS)):
        few = dict(list(arguments.items())[first : first + len(TEXTS)])
        keys = dict(zip(few, TEXTS, strict=False))
        config = compose("convert", ["data=src_dst", *(f"{keys[k]}={few[k]}" for k in few)])
        require_complete(config)  # resolves references
        found |= {name: OmegaConf.select(config, key) for name, key in keys.items()}
    return found


def test_texts_are_what_they_are_in_every_setting():
    assert composed({name: quoted(name) for name in ODD}) == {name: name for name in ODD}
    config = compose("convert", ["data=dst", f"workspace={quoted('${oc.env:HOME}')}"])
    require_complete(config)
    assert config.data.dst.aligned == "${oc.env:HOME}/dst/aligned"


def test_paths_need_no_quotes_on_a_command_line(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    paths = [f"/x/{name}/clip.mp4" for name in ODD if "${" not in name]
    quoted_ones = with_plain_paths([f"data.dst.input={path}" for path in paths])
    values = [argument.removeprefix("data.dst.input=") for argument in quoted_ones]
    assert composed(dict(zip(paths, values, strict=True))) == {path: path for path in paths}
    given = [
        "workspace=~/x y",
        "name=~",
        "merge.erode=3",
        "data=dst",
        "workspace=null",
        "-h",
        "name=",
    ]
    assert with_plain_paths(given) == [
        *("workspace='/home/ada/x y'", "name='/home/ada'", "merge.erode=3", "data=dst"),
        *("workspace=null", "-h", "name="),
    ]
    for kept in ("workspace='a b'", 'workspace="[a]"', "workspace=${oc.env:HOME}/x"):
        assert with_plain_paths([kept]) == [kept]


def test_nothing_that_is_printed_commands_a_terminal(monkeypatch, capsys):
    hostile, written = "\x1b[2J\n\x9b\u202e\ud800", "\\x1b[2J\\n\\x9b\\u202e\\ud800"

    def sort(config) -> None:
        say(f"said {hostile}", "next")
        logging.getLogger("odfs_jax.x").info("logged %s", hostile)
        logging.getLogger("library").warning("warned %s", hostile)
        raise UserError(f"refused {hostile}")

    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(sys, "argv", ["sort.py", "data=src"])
    monkeypatch.setenv("GLIBC_TUNABLES", "")
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    with pytest.raises(SystemExit) as error:
        cli.command(sort)()
    out, err = capsys.readouterr()
    assert error.value.code == 2 and out == f"said {written}\nnext\n"
    assert err == f"logged {written}\nwarned {written}\nodfs-sort: refused {written}\n"


@pytest.fixture
def started(monkeypatch):
    """The programs started in place of this one, with GLIBC_TUNABLES not set before."""
    programs = []
    monkeypatch.setattr(os, "execv", lambda *program: programs.append(program))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "gettrace", lambda: None)
    monkeypatch.delenv("GLIBC_TUNABLES")
    return programs


def test_the_same_command_starts_again_on_huge_pages(started):
    cli.use_huge_pages()
    assert started == [(sys.executable, sys.orig_argv)]
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    cli.use_huge_pages()  # as the started one does
    assert len(started) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="no new process is started")
def test_nothing_slow_is_imported_before_the_new_process_starts():
    code = """
import os, sys
os.execv = lambda *program: sys.exit(str({"hydra", "omegaconf", "numpy", "jax"} & set(sys.modules)))
from odfs_jax.cli import extract
extract()
"""
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (1, b"set()\n")


def test_no_new_process_under_a_debugger_or_where_the_user_forbids_it(started, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "gettrace", lambda: object())
        cli.use_huge_pages()
    with monkeypatch.context() as patch:
        patch.setenv("GLIBC_TUNABLES", "")
        cli.use_huge_pages()
    assert started == []


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("batchsize=4", "batchsize: no such setting; did you mean batch_size"),
        ("learning_rate=1", "no such setting; did you mean optimizer.learning_rate"),
        ("loss.mae=1", "did you mean loss.face.mae?"),
        ("optimizer.lr=1", "no such setting; there are optimizer.name, optimizer.learning_rate, "),
        ("qqqq=1", "odfs-train: qqqq: no such setting\n"),
        ("--batch_size=4", "--batch_size=4: settings have no dashes; write batch_size=4\n"),
        ("--batch-size", "--batch-size: settings have no dashes; write batch_size=...\n"),
        ("a.mp4", "a.mp4: settings are written KEY=VALUE; see odfs train --help\n"),
    ],
)
def test_a_misspelt_setting_is_told_how_it_is_written(argument, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", argument])
    with pytest.raises(SystemExit) as ended:
        cli.train()
    lines = capsys.readouterr().err
    assert ended.value.code == 2 and said in lines and lines.count("\n") == 1


def test_the_version_names_what_computes(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", "--version"])
    cli.train()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("odfs-jax 0.") and ", jax " in line and "cpu" in line


def test_every_setting_of_a_command_is_known_by_its_dotted_name():
    found = set(setting_names(SCHEMAS["train"]))
    assert {"batch_size", "optimizer", "optimizer.learning_rate", "loss.face.mae"} <= found


def test_a_folder_of_compiled_programs_that_the_environment_names_is_used(monkeypatch):
    def folder(*overrides: str) -> str | None:
        config = compose("train", ["data=src_dst", *overrides])
        require_complete(config)
        return config.hardware.compilation_cache

    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    assert folder() == "~/.cache/odfs_jax"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/scratch/a b,c")
    assert folder() == "/scratch/a b,c"
    assert folder("hardware.compilation_cache=/x") == "/x"
    assert folder("hardware.compilation_cache=null") is None


def test_a_users_own_settings_are_found_in_a_folder_of_theirs(tmp_path, monkeypatch, capsys):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("defaults: [h64, _self_]\nname: of_mine\n")
    given = ["--config-dir", str(tmp_path), "model=mine", "data=src_dst", "--cfg", "job"]
    monkeypatch.setattr(sys, "argv", ["train.py", *given])
    cli.train()
    assert "of_mine" in capsys.readouterr().out


def test_a_library_that_the_system_lacks_is_said_in_one_line(monkeypatch, capsys):
    def sort(config) -> None:
        raise ImportError(message)

    monkeypatch.setattr(sys, "argv", ["sort.py", "data=src"])
    message = "libGL.so.1: cannot open shared object file: No such file or directory"
    with pytest.raises(SystemExit) as ended:
        cli.command(sort)()
    err = capsys.readouterr().err
    assert ended.value.code == 2 and err.startswith(f"odfs-sort: {message}; install it, or")
    assert err.count("\n") == 1 and "opencv-python-headless" in err
    message = "cannot import name 'x' from 'y'"  # a bug of ours
    with pytest.raises(ImportError):
        cli.command(sort)()
