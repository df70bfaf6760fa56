"""docs/sorting.md: every command in it runs, in its order, and prints what is written there.

Numbers, and what `...` stands for, may differ: the faces of the test are others than those of the
demo.
"""

import dataclasses
import re
import sys
from pathlib import Path

import pytest
from pages import assert_printed, steps

from odfs_jax import cli
from odfs_jax.curation.sort_keys import SORT_KEYS
from odfs_jax.data.aligned_png import write_face

DOC = (Path(cli.__file__).parents[1] / "docs" / "sorting.md").read_text()
COMMANDS = {"scripts/sort.py": cli.sort, "scripts/faceset.py": cli.faceset}
SRC, COPIES = 260, 4  # as many src faces as in the demo: the settings of `keep` depend on it


def shape(line):
    """`line` with every number replaced; a list of numbers counts as one."""
    return re.sub(r"-?\d+(\.\d+)?(, \d+)*", "#", line)


@pytest.fixture
def workspace(tmp_path, write_random, actor_faces, monkeypatch):
    write_random(tmp_path / "workspace" / "src" / "aligned", SRC)
    image, face = actor_faces["ben_010"]
    source = dataclasses.replace(face.source, file="dst.mp4", pts=0)
    face = dataclasses.replace(face, source=source)
    for number in range(COPIES):
        write_face(tmp_path / f"workspace/dst/aligned/{number:05d}_0.png", image, face)
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_every_command_prints_what_the_page_says(workspace, monkeypatch, capsys, caplog):
    caplog.set_level("INFO", "odfs_jax")
    assert len(steps(DOC)) > 12
    for (python, script, *settings), written in steps(DOC):
        assert python == "python"
        monkeypatch.setattr(sys, "argv", [script, "hardware.compilation_cache=null", *settings])
        if script == "scripts/faceset.py":
            del sys.argv[1]
        caplog.clear()
        try:
            COMMANDS[script]()
        except SystemExit as end:
            assert end.code == 2 and written[-1].startswith(("odfs-sort: ", "odfs-faceset: "))
        out, err = capsys.readouterr()
        said = [*map(str, (r.getMessage() for r in caplog.records)), *out.splitlines()]
        assert_printed(settings, written, [*said, *err.splitlines()], shape)


def test_the_table_lists_every_order():
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \|", DOC.split("## The orders")[1], re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"`([a-z_]+)`", row)]
    assert listed == list(SORT_KEYS)
