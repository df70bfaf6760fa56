"""docs/extraction.md: every command in it runs, in its order, and prints what is written there.

Numbers, and what `...` stands for, may differ.
"""

import re
import shutil
import sys
from pathlib import Path

import pytest
from pages import assert_printed, steps

from odfs_jax import cli
from odfs_jax.extraction import extract as extraction
from odfs_jax.extraction.detectors import DETECTORS, build_detector
from odfs_jax.extraction.landmarkers import LANDMARKERS
from odfs_jax.extraction.smoothing import SMOOTHERS

ROOT = Path(cli.__file__).parents[1]
DOC = (ROOT / "docs" / "extraction.md").read_text()


@pytest.fixture
def workspace(tmp_path, detector, landmarker, monkeypatch):
    """The demo's clips, and the file of the page; the session's detector is compiled already."""
    (tmp_path / "workspace").mkdir()
    for side in ("src", "dst"):
        shutil.copy(ROOT / "assets" / "demo" / f"{side}.mp4", tmp_path / "workspace")
    (given,) = re.findall(r"^```json\n(.*?)^```$", DOC, re.DOTALL | re.MULTILINE)
    (tmp_path / "faces.json").write_text(given)

    def build(config):
        return detector if config["name"] == "mtcnn" else build_detector(config)

    monkeypatch.setattr(extraction, "build_detector", build)
    monkeypatch.setattr(extraction, "build_landmarker", lambda _: landmarker)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "workspace"


@pytest.mark.slow
def test_every_command_prints_what_the_page_says(workspace, monkeypatch, capsys, caplog):
    caplog.set_level("INFO", "odfs_jax")
    assert len(steps(DOC)) >= 7
    for (python, script, *settings), written in steps(DOC):
        assert (python, script) == ("python", "extract.py")
        monkeypatch.setattr(sys, "argv", [script, "hardware.compilation_cache=null", *settings])
        caplog.clear()
        try:
            cli.extract()
        except SystemExit as end:
            assert end.code == 2 and any(line.startswith("odfs-extract: ") for line in written)
        said = [record.getMessage() for record in caplog.records]
        assert_printed(settings, written, [*said, *capsys.readouterr().err.splitlines()])
    debug = sorted(path.name for path in (workspace / "src" / "aligned_debug").iterdir())
    assert debug == ["00000.jpg", "00020.jpg", "00040.jpg"]
    assert "score 0.5" in (workspace / "given" / "left_out.txt").read_text()


def test_the_table_lists_every_choice():
    rows = {
        key: set(re.findall(r"`(\w+)`", row))
        for key, row in re.findall(r"^\| `(\w+)` \| (.*) \|$", DOC, re.MULTILINE)
    }
    assert rows["detector"] == {path.stem for path in (ROOT / "configs/detector").glob("*.yaml")}
    assert rows["detector"] >= DETECTORS.keys() and rows["landmarks"] == LANDMARKERS.keys()
    assert rows["smoothing"] == SMOOTHERS.keys() | {"none"}
