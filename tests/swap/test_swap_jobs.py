"""Folders of job files: claimed once, taken over when a worker dies, filed by how they ended."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from odfs_jax.config import compose, fitting, with_stages
from odfs_jax.data.job_folder import claim, job_files
from odfs_jax.errors import UserError
from odfs_jax.runtime.processes import own_command
from odfs_jax.swap import jobs

PATIENCE = 60
# In place of a swap: appends a line to its result, waits while there is a file `wait`, fails for
# some.
STAND_IN = """
import os, sys, time
given = dict(argument.split("=", 1) for argument in sys.argv[1:])
out = given["out"].strip("'")
with open(out, "a") as file:
    file.write(given["preset"] + " " + given.get("train.seed", "") + chr(10))
while os.path.exists(os.path.join(os.path.dirname(out), "wait")):
    time.sleep(0.02)
if "bad" in out:
    sys.exit(f"odfs-swap: no {out}")
"""
WORKER = """
import sys
from odfs_jax.config import compose
from odfs_jax.swap import jobs
jobs.own_command = lambda name, *arguments: [sys.executable, "-c", sys.argv[2], *arguments]
jobs.run_jobs(compose("swap", ["jobs=" + sys.argv[1]]))
"""


@pytest.fixture
def work(monkeypatch):
    """work(path, *settings): works through the jobs at `path`, with a stand-in for the swap."""

    def command(name, *arguments):
        assert name == "swap"
        return [sys.executable, "-c", STAND_IN, *arguments]

    monkeypatch.setattr(jobs, "own_command", command)
    return lambda path, *settings: jobs.run_jobs(compose("swap", [f"jobs={path}", *settings]))


def job(tmp_path: Path, name: str, **others) -> dict:
    return {"src": "a.mov", "dst": "b.mov", "out": str(tmp_path / name), **others}


def names(folder: Path, state: str) -> list[str]:
    return [path.stem.split("-")[1] for path in job_files(folder / state)]


def worker(folder: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", WORKER, str(folder), STAND_IN])


def wait_for(condition) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_list_is_done_once_and_a_failed_job_stops_no_other(tmp_path, work, capsys):
    listed = tmp_path / "night.yaml"
    some = [job(tmp_path, "bad.mp4"), job(tmp_path, "good.mp4", **{"train.seed": 3})]
    listed.write_text(yaml.safe_dump([*some, dict(some[1])]))
    with pytest.raises(UserError, match="1 jobs failed: 0000-bad-"):
        work(listed, "preset=large", "train=['seed=1']")
    folder = tmp_path / "night"
    assert names(folder, "done") == ["good"] and names(folder, "failed") == ["bad"]
    assert (tmp_path / "good.mp4").read_text() == "'large' 3\n"  # a job's own setting counts
    assert (tmp_path / "bad.mp4").read_text() == "'large' 1\n"
    assert "failed (exit code 1): odfs-swap: no " in capsys.readouterr().out
    listed.write_text(yaml.safe_dump([*some, job(tmp_path, "new.mp4")]))
    with pytest.raises(UserError, match="1 jobs failed"):
        work(listed)
    assert names(folder, "done") == ["good", "new"]
    assert (tmp_path / "good.mp4").read_text().count("\n") == 1
    failed = next(job_files(folder / "failed"))
    failed.write_text(yaml.safe_dump(job(tmp_path, "mended.mp4")))
    failed.rename(folder / "queued" / failed.name)
    work(folder)
    assert names(folder, "done") == ["bad", "good", "new"]


def test_a_draft_is_left_alone_and_a_damaged_job_fails(tmp_path, work):
    folder = tmp_path / "jobs"
    (folder / "queued").mkdir(parents=True)
    (folder / "drafted").mkdir()
    (folder / "drafted" / "a-later.yaml").write_text("src: a")
    for name, text in (
        ("a-cut", "src: [a"),
        ("a-other", "src: a\ndst: b\nout: c\n+hydra/launcher: x"),
        ("a-deep", "src: a\ndst: b\nout: c\nhours: {a: 1}"),
        ("a-secret", "src: ${oc.env:HOME}\ndst: b\nout: c"),
    ):
        (folder / "queued" / f"{name}.yaml").write_text(text)
    with pytest.raises(UserError, match="4 jobs failed"):
        work(folder)
    assert names(folder, "drafted") == ["later"] and not names(folder, "queued")
    assert "not YAML that is taken" in (folder / "logs" / "a-cut.log").read_text()
    assert "no job (" in (folder / "logs" / "a-other.log").read_text()


def test_a_job_whose_worker_is_killed_is_not_begun_twice_and_then_taken_over(tmp_path):
    folder = tmp_path / "jobs"
    (folder / "queued").mkdir(parents=True)
    (tmp_path / "wait").touch()
    (folder / "queued" / "0-a.yaml").write_text(json.dumps(job(tmp_path, "a.mp4")))
    first = worker(folder)
    wait_for((tmp_path / "a.mp4").exists)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert claim(folder) is None  # its own process goes on, and has the lock
    (tmp_path / "wait").unlink()
    taken = []
    wait_for(lambda: taken.append(claim(folder)) or taken[-1] is not None)
    assert taken[-1].path.name == "0-a.yaml" and names(folder, "running") == ["a"]
    os.close(taken[-1].handle)
    again = worker(folder)
    assert again.wait(PATIENCE) == 0
    assert names(folder, "done") == ["a"]


@pytest.mark.slow
def test_several_workers_do_each_job_once(tmp_path):
    folder = tmp_path / "jobs"
    (folder / "queued").mkdir(parents=True)
    for number in range(40):
        content = json.dumps(job(tmp_path, f"{number}.mp4"))
        (folder / "queued" / f"0-{number:02d}.yaml").write_text(content)
    workers = [worker(folder) for _ in range(4)]
    assert [process.wait(4 * PATIENCE) for process in workers] == [0] * 4
    assert len(names(folder, "done")) == 40
    for number in range(40):
        assert (tmp_path / f"{number}.mp4").read_text().count("\n") == 1


def test_a_job_is_a_command_line_of_the_program(tmp_path):
    """The real one reads what a worker hands it: its own settings, and the job's before them."""
    common = compose("swap", with_stages(["hours=2", "train.seed=3", "hardware.devices=[0,1]"]))
    common = jobs.arguments_of({k: common[k] for k in ("hours", "train", "hardware")})
    odd = {"src": "a b.mov", "dst": "d,[x].mp4", "out": "o'x.mp4", "convert.merge": "seamless"}
    own = jobs.arguments_of(
        jobs.checked(odd | {"train.seed": 5, "train": ["ema=0.9"], "hours": None})
    )
    command = [*own_command("swap", *fitting(common, own)), "--cfg", "job"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = OmegaConf.create(done.stdout)
    assert (shown.src, shown.dst, shown.out, shown.hours) == (*list(odd.values())[:3], None)
    assert list(shown.train) == ["seed=5", "ema=0.9"] and list(shown.convert) == [
        "merge='seamless'"
    ]
    assert shown.hardware.devices == [0, 1]
    assert shown.hardware.compilation_cache == compose("swap").hardware.compilation_cache


def test_jobs_and_a_single_swap_are_not_asked_for_at_once(work, tmp_path):
    with pytest.raises(UserError, match="src: belongs to a single job"):
        work(tmp_path, "src=a.mov")
    with pytest.raises(UserError, match="no such file or folder"):
        work(tmp_path / "none")
