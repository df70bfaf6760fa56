"""The queue: what it takes, its order, its worker that outlives the studio; and it in Chromium."""

import json
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from studios import started, wait_for

from odfs_jax.config import compose
from odfs_jax.errors import UserError
from odfs_jax.studio import queue as module
from odfs_jax.studio.queue import Queue, queue
from odfs_jax.studio.workspace import StudioWorkspace

# In place of a command: notes its settings, waits while there is a file `wait`, may fail.
STAND_IN = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
command, workspace, *settings = sys.argv[1:]
folder = workspace.partition("=")[2].strip("'")
with open(os.path.join(folder, "did"), "a") as file:
    print(command, *settings, file=file)
print("line 1", command, flush=True)
try:
    while os.path.exists(os.path.join(folder, "wait")):
        time.sleep(0.02)
except KeyboardInterrupt:
    sys.exit(130)
sys.exit("by='blur'" in settings)
"""
WORKER = """
import sys
from odfs_jax.config import compose
from odfs_jax.studio import queue as module
stand_in = sys.argv[2]
module.own_command = lambda *given: [sys.executable, "-c", stand_in, *given]
module.PATIENCE = 0.1
module.queue(compose("queue", ["workspace=" + sys.argv[1]]))
"""


class NoJobs:
    """In place of the studio's jobs: the worker is the test's own."""

    def find(self, _kind):
        return type("Status", (), {"running": True})


@pytest.fixture
def waiting(tmp_path):
    return Queue(StudioWorkspace(tmp_path), NoJobs())


@contextmanager
def worker(folder):
    process = subprocess.Popen([sys.executable, "-c", WORKER, str(folder), STAND_IN])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Works through the queue, in this process, with a stand-in for the commands."""
    stand_in = lambda *given: [sys.executable, "-c", STAND_IN, *given]  # noqa: E731
    monkeypatch.setattr(module, "own_command", stand_in)
    monkeypatch.setattr(module, "POLL", 0.01)
    monkeypatch.setattr(module, "PATIENCE", 0.02)
    return lambda: queue(compose("queue", [f"workspace={tmp_path}"]))


def did(folder):
    return (folder / "did").read_text().splitlines()


def states(waiting):
    return [(row["said"], row["state"]) for row in waiting.look()]


def test_jobs_run_one_after_the_other_in_their_order(waiting, work, tmp_path):
    (tmp_path / "dst.mp4").touch()
    waiting.add("extract", {"side": "src_dst"})
    waiting.add("train", {"name": "it's", "model": "saehd", "preset": "recipe=quick",
                          "iterations": 50, "more": "augment.warp=0"})  # fmt: skip
    failing = waiting.add("sort", {"side": "src", "by": "blur", "keep": 9})
    waiting.add("convert", {"model": "it's"})
    waiting.add("evaluate", {})
    waiting.add("sort", {"side": "dst", "by": "hist"}, draft=True)
    waiting.shift(failing, -1)
    waiting.shift(failing, -1)
    waiting.shift(failing, -1)  # it is the first already
    assert [row["state"] for row in waiting.look()] == ["queued"] * 5 + ["drafted"]
    work()
    assert did(tmp_path) == [
        "sort data='src' by='blur' keep=9",
        "extract data='src_dst'",
        "train name='it\\'s' model='saehd' recipe='quick' iterations=50 augment.warp=0",
        "convert data='dst' name='it\\'s'",
        "evaluate data='dst'",
    ]
    rows = waiting.look()
    assert [row["state"] for row in rows] == ["drafted", *["done"] * 4, "failed"]
    assert rows[-1]["log"] == ["line 1 sort"]
    waiting.move(rows[-1]["name"], "queued")
    waiting.move(rows[0]["name"], "queued")
    assert [said for said, state in states(waiting) if state == "queued"] == [
        "sort src by blur, keep 9",
        "sort dst by hist",
    ]


def test_what_is_queued_while_the_worker_gives_up_is_not_left_behind(waiting, work, monkeypatch):
    waiting.add("evaluate", {}, draft=True)
    sleeps = []

    def sleep(seconds):
        sleeps.append(seconds)
        if sum(sleeps) >= module.PATIENCE and len(sleeps) < 5:
            waiting.add("extract", {"side": "src"})
            sleeps.extend([0.0] * 5)

    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=sleep))
    work()
    assert states(waiting) == [("evaluate the result", "drafted"), ("extract src", "done")]


def test_a_conversion_keeps_the_result_that_is_there(waiting, work, tmp_path):
    (tmp_path / "dst.mp4").touch()
    (tmp_path / "result.mp4").write_text("earlier")
    waiting.add("convert", {"model": "tiny"})
    work()
    assert (tmp_path / "result.1.mp4").read_text() == "earlier"
    assert not (tmp_path / "result.mp4").exists()


def test_a_job_that_is_stopped_is_a_draft_again_and_the_next_one_begins(waiting, tmp_path, work):
    (tmp_path / "wait").touch()
    first = waiting.add("evaluate", {})
    waiting.add("extract", {"side": "src"})
    with worker(tmp_path) as process:
        wait_for(lambda: (tmp_path / "did").exists())
        assert states(waiting)[0] == ("evaluate the result", "running")
        with pytest.raises(UserError, match="runs now; stop it first"):
            waiting.remove(first)
        with pytest.raises(UserError, match="in use"):
            work()  # a second worker
        waiting.stop(first)
        wait_for(lambda: states(waiting)[0] == ("extract src", "running"))
        (tmp_path / "wait").unlink()
        assert process.wait(60) == 0
    assert states(waiting) == [("evaluate the result", "drafted"), ("extract src", "done")]


def test_a_job_outlives_its_worker_and_no_second_one_runs_beside_it(waiting, tmp_path, work):
    (tmp_path / "wait").touch()
    waiting.add("evaluate", {})
    waiting.add("extract", {"side": "src"})
    with worker(tmp_path) as process:
        wait_for(lambda: (tmp_path / "did").exists())
        process.kill()
        process.wait()
        again = threading.Timer(0.3, (tmp_path / "wait").unlink)
        again.start()
        work()  # waits for the one that goes on; takes its file over then, and does the others
    assert did(tmp_path)[0] == "evaluate data='dst'" and "extract data='src'" in did(tmp_path)
    assert all(state == "done" for _, state in states(waiting))


@pytest.mark.parametrize(
    ("command", "choices", "said"),
    [
        ("export", {}, "command 'export': expected one of extract"),
        (["train"], {}, r"command \['train'\]: expected one of"),
        ("extract", {"side": "src; rm"}, "'side': Input should be"),
        ("extract", {"side": "src", "workspace": "/etc"}, "'workspace': Extra inputs"),
        ("extract", {}, "'side': Field required"),
        ("extract", [], "'extract': Input should be"),
        ("sort", {"side": "src", "by": "none"}, "by='none': expected one of blur"),
        ("sort", {"side": "src", "by": "blur", "keep": 0}, "'keep': Input should be"),
        ("sort", {"side": "src", "by": "blur", "keep": "9"}, "'keep': Input should be"),
        ("train", {"name": "../x", "model": "h64"}, "name='../x': expected the name of a folder"),
        ("train", {"name": "x", "model": "h65"}, "model='h65': expected one of"),
        ("train", {"name": "x", "model": "h64", "more": "workspace=/"}, "expected settings of"),
        ("convert", {"model": "../../x"}, "expected the name of a folder"),
        ("evaluate", {"result": "/etc/passwd"}, "'result': Extra inputs"),
    ],
)
def test_what_no_form_offers_is_not_taken(waiting, command, choices, said):
    with pytest.raises(UserError, match=said):
        waiting.add(command, choices)
    assert waiting.look() == []


def test_a_strangers_files_are_named_and_never_run(waiting, work, tmp_path):
    waiting.add("evaluate", {}, draft=True)
    texts = {
        "000001-train-00000001": "command: train\nchoices: {name: ../x, model: h64}",
        "000002-sort-00000002": "command: studio\nchoices: {}",
        "000003-sort-00000003": "[" * 5000,
        "000004-sort-00000004": "command: evaluate\nchoices: {}\nworkspace: /etc",
    }
    for name, text in texts.items():
        (waiting.folder / "queued" / f"{name}.yaml").write_text(text)
    assert sum("no job of the queue" in said or "YAML" in said for said, _ in states(waiting)) == 4
    work()
    assert not (tmp_path / "did").exists()
    assert [state for _, state in states(waiting)] == ["drafted"] + ["failed"] * 4
    (waiting.folder / "queued" / "mine.yaml").write_text("x")  # none of ours: not shown
    assert len(waiting.look()) == 5
    for name in ("../../x", "mine", "", "sort-00000009"):
        for change in (waiting.remove, lambda n: waiting.move(n, "queued"), waiting.stop,
                       lambda n: waiting.shift(n, 1)):  # fmt: skip
            with pytest.raises(UserError):
                change(name)
    with pytest.raises(UserError, match="expected queued or drafted"):
        waiting.move(waiting.look()[0]["name"], "done")


def post(studio, path, body):
    """(status, answer) of a POST as a page of the studio sends it."""
    headers = {"Content-Type": "application/json", "Origin": studio.url}
    request = urllib.request.Request(studio.url + path, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_jobs_from_the_pages_run_on_without_the_studio(tmp_path, write_faceset, visit, waiting):
    """Real commands: a training that fails for want of faces, and a sort."""
    write_faceset(tmp_path / "src" / "aligned", 5)
    old = waiting.add("evaluate", {}, draft=True)
    (path,) = (waiting.folder / "drafted").iterdir()
    path.rename(waiting.folder / "failed" / path.name)
    (waiting.folder / "logs" / f"{path.stem}.log").write_text("odfs-evaluate: no result\n")
    with started(tmp_path, tmp_path / "log") as studio:
        status, answer = post(studio, "/api/queue/add", {"command": "export", "choices": {}})
        assert status == 400 and "expected one of" in answer["error"]
        assert post(studio, "/api/queue/change", {"name": old, "by": 7})[0] == 422
        page = visit(studio.url)
        failed = page.locator(f".jobs li[data-name={old}]")
        assert "odfs-evaluate: no result" in failed.locator(".log").inner_text()
        failed.get_by_role("button", name="Remove").click()
        page.locator("dialog").get_by_role("button", name="Cancel").click()
        assert failed.count() == 1
        failed.get_by_role("button", name="Remove").click()
        page.locator("dialog").get_by_role("button", name="Remove").click()
        failed.wait_for(state="detached")
        page.get_by_label("what to queue").select_option("sort")
        page.get_by_label("by").select_option("brightness")
        page.get_by_role("button", name="Draft").click()
        row = page.locator(".jobs li", has_text="sort src by brightness")
        row.locator(".badge.drafted").wait_for()
        page.goto(f"{studio.url}/train")
        page.get_by_role("button", name="New run").click()
        page.get_by_role("textbox", name="name").fill("first try")
        page.get_by_role("button", name="Queue").click()
        page.get_by_text("first try is in the queue").wait_for()
        page.goto(studio.url)
        row.get_by_role("button", name="Queue").click()
        row.locator(".badge.drafted").wait_for(state="detached")
        studio.end()
    wait_for(lambda: {state for _, state in states(waiting)} == {"done", "failed"})
    assert states(waiting) == [
        ("sort src by brightness", "done"), ("train first try, h64", "failed"),
    ]  # fmt: skip
    assert any("dst" in line for line in waiting.look()[1]["log"])
