"""Commands that the studio starts: one of a kind, found again, stopped, never mistaken."""

import json
import os
import signal
import sys

import psutil
import pytest
from studios import wait_for

from odfs_jax.errors import UserError
from odfs_jax.runtime.progress import LINES_VARIABLE, _line, progress
from odfs_jax.studio.jobs import TAIL, Jobs
from odfs_jax.studio.workspace import StudioWorkspace

ODD = 'it\'s a \\ workspace, {with: all} [of=it] "$" ${oc.env:HOME}'


@pytest.fixture
def jobs(tmp_path):
    """As in a web server, which handles Ctrl-C: a shell's `&` has it ignored, children inherit."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield Jobs(StudioWorkspace(tmp_path))
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def waiting(monkeypatch, tmp_path):
    """Commands that wait for Ctrl-C instead of running: what is tested is who looks after them."""
    script = tmp_path / "python"
    script.write_text(
        f"#!{sys.executable}\nimport signal, sys\nprint('started', flush=True)\n"
        "try:\n    signal.pause()\nexcept KeyboardInterrupt:\n    sys.exit(130)\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


def test_a_command_gets_the_workspace_as_it_is_called(tmp_path):
    """Whatever is in its name: Hydra has a grammar for values."""
    (tmp_path / ODD).mkdir()
    jobs = Jobs(StudioWorkspace(tmp_path / ODD))
    assert jobs.find("sort").log == "" and not jobs.find("sort").running
    jobs.start("sort", "sort", {"data": "src", "by": "blur", "hardware.devices": "cpu"})
    wait_for(lambda: jobs.find("sort").code is not None)
    found = jobs.find("sort")
    assert found.code == 2 and f"{ODD}/src/aligned" in found.log  # no such folder: a user's error
    assert not found.running


def test_one_of_a_kind_which_another_studio_finds_and_stops(jobs, tmp_path, waiting):
    jobs.start("convert", "convert", {})
    wait_for(lambda: "started" in jobs.find("convert").log)
    with pytest.raises(UserError, match="convert: one is running already"):
        jobs.start("convert", "convert", {})
    other = Jobs(StudioWorkspace(tmp_path))
    found = other.find("convert")
    assert found.running and found.code is None and found.seconds > 0
    other.stop("convert")
    wait_for(lambda: not jobs.find("convert").running)
    assert jobs.find("convert").code == 130 and not other.find("convert").running
    other.stop("convert")  # there is nothing to stop


def test_another_process_of_the_same_number_is_not_the_command(jobs, tmp_path):
    folder = tmp_path / "studio" / "jobs"
    folder.mkdir(parents=True)
    for note in ({"pid": os.getpid(), "created": 1.0}, {"pid": -1}, [], {"pid": "x"}, None):
        (folder / "train.json").write_text(json.dumps(note))
        assert not jobs.find("train").running
        jobs.stop("train")  # or this test would end here
    created = psutil.Process().create_time()
    for text in (
        "{",
        json.dumps({"pid": os.getpid(), "created": created}),  # a process, but no command of ours
        '{"pid": 1e400, "created": 1}',
        f'{{"pid": {"9" * 400}, "created": {"9" * 400}}}',
        '{"pid": 1, "created": NaN}',
        "[" * 100_000,
    ):
        (folder / "train.json").write_text(text)
        assert not jobs.find("train").running
        jobs.stop("train")
    (folder / "train.json").unlink()
    os.mkfifo(folder / "train.json")
    os.mkfifo(folder / "train.log")
    assert jobs.find("train").log == "" and not jobs.find("train").running


def test_a_log_that_is_a_link_leads_nowhere(jobs, tmp_path, waiting):
    precious = tmp_path / "precious.txt"
    precious.write_text("kept")
    (tmp_path / "studio" / "jobs").mkdir(parents=True)
    (tmp_path / "studio" / "jobs" / "convert.log").symlink_to(precious)
    jobs.start("convert", "convert", {})
    wait_for(lambda: "started" in jobs.find("convert").log)
    jobs.stop("convert")
    wait_for(lambda: not jobs.find("convert").running)
    assert precious.read_text() == "kept"


def test_of_a_long_log_the_end_is_shown(jobs, tmp_path):
    folder = tmp_path / "studio" / "jobs"
    folder.mkdir(parents=True)
    (folder / "sort.log").write_bytes(b"\xff" * 3 * TAIL + b"the end")
    log = jobs.find("sort").log
    assert log.endswith("the end") and len(log) == TAIL


def test_a_log_tells_how_far_a_command_is(jobs, tmp_path):
    folder = tmp_path / "studio" / "jobs"
    folder.mkdir(parents=True)
    assert jobs.find("convert").progress is None
    lines = [_line(done, 150, 0.25, "convert", "frame") for done in (8, 24)]
    (folder / "convert.log").write_text("model: 1/2 of them\n" + "\n".join(lines) + "\nmore\n")
    assert jobs.find("convert").progress == (24, 150, 32)


def test_lines_come_as_often_as_who_reads_them_asks(monkeypatch, caplog):
    monkeypatch.setenv(LINES_VARIABLE, "0")
    with caplog.at_level("INFO", "odfs_jax.runtime.progress"):
        assert list(progress(range(4), 4, "convert")) == [0, 1, 2, 3]
    assert [record.message.split(",")[0] for record in caplog.records] == [
        f"convert: {done}/4 frames ({done / 4:.0%})" for done in (2, 3, 4)
    ]
