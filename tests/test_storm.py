"""Commands killed at random moments: see storm.py, which this calls for fewer kills."""

import subprocess
import sys
from pathlib import Path

import pytest

STORM = Path(__file__).with_name("storm.py")
KILLS = 20


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "extract", "sort", "convert", "pack", "studio"])
def test_killed_at_random_moments_it_keeps_its_promises(tmp_path, command):
    arguments = [sys.executable, str(STORM), command, f"kills={KILLS}", f"out={tmp_path}/lines"]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, (tmp_path / "lines").read_text() + done.stderr
