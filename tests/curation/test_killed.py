"""The real command killed (SIGKILL) at random moments: no face is lost, the next run ends right."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from odfs_jax import cli
from odfs_jax.curation import rename

SCRIPT = Path(cli.__file__).parents[1] / "scripts" / "sort.py"
FACES, KEEP, KILLS = 400, 250, 20
SETTINGS = ("by=face_yaw", f"keep={KEEP}", "hardware.compilation_cache=null")


def run(workspace, *settings):
    command = [sys.executable, str(SCRIPT), f"workspace={workspace}", *SETTINGS, *settings]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ)


def faces(folder):
    """(the faces in `folder`, those in its trash), each {name: content}."""
    folders = folder, rename.trash_folder(folder)
    return tuple({path.name: path.read_bytes() for path in f.glob("*.png")} for f in folders)


def contents(folder):
    """What all faces of `folder` and its trash hold; a lost or doubled one changes the list."""
    return sorted(content for place in faces(folder) for content in place.values())


def kill_at_random(process, folder, draw, seconds):
    """Half of the kills fall into the renaming, the others anywhere in a run of `seconds`."""
    if draw.random() < 0.5:
        time.sleep(draw.uniform(0, seconds))
    else:
        while not (folder / rename.JOURNAL).exists() and process.poll() is None:
            time.sleep(0.0005)
        time.sleep(draw.uniform(0, 0.03))
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_killed_at_20_random_moments(tmp_path, write_random):
    draw, source, unbroken = random.Random(0), tmp_path / "source", tmp_path / "unbroken"
    write_random(source, FACES)
    shutil.copytree(source, unbroken / "src" / "aligned")
    start = time.monotonic()
    assert run(unbroken).wait() == 0
    seconds = time.monotonic() - start
    before, after = faces(source), faces(unbroken / "src" / "aligned")
    assert [len(place) for place in after] == [KEEP, FACES - KEEP]
    stopped = 0
    for number in range(KILLS):
        workspace = tmp_path / str(number)
        folder = workspace / "src" / "aligned"
        shutil.copytree(source, folder)
        kill_at_random(run(workspace), folder, draw, seconds)
        assert contents(folder) == contents(source), number
        stopped += rename.is_interrupted(folder)
        if number % 2 and (folder / rename.JOURNAL).exists():
            assert run(workspace, "undo=true").wait() == 0
            assert faces(folder) == before, number
        else:
            assert run(workspace).wait() == 0
            assert faces(folder) == after, number
        assert not rename.is_interrupted(folder)
        shutil.rmtree(workspace)
    assert stopped >= KILLS // 5, "the kills missed the renaming"
