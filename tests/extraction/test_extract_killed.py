"""The real command killed (SIGKILL) at random moments: no face is lost, the next run ends right."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from odfs_jax import cli
from odfs_jax.data.aligned_png import read_image_and_face
from odfs_jax.extraction.journal import JOURNAL, ExtractionJournal
from odfs_jax.faces.landmarks68 import MEAN_HEAD

SCRIPT = Path(cli.__file__).parents[1] / "extract.py"
FRAMES, SIDE, SIZE, KILLS = 240, 96, 128, 20
EMPTY, PAIRS = {5, 77}, {11, 130}  # frames without a face, frames with two


def faces_of(number):
    """What the file gives for a frame: faces that move and tremble."""
    noise = np.random.default_rng(number).normal(0, 0.5, (68, 2))
    count = 0 if number in EMPTY else 2 if number in PAIRS else 1
    heads = [MEAN_HEAD[:, :2] * (18, -18) + (30 + 20 * k, 45) + noise for k in range(count)]
    return [{"landmarks": points.tolist()} for points in heads]


@pytest.fixture
def source(tmp_path, write_clip):
    """A folder with a clip and a file of its faces."""
    folder = tmp_path / "source"
    folder.mkdir()
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (FRAMES, 6, 6, 3), dtype=np.uint8)
    images = [cv2.resize(c, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for c in coarse]
    write_clip(folder / "src.mp4", images)
    frames = {str(number): faces_of(number) for number in range(FRAMES)}
    (folder / "faces.json").write_text(json.dumps({"version": 1, "frames": frames}))
    return folder


def run(workspace):
    given = "detector=file", f"detector.args.path={workspace / 'faces.json'}"
    command = [sys.executable, str(SCRIPT), "data=src", f"workspace={workspace}", *given]
    command += [f"size={SIZE}", "hardware.compilation_cache=null"]
    environment = os.environ | {"XLA_FLAGS": ""}
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)


def contents(workspace):
    """(frame, points, pixels) of every PNG but those half written; one that is no face raises."""
    paths = (workspace / "src" / "aligned").glob("*.png")
    found = []
    for path in (path for path in paths if not path.name.startswith(".")):
        image, face = read_image_and_face(path)
        found.append((face.source.frame, face.source.landmarks.tolist(), image.tobytes()))
    return sorted(found)


def kill_at_random(process, journal, draw, seconds):
    """One in four kills falls anywhere in a run of `seconds`, the others into the writing."""
    if draw.random() < 0.25:
        time.sleep(draw.uniform(0, seconds))
    else:
        while not journal.exists() and process.poll() is None:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.6))
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_killed_at_20_random_moments(tmp_path, source):
    draw, unbroken = random.Random(0), tmp_path / "unbroken"
    shutil.copytree(source, unbroken)
    start = time.monotonic()
    assert run(unbroken).wait() == 0
    seconds, whole = time.monotonic() - start, contents(unbroken)
    assert [frame for frame, _, _ in whole] == sorted([*(set(range(FRAMES)) - EMPTY), *PAIRS])
    lists = {path.name: path.read_text() for path in (unbroken / "src").glob("*.txt")}
    half_way = 0
    for number in range(KILLS):
        workspace = tmp_path / str(number)
        folder = workspace / "src" / "aligned"
        shutil.copytree(source, workspace)
        kill_at_random(run(workspace), folder / JOURNAL, draw, seconds)
        kept, done = contents(workspace), ExtractionJournal.read(folder).frames
        assert all(face in whole for face in kept), number
        written = {frame for frame, _, _ in kept}
        assert all(frame in written for frame, entry in done.items() if entry.faces), number
        half_way += 0 < len(done) < FRAMES
        assert run(workspace).wait() == 0
        assert contents(workspace) == whole, number
        assert {p.name: p.read_text() for p in (workspace / "src").glob("*.txt")} == lists
        # what stays of a killed write is hidden, and no reader takes it for a face
        left = [path.name for path in folder.iterdir() if path.suffix != ".png"]
        hidden = [path.name for path in folder.glob(".*.png")]
        assert left == [JOURNAL] and all(name.endswith(".partial.png") for name in hidden), number
        shutil.rmtree(workspace)
    assert half_way >= KILLS // 3, "the kills missed the writing"
