"""A run that is stopped: what it leaves, and how the next one goes on."""

import logging
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from workspaces import convert_workspace, read_clip

from odfs_jax import cli
from odfs_jax.conversion.pipeline import FaceMerger, Resumption, ShotMergers
from odfs_jax.conversion.target_faces import TargetFaces
from odfs_jax.data import lock
from odfs_jax.data.lock import LOCK, locked_result
from odfs_jax.data.media import picture_folder
from odfs_jax.data.media.frames import Frame, FrameWriter
from odfs_jax.errors import UserError
from odfs_jax.provenance.verify import WHOLE, verify

ROOT = Path(cli.__file__).parents[1]


class Stopped(Exception):
    """Stands for Ctrl-C."""


def stop_after(monkeypatch, count):
    """Has the writer of pictures stop after `count` of them."""
    write, written = picture_folder.PictureWriter.write, []

    def stopping(self, frame):
        if len(written) == count:
            raise Stopped
        written.append(frame.index)
        write(self, frame)

    monkeypatch.setattr(picture_folder.PictureWriter, "write", stopping)
    return written


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def test_a_stopped_folder_is_gone_on_with(workspace, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    result = workspace / "result"
    settings = (f"output.path={result}", "merge.erode=10")
    convert_workspace(workspace, f"output.path={workspace}/unbroken", "merge.erode=10")
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Stopped):
            convert_workspace(workspace, *settings)
    assert not result.exists()
    partial = workspace / "result.partial"
    assert len(contents(partial)) == 3
    with monkeypatch.context() as patch:
        written = stop_after(patch, 100)
        convert_workspace(workspace, *settings)
    assert written == [3, 4, 5]
    assert contents(result) == contents(workspace / "unbroken")
    assert "3 frames kept of an earlier run" in caplog.messages[-1]
    assert "0 files skipped" in caplog.messages[-1]
    assert verify(result).code == WHOLE and not partial.exists()


@pytest.mark.parametrize("lead", [0, 3, 4, 9])
@pytest.mark.parametrize("there", [0, 1, 3, 4, 7, 11, 12, 13, 25])
def test_batches_are_those_of_an_unbroken_run(lead, there):
    """Whatever is there, what follows starts with a batch of its shot, `lead` frames early."""
    frames = [Frame("clip.mp4", i, i, np.zeros((1, 1, 3), np.uint8)) for i in range(25)]
    targets = TargetFaces({i: [(Path("a.png"), None)] for i in range(25)})

    class Writer(FrameWriter):
        def has(self, frame):
            return frame.index < there

        def write(self, frame): ...

    shots = ShotMergers([0, 11], [])
    resumption = Resumption(Writer(), targets, shots, 4, lead)
    given = [frame.index for frame in resumption.frames(frame for frame in frames)]
    first = 0 if there < 11 else 11
    start = max(first, first + (there - first - lead) // 4 * 4)
    assert given == (list(range(start, 25)) if there < 25 else [])
    assert resumption.kept == there
    assert sorted(targets.by_frame) == given


@pytest.mark.slow
def test_other_settings_start_again(workspace, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    result = workspace / "result"
    for changed in ("merge.erode=20", "frames=0-1", "precision=bfloat16"):
        with monkeypatch.context() as patch:
            stop_after(patch, 3)
            with pytest.raises(Stopped):
                convert_workspace(workspace, f"output.path={result}")
        with monkeypatch.context() as patch:
            written = stop_after(patch, 100)
            convert_workspace(workspace, f"output.path={result}", changed)
        assert written == [0, 1, 2, 3, 4, 5]
        assert "made with other settings; starting again" in caplog.text
        caplog.clear()


def test_a_finished_folder_that_was_not_moved_yet_needs_nothing_more(workspace, monkeypatch):
    """Killed between the last picture and the end: nothing is merged a second time."""
    result = workspace / "result"
    with monkeypatch.context() as patch:
        patch.setattr(picture_folder, "_finish", lambda *_: fail())
        with pytest.raises(Stopped):
            convert_workspace(workspace, f"output.path={result}")
    merged = []
    with monkeypatch.context() as patch:
        patch.setattr(FaceMerger, "_composite_faces", lambda *_: merged.append(1))
        convert_workspace(workspace, f"output.path={result}")
    assert not merged and len(contents(result)) == 6 and verify(result).code == WHOLE


def fail():
    raise Stopped


def start(workspace: Path, *settings: str) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "convert.py"), "data=dst", f"workspace={workspace}"]
    cache = f"hardware.compilation_cache={workspace}/cache"
    return subprocess.Popen([*command, cache, *settings], stderr=subprocess.DEVNULL, env=os.environ)


def longer(workspace: Path, times: int) -> None:
    """dst.mp4 over and over again: encoding it takes a while. Faces are in the first frames."""
    clip = workspace / "dst.mp4"
    frames = read_clip(clip)[0]
    clip.unlink()
    with av.open(str(clip), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, "yuv420p"
        for number in range(times * len(frames)):
            picture = frames[number % len(frames)]
            picture.pts, picture.time_base = number, Fraction(1, 25)
            picture.pict_type = 0
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))


def leftovers(workspace: Path, name: str) -> list[str]:
    known = {"dst", "dst.mp4", "models", "cache", name, f"{name}.c2pa", f".{name}{LOCK}"}
    return sorted({path.name for path in workspace.iterdir()} - known)


def wait_for(condition, process, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)


@pytest.mark.slow
def test_killed_while_encoding_the_old_result_stays(workspace):
    longer(workspace, 100)
    convert_workspace(workspace, "output.preset=ultrafast")
    before = (workspace / "result.mp4").read_bytes()
    process = start(workspace, "output.preset=ultrafast")
    wait_for(lambda: any(p.stat().st_size for p in workspace.glob(".result-*")), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = leftovers(workspace, "result.mp4")
    assert left and all(".partial" in name for name in left)
    assert (workspace / "result.mp4").read_bytes() == before
    assert verify(workspace / "result.mp4").code == WHOLE


@pytest.mark.parametrize("name", ["result.mp4", "result"])
def test_two_conversions_into_one_result(workspace, monkeypatch, held_elsewhere, name):
    """The second one is refused before it loads anything, and names the first."""
    monkeypatch.setattr(lock, "POLL", 0.01)
    monkeypatch.setattr("odfs_jax.conversion.convert.load_model", lambda _: fail())
    with held_elsewhere(locked_result(workspace / name, "converting")):
        for path in (f"{workspace}/{name}", f"{workspace}/dst/../{name}"):
            with pytest.raises(UserError, match=rf"{name}: in use \(converting, process \d+ on "):
                convert_workspace(workspace, f"output.path={path}")
        with pytest.raises(Stopped):  # another result is nobody else's
            convert_workspace(workspace, f"output.path={workspace}/other_{name}")
    assert {path.name for path in workspace.iterdir()} == {"dst", "dst.mp4", "models"}


def test_a_folder_that_cannot_be_written_is_noticed_first(workspace, monkeypatch):
    monkeypatch.setattr("odfs_jax.conversion.convert.load_model", lambda _: fail())
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for anybody but root
    with pytest.raises(UserError, match=f"^{workspace}: nothing can be written there"):
        convert_workspace(workspace)
