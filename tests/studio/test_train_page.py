"""/train in Chromium over a real, tiny run in a process of its own."""

import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from studios import PATIENCE, ROOT, environment, started, wait_for

from odfs_jax.studio.pages.train import _chart
from odfs_jax.training import control, metrics
from odfs_jax.training.checkpoint import Checkpoints

TINY = (
    "model=h64", "model.width=0.03125", "model.resolution=32", "batch_size=4", "log_every=5",
    "preview_every=0", "save_minutes=1000", "hardware.compilation_cache=null",
)  # fmt: skip


def steps(folder):
    found = (folder / "checkpoints").glob("*")
    return sorted(int(path.name) for path in found if path.name.isdigit())


@pytest.fixture(scope="module")
def training(tmp_path_factory, write_faceset):
    """(model's folder, process of a run, function that starts another)."""
    workspace = tmp_path_factory.mktemp("trained")
    for side, seed in (("src", 0), ("dst", 1)):
        write_faceset(workspace / side / "aligned", 6, seed=seed)
    log = (workspace.parent / "train.log").open("wb")

    def start(*more):
        command = [sys.executable, str(ROOT / "train.py"), f"workspace={workspace}", *TINY, *more]
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment())

    process = start()
    folder = workspace / "models" / "h64"
    wait_for(lambda: len(metrics.read_losses(folder)) > 1 or process.poll() is not None)
    assert process.poll() is None, (workspace.parent / "train.log").read_text()
    yield folder, process, start
    process.kill()
    process.wait()
    log.close()


def test_a_run_that_starts_elsewhere_is_shown_and_steered(shared_studio, visit):
    """A run without a training: what it is asked for, and what it says of itself."""
    folder = shared_studio.workspace / "models" / "h64"
    metrics.add_preview(folder, 5, np.full((64, 80, 3), 200, np.uint8))
    page = visit(f"{shared_studio.url}/train")
    page.locator(".state.not-running").wait_for()  # the model `tiny`, of which no status tells
    page.locator("[data-fact='iteration']:text-is('1')").wait_for()
    (folder / "config.yaml").touch()
    facts = {"step": 5, "target": 40, "batch_size": 4, "device": "cpu", "memory_limit": 10}
    try:
        with control.Control(folder) as run:
            run.begin(facts, lambda: 7)
            page.locator(".state.training").wait_for()
            page.wait_for_function("document.querySelector('.preview img')?.naturalWidth > 0")
            page.locator("[data-command=refresh]:not([disabled])").click()
            wait_for(lambda: run.commands == {"refresh"})
            metrics.add_losses(folder, 5, {"src_face": 0.5}, 1.0)
            page.get_by_label("other runs beside it").click()
            page.get_by_role("option", name="tiny").click()
            page.keyboard.press("Escape")
            page.get_by_label("their loss").wait_for()
            page.wait_for_function("document.activeElement === document.body")
            for key, name in (("s", "save"), (" ", "next")):
                page.keyboard.press(key)
                wait_for(lambda name=name: name in run.commands)
            page.keyboard.press("Enter")
            page.get_by_role("button", name="Cancel").click()
            page.locator("[data-yes]").wait_for(state="detached")
            assert "stop" not in run.commands
            page.keyboard.press("Enter")
            page.locator("[data-yes]").click()
            wait_for(lambda: "stop" in run.commands)
            assert page.locator("[data-fact='batch size']").inner_text() == "4"
            assert not page.locator(".backups").is_visible()
            for item, content in (
                ("config", "{}"),
                ("history", '{"rows": [[300, {"src": 0.25}]]}'),
            ):
                (folder / f"backups/300/checkpoint/{item}").mkdir(parents=True)
                (folder / f"backups/300/checkpoint/{item}/metadata").write_text(content)
            page.locator(".backups").wait_for()
            lines = page.locator(".backups").inner_text()
            assert lines.startswith("backup 300 20") and "src 0.2500" in lines
        page.locator(".state.not-running").wait_for()
        page.locator(".backup button:not([disabled])").click()
        page.locator("[data-yes]").click()
        wait_for(lambda: steps(folder) == [300] and not (folder / ".odfs_lock").exists())
    finally:
        shutil.rmtree(folder)


def test_a_run_is_started_and_its_mistake_is_shown(shared_studio, visit):
    """The network of `tiny` is another one; what was chosen is there again for the next try.

    The page shows the run that it started, though that was over before anybody saw it run.
    """
    other = shared_studio.workspace / "models" / "other" / "config.yaml"
    other.parent.mkdir()
    other.touch()
    page = visit(f"{shared_studio.url}/train?model=other")
    page.locator("[data-new]").click()
    page.get_by_label("name").fill("tiny")
    page.get_by_label("batch size").fill("3")
    page.get_by_label("iterations").fill("5")
    page.locator("[data-start]").click()
    page.get_by_text("failed (2)").wait_for()
    log = page.locator(".log").inner_text()
    assert "holds another model" in log
    page.wait_for_function("document.querySelector('[aria-label=run]').value === 'tiny'")
    shutil.rmtree(other.parent)
    page.get_by_role("button", name="Resume").click()
    assert page.get_by_label("batch size").input_value() == "3"
    assert page.get_by_label("iterations").input_value() == "5"
    assert page.get_by_label("name").is_disabled()


@pytest.mark.slow
def test_a_form_outlives_a_browser_that_hangs(shared_studio, visit):
    """As it may beside a training that takes the whole machine."""
    page = visit(f"{shared_studio.url}/train")
    page.locator("[data-new]").click()
    page.get_by_label("name").fill("kept")
    page.evaluate("(() => { const end = Date.now() + 12000; while (Date.now() < end); })()")
    page.wait_for_timeout(5000)  # in which a page that the studio has forgotten loads again
    assert page.get_by_label("name").input_value() == "kept"


def test_a_loss_of_both_people_has_one_color():
    rows = [
        {"step": step, "losses": {"src_face": 2.0**-step, "dst_face": 1.0, "dst_mask": None}}
        for step in range(1, 101)
    ]
    options = _chart({"a": rows})
    colors = {(one["name"], one["color"]) for one in options["series"] if one["data"]}
    assert len(colors) == 2 and len({color for _, color in colors}) == 1
    raw, smooth = [one["data"] for one in options["series"] if one["name"] == "src_face"]
    assert raw == [(row["step"], row["losses"]["src_face"]) for row in rows]
    np.testing.assert_allclose([v for _, v in smooth][2:-2], [v for _, v in raw][2:-2])
    assert smooth[0][1] < raw[0][1]  # at an end the mean is of fewer, later ones
    assert not options["series"][1]["showSymbol"]
    assert _chart({"a": rows[:1]})["series"][1]["showSymbol"]


def test_a_loss_of_several_runs_has_a_color_for_each():
    def run(factor):
        losses = {"src_face": factor, "dst_face": 2 * factor, "src_mask": 1.0}
        return [{"step": step, "losses": losses} for step in (1, 2)]

    options = _chart({"a": run(0.5), "b": run(0.25)}, "face")
    lines = {
        one["name"]: (one["color"], one["lineStyle"]["type"], one["data"][0][1])
        for one in options["series"]
    }
    first, second = lines["a src_face"][0], lines["b src_face"][0]
    assert first != second and lines == {
        "a src_face": (first, "solid", 0.5), "a dst_face": (first, "dashed", 1.0),
        "b src_face": (second, "solid", 0.25), "b dst_face": (second, "dashed", 0.5),
    }  # fmt: skip
    assert options["legend"]["data"] == list(lines)


def assert_facts(page):
    facts = {
        name: page.locator(f"[data-fact='{name}']").inner_text()
        for name in ("iteration", "pairs/s", "device", "memory", "batch size", "time left")
    }
    assert int(facts["iteration"].replace(",", "")) > 0 and facts["batch size"] == "4"
    assert "cpu" in facts["device"] and "GB" in facts["memory"]


@pytest.mark.slow
def test_the_page_steers_a_run_that_does_not_need_it(training, visit):
    """Buttons and keys; the studio is killed half way and the run goes on; stop can be resumed."""
    folder, process, start = training
    workspace = folder.parents[1]
    with started(workspace, workspace.parent / "studio.log") as first:
        page = visit(f"{first.url}/train")
        page.locator(".state.training").wait_for()
        page.locator("[data-command=refresh]").click()
        wait_for(lambda: metrics.preview_files(folder))
        page.wait_for_function("document.querySelector('.preview img')?.naturalWidth > 0")
        first_shown = page.locator(".history .mute").inner_text()
        assert not steps(folder)
        page.keyboard.press("s")
        wait_for(lambda: steps(folder))
        page.keyboard.press(" ")
        wait_for(lambda: len(metrics.preview_files(folder)) >= 3)
        assert_facts(page)
        page.wait_for_function("document.querySelector('.chart canvas, .chart svg')")
        shown = "document.querySelector('.history .mute').innerText"
        page.wait_for_function(f"{shown} !== '{first_shown}'")
        page.get_by_label("preview history").locator("[tabindex]").focus()
        page.keyboard.press("PageDown")
        page.wait_for_function(f"{shown} === '{first_shown}'")
        first.end(signal.SIGKILL)
    before = metrics.read_losses(folder)[-1]["step"]
    wait_for(lambda: metrics.read_losses(folder)[-1]["step"] > before)
    assert process.poll() is None and control.is_running(folder)
    with started(workspace, workspace.parent / "studio.log") as second:
        page = visit(f"{second.url}/train")
        page.locator(".state.training").wait_for()
        page.keyboard.press("Enter")
        page.locator("[data-yes]").click()
        assert process.wait(PATIENCE) == 0
        page.locator(".state.not-running").wait_for()
        assert page.locator("[data-command=save]").is_disabled()
    stopped = max(steps(folder))
    assert stopped == metrics.read_losses(folder)[-1]["step"]
    again = start(f"iterations={stopped + 3}")
    assert again.wait(PATIENCE) == 0
    checkpoints = Checkpoints(folder)
    assert checkpoints.latest() == stopped + 3
    checkpoints.close()
