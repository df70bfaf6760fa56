"""Watching and steering a run from outside: what it takes, from whom, and what it says."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest

from odfs_jax import cli
from odfs_jax.errors import UserError
from odfs_jax.training import control, metrics
from odfs_jax.training.control import COMMANDS, Control, is_running, read_status, send

FACTS = {"step": 5, "target": 40, "batch_size": 4, "device": "cpu", "memory_limit": 10}


@pytest.fixture
def running(tmp_path, monkeypatch):
    monkeypatch.setattr(control, "POLL", 0.01)
    monkeypatch.setattr(control, "STATUS", 0.02)
    with Control(tmp_path) as run:
        run.begin(FACTS, lambda: 7)
        yield run


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def test_the_four_commands_are_taken_once(running, tmp_path):
    for name in COMMANDS:
        send(tmp_path, name)
    wait_for(lambda: running.commands == set(COMMANDS))
    assert not any((tmp_path / "control" / name).exists() for name in COMMANDS)
    with pytest.raises(UserError, match="expected one of save, refresh, next, stop"):
        send(tmp_path, "rm")


def test_anything_else_in_the_folder_is_left_alone(running, tmp_path):
    """Other names, folders, links, and files of another user: none of them is a command."""
    folder = tmp_path / "control"
    (folder / "delete").touch()
    (folder / "stop").mkdir()
    (tmp_path / "target").touch()
    (folder / "save").symlink_to(tmp_path / "target")
    if os.getuid() == 0:
        (tmp_path / "theirs").touch()
        os.chown(tmp_path / "theirs", 12345, 12345)
        os.replace(tmp_path / "theirs", folder / "next")
    send(tmp_path, "refresh")
    wait_for(lambda: "refresh" in running.commands)
    assert running.commands == {"refresh"}
    assert (folder / "stop").is_dir() and (folder / "delete").exists() and (tmp_path / "target")
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_status_says_where_the_run_stands(running, tmp_path):
    running.step = 9
    wait_for(lambda: (read_status(tmp_path) or {}).get("step") == 9)
    running.step = 20
    wait_for(lambda: read_status(tmp_path)["steps_per_second"] > 0)
    status = read_status(tmp_path)
    assert status["state"] == "training" and status["pid"] == os.getpid()
    assert (status["target"], status["memory"], status["device"]) == (40, 7, "cpu")


def test_one_process_a_model(tmp_path):
    assert not is_running(tmp_path)
    with Control(tmp_path) as run:
        run.begin(FACTS, lambda: 0)
        assert is_running(tmp_path)
        code = "from odfs_jax.training.control import Control, Path; Control(Path()).__enter__()"
        other = [sys.executable, "-c", code]
        done = subprocess.run(other, capture_output=True, text=True, cwd=tmp_path)
        assert f"in use (training, process {os.getpid()} on " in done.stderr
        assert is_running(tmp_path)
    assert not is_running(tmp_path) and read_status(tmp_path)["state"] == "stopped"
    with pytest.raises(UserError, match="nothing trains this model now"):
        send(tmp_path, "stop")


def test_a_command_to_an_earlier_run_does_not_stop_the_next(tmp_path):
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "stop").touch()
    with Control(tmp_path) as run:
        assert not run.commands and not (tmp_path / "control" / "stop").exists()


@pytest.mark.parametrize("text", ["", "[1]", "{", '"training"', "\xff"])
def test_a_status_that_is_none(tmp_path, text):
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "status.json").write_bytes(text.encode("latin-1"))
    assert read_status(tmp_path) is None


def test_a_run_does_what_is_asked_and_stops(workspace, run_training, read_checkpoint):
    """refresh and next draw other pictures, save writes a checkpoint, stop ends it as Ctrl-C."""
    folder, seen, failed = workspace / "models" / "h64", {}, []

    def steer():
        try:
            wait_for(lambda: is_running(folder) and read_status(folder), 300)
            for command in ("refresh", "next", "save"):
                before = set(metrics.preview_files(folder))
                send(folder, command)
                wait_for(lambda before=before: set(metrics.preview_files(folder)) - before, 300)
                step = max(metrics.preview_files(folder))
                seen[command] = cv2.imread(str(metrics.preview_files(folder)[step]))
        except BaseException as error:
            failed.append(error)
        send(folder, "stop")

    thread = threading.Thread(target=steer)
    thread.start()
    run_training(workspace, "iterations=0", "preview_every=0", "log_every=5")
    thread.join()
    assert not failed
    state, _, history = read_checkpoint(folder)
    assert int(state.step) == history.rows[-1][0] == read_status(folder)["step"]
    assert len(list((folder / "checkpoints").iterdir())) == 2
    faces = {name: picture[:, :32].astype(int) for name, picture in seen.items()}  # src as seen
    assert np.abs(faces["refresh"] - faces["next"]).mean() > 10
    assert np.abs(faces["next"] - faces["save"]).mean() < 5
    rows = metrics.read_losses(folder)
    assert [[row["step"], row["losses"]] for row in rows] == history.rows


def test_a_terminal_that_is_gone_asks_for_a_save_and_may_say_so_twice():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # pytest itself may run under nohup
    try:
        with control.stop_requests() as requested:
            assert not requested()
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGHUP)
            assert requested()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        with control.stop_requests() as requested:
            signal.raise_signal(signal.SIGHUP)
            assert not requested()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_job_goes_back_to_the_queue_once_all_is_saved():
    """As submitit has it, whose handler of SIGUSR2 ends the process."""
    steps = []
    before = signal.signal(signal.SIGUSR2, lambda *_: steps.append("queued"))
    try:
        with control.stop_requests() as requested:
            signal.raise_signal(signal.SIGUSR2)
            assert requested()
            steps.append("saved")
        assert steps == ["saved", "queued"]
        with control.stop_requests():
            signal.raise_signal(signal.SIGTERM)
        assert steps == ["saved", "queued"]
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)
        with control.stop_requests():
            assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL  # kills, as everywhere
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_losses_of_a_broken_run_are_void(tmp_path):
    history = [[10, {"a": 1.0}], [20, {"a": float("nan")}]]
    metrics.begin_record(tmp_path, 20, history)
    metrics.add_losses(tmp_path, 30, {"a": 0.5}, 12.0)
    for step in (20, 30):
        metrics.add_preview(tmp_path, step, np.full((4, 6, 3), step, np.uint8))
    with (tmp_path / metrics.LOSSES).open("a") as file:
        file.write('{"step": 40, "los')
    assert metrics.read_losses(tmp_path) == [
        {"step": 10, "losses": {"a": 1.0}, "rate": None},
        {"step": 20, "losses": {"a": None}, "rate": None},
        {"step": 30, "losses": {"a": 0.5}, "rate": 12.0},
    ]
    metrics.begin_record(tmp_path, 20, history)
    assert [row["step"] for row in metrics.read_losses(tmp_path)] == [10, 20]
    assert list(metrics.preview_files(tmp_path)) == [20]


def test_the_window_has_the_keys_of_2018(running, tmp_path):
    for key, command in (("s", "save"), ("p", "refresh"), (" ", "next"), ("\r", "stop")):
        assert control.press(tmp_path, ord(key))
        wait_for(lambda command=command: command in running.commands)
    running.commands.clear()
    assert control.press(tmp_path, -1) and control.press(tmp_path, ord("x"))
    assert not control.press(tmp_path, 27)
    assert not running.commands


def test_the_window_shows_the_losses_above_the_preview(tmp_path):
    metrics.begin_record(tmp_path, 30, [[step, {"a": 1 / step}] for step in (10, 20, 30)])
    metrics.add_preview(tmp_path, 30, np.full((128, 160, 3), (200, 10, 10), np.uint8))
    shown = control.window_picture(tmp_path)
    assert shown.shape == (120 + 512, 640, 3)
    assert (shown[120:] == (10, 10, 200)).all() and np.ptp(shown[20:120]) > 50


def test_no_display_is_said_in_one_line(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(control.sys, "platform", "linux")
    control.check_preview("none")
    with pytest.raises(UserError, match="preview=window: there is no display here"):
        control.check_preview("window")
    with pytest.raises(UserError, match="preview=both: expected one of none, window"):
        control.check_preview("both")


def test_an_opencv_without_windows_is_said_in_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(control.cv2, "currentUIFramework", lambda: "")
    monkeypatch.setattr(sys, "argv", ["odfs-window", str(tmp_path)])
    assert cli.window() == 2
    assert capsys.readouterr().err.startswith("odfs-window: preview=window: this OpenCV has no ")


def test_the_status_is_json_that_browsers_read(running, tmp_path):
    wait_for(lambda: read_status(tmp_path))
    assert "NaN" not in json.dumps(read_status(tmp_path))
