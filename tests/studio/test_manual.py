"""`extract.py` with manual_fix and detector=manual: the studio opens where somebody is needed."""

import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from studios import ROOT, Studio, ended, environment, wait_for

from odfs_jax.extraction.journal import ExtractionJournal

SETTINGS = ("data=dst", "server.port=0", "hardware.compilation_cache=null", "hardware.devices=cpu")


@pytest.mark.slow
def test_manual_fix_opens_on_the_frames_that_need_it(tmp_path, pictures, visit):
    frames = tmp_path / "dst"
    frames.mkdir()
    shutil.copy(pictures / "ben_100.jpg", frames / "0.jpg")
    cv2.imwrite(str(frames / "1.png"), np.full((384, 384, 3), 90, np.uint8))  # nobody
    with ended(Studio(tmp_path, tmp_path / "log", *SETTINGS, "manual_fix=true", script="extract")) \
            as studio:  # fmt: skip
        assert studio.page == "/extract?side=dst&show=doubtful"
        page = visit(studio.url + studio.page)
        page.wait_for_selector("#studio-main[data-frame='1']")
        assert page.evaluate("extract.state.queue") == [1]
        page.keyboard.press("Enter")
        wait_for(lambda: not ExtractionJournal.read(frames / "aligned").doubtful())
    again = [sys.executable, str(ROOT / "extract.py"), f"workspace={tmp_path}", *SETTINGS]
    done = subprocess.run(
        [*again, "manual_fix=true"], capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0 and "0 frames to place faces in" in done.stderr, done.stderr


def test_detector_manual_opens_all_frames(tmp_path, pictures):
    (tmp_path / "dst").mkdir()
    shutil.copy(pictures / "ben_100.jpg", tmp_path / "dst")
    settings = (*SETTINGS, "detector=manual")
    with ended(Studio(tmp_path, tmp_path / "log", *settings, script="extract")) as studio:
        assert studio.page == "/extract?side=dst&show=all"
    assert not (tmp_path / "dst" / "aligned").exists()
