"""docs/conversion.md and docs/provenance.md: every command in them runs, in its order, and prints
what is written there. Numbers, and what `...` stands for, may differ."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import assert_printed, steps

from odfs_jax import cli
from odfs_jax.config import compose
from odfs_jax.conversion.masks import MASKS
from odfs_jax.conversion.modes import MODES
from odfs_jax.conversion.shots import read_shots
from odfs_jax.faces.colors import TRANSFERS

ROOT = Path(cli.__file__).parents[1]
DOC = (ROOT / "docs" / "conversion.md").read_text()
PROVENANCE = (ROOT / "docs" / "provenance.md").read_text()


@pytest.fixture
def here(workspace, tmp_path_factory, monkeypatch):
    """A folder with the workspace and its model, named as in the page."""
    (workspace / "models" / "tiny").rename(workspace / "models" / "demo")
    folder = tmp_path_factory.mktemp("here")
    (folder / "workspace").symlink_to(workspace)
    monkeypatch.chdir(folder)
    return folder


def printed_by(script, settings, monkeypatch, capsys, caplog):
    """(exit code, the lines that a command of the page prints)."""
    if script != "convert.py":
        run = subprocess.run(
            [sys.executable, str(ROOT / script), *settings], capture_output=True, text=True
        )
        return run.returncode, [*run.stdout.splitlines(), *run.stderr.splitlines()]
    monkeypatch.setattr(sys, "argv", [script, "hardware.compilation_cache=null", *settings])
    caplog.clear()
    code = 0
    try:
        cli.convert()
    except SystemExit as end:
        code = end.code
    said = [record.getMessage() for record in caplog.records]
    return code, [*said, *capsys.readouterr().err.splitlines()]


@pytest.mark.slow
def test_every_command_prints_what_the_pages_say(here, monkeypatch, capsys, caplog):
    caplog.set_level("INFO", "odfs_jax")
    commands = steps(DOC) + steps(PROVENANCE)
    assert len(commands) >= 9
    for (program, script, *settings), written in commands:
        assert (program, script) == ("odfs", "verify") or program == "python"
        script = "scripts/verify_provenance.py" if program == "odfs" else script
        code, lines = printed_by(script, settings, monkeypatch, capsys, caplog)
        mistake = any(line.startswith("odfs-convert: ") for line in written)
        assert code == (2 if mistake else 0), lines
        assert_printed(settings, written, lines)
    written = {path.name for path in (here / "workspace").iterdir()}
    assert written >= {"result.mkv", "frames", "face.mov", "face_mask.mov", "part.mp4"}
    assert len(list((here / "workspace" / "frames").glob("*.tif"))) == 6


def test_the_shots_of_the_page_are_shots(tmp_path):
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", DOC, re.DOTALL | re.MULTILINE)
    path = tmp_path / "dst.shots.yaml"
    path.write_text(text)
    base = compose("convert", ["data=dst"]).merge
    shots = read_shots(path, base)
    assert [(shot.start, shot.merge.mode) for shot in shots] == [
        (0, "overlay"), (40, "seamless"), (90, "overlay"),
    ]  # fmt: skip


def test_the_tables_list_every_choice():
    def first_cells(heading):
        section = DOC.split(f"## {heading}\n")[1].split("\n## ")[0]
        return re.findall(r"^\| `([a-z_]+)` \|", section, re.MULTILINE)

    assert first_cells("Merge modes") == list(MODES)
    colors = first_cells("Colors")
    assert set(colors) == {"auto", *TRANSFERS}
    (masks,) = re.findall(r"^\| `merge.mask` \| (.*) \|$", DOC, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", masks)) == {"auto", *MASKS}
