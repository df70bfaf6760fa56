"""/convert in Chromium: settings are seen on a frame and written as shots."""

import numpy as np
import pytest
import yaml
from studios import shown, wait_for

from odfs_jax.studio.results import keep_result


@pytest.fixture
def studio(shared_studio):
    """The shots that the page writes are removed."""
    yield shared_studio
    (shared_studio.workspace / "dst.shots.yaml").unlink(missing_ok=True)


def opened(visit, studio):
    page = visit(f"{studio.url}/convert")
    page.wait_for_selector("#studio-main[data-merged]")
    return page


def merged_with(page, settings: str):
    page.wait_for_function(
        f"document.querySelector('#studio-main').dataset.merged === '{settings}'"
    )
    return shown(page)


def test_what_is_seen_is_written(studio, visit):
    page, file = opened(visit, studio), studio.workspace / "dst.shots.yaml"
    usual = shown(page)
    page.get_by_label("mode", exact=True).select_option("hist_match")
    matched = merged_with(page, '{"mode":"hist_match"}')
    assert np.abs(matched - usual).max() > 20
    page.keyboard.press("Tab")
    page.get_by_label("frame", exact=True).fill("1")
    page.keyboard.press("Enter")
    page.wait_for_selector("#studio-main[data-shown='merged 1']")
    page.locator("#split").click()
    page.get_by_label("opacity", exact=True).fill("40")
    page.keyboard.press("Enter")
    merged_with(page, '{"mode":"hist_match","opacity":40}')
    page.get_by_label("mode", exact=True).select_option("overlay")
    second = merged_with(page, '{"opacity":40}')
    assert np.abs(second - usual).max() > 20
    page.get_by_label("frames of the ramp to the shot from 1").fill("3")
    page.keyboard.press("Enter")
    in_ramp = '{"opacity":40,"before":{"mode":"hist_match"},"ramp":3,"step":0}'
    assert np.abs(merged_with(page, in_ramp) - second).max() > 2  # a quarter of the way
    page.locator("#write").click()
    wait_for(file.exists)
    assert yaml.safe_load(file.read_text()) == [
        {"from": 0, "mode": "hist_match"}, {"from": 1, "opacity": 40, "ramp": 3}
    ]  # fmt: skip


def test_no_broken_picture_stands_where_no_frame_is_yet(studio, visit):
    page = visit(f"{studio.url}/faces")
    page.route("**/api/convert/still", lambda route: route.abort())
    page.goto(f"{studio.url}/convert")
    page.wait_for_selector("#studio-main[data-ready]")
    assert page.locator("img.frame").is_hidden()
    page.locator("#view-original").click()
    page.locator("img.frame").wait_for()


def test_a_result_is_kept_with_all_that_belongs_to_it(tmp_path):
    for name in ("result.mp4", "result_mask.mp4", "result_merge.shots.yaml", "result.1.mp4"):
        (tmp_path / name).write_text(name)
    (tmp_path / "result_of_mine.txt").touch()
    (tmp_path / "result_debug").mkdir()
    keep_result(tmp_path / "result.mp4")
    assert {path.name for path in tmp_path.glob("result*")} == {
        "result.1.mp4", "result.2.mp4", "result.2_mask.mp4", "result.2_merge.shots.yaml",
        "result.2_debug", "result_of_mine.txt",
    }  # fmt: skip
    assert (tmp_path / "result.1.mp4").read_text() == "result.1.mp4"
    assert (tmp_path / "result.2.mp4").read_text() == "result.mp4"


def test_settings_that_are_not_written_stay(studio, visit):
    """Over another page and a reload, until they are written or thrown away."""
    page = opened(visit, studio)
    page.get_by_label("opacity", exact=True).fill("50")
    page.keyboard.press("Enter")
    page.goto(f"{studio.url}/faces")
    page.goto(f"{studio.url}/convert")
    page.wait_for_selector("#studio-main[data-ready]")
    assert page.get_by_label("opacity", exact=True).input_value() == "50"
    assert page.locator("#write").is_enabled()
    page.locator("#discard").click()
    page.locator("button[value=yes]").click()
    page.wait_for_function("converting.state.written")
    assert page.get_by_label("opacity", exact=True).input_value() == "100"
    page.reload()
    page.wait_for_selector("#studio-main[data-merged='{}']")
    assert page.locator("#write").is_disabled()


def test_a_frame_is_looked_at_closely(studio, visit):
    """The mask in red, dst wiped over, zoom about the mouse, playing, keys of DeepFaceLab's."""
    page = opened(visit, studio)
    usual = shown(page)
    page.keyboard.press("m")
    page.wait_for_selector("#studio-main[data-tinted=true]")
    tinted = shown(page)
    new = np.abs(tinted - usual).max(2) > 16
    assert 0.02 < new.mean() < 0.6
    redder = (tinted - usual)[new].mean(0)  # BGR
    assert redder[2] > 20 and redder[:2].max() < 0
    page.keyboard.press("m")
    page.wait_for_selector("#studio-main[data-tinted=false]")
    page.keyboard.press("v")
    page.wait_for_function("document.querySelector('img.other').naturalWidth > 0")
    box = page.locator(".stage").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 80)
    page.mouse.wheel(0, -100)
    assert page.evaluate("[converting.stage.zoom, converting.stage.x, converting.stage.y]") == [
        1.25, pytest.approx(-25, abs=1), pytest.approx(-20, abs=1)
    ]  # fmt: skip
    handle = page.get_by_role("slider", name="wiped").bounding_box()
    page.mouse.move(handle["x"] + 8, handle["y"] + 300)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, handle["y"] + 300)
    page.mouse.up()
    assert page.evaluate("converting.stage.share") == pytest.approx(25, abs=0.5)
    size = page.get_by_role("region", name="the size of src's face")
    assert size.bounding_box()["y"] < 300 and "matter of taste" in size.inner_text()
    size.get_by_label("scale", exact=True).fill("-40")
    page.keyboard.press("Enter")
    page.wait_for_selector("#studio-main[data-merged='{\"scale\":-40}']")
    assert np.abs(shown(page) - usual).max() > 20
    size.get_by_label("scale", exact=True).fill("0")
    page.keyboard.press("Enter")
    page.wait_for_selector("#studio-main[data-merged='{}']")
    page.get_by_label("frames to play").fill("2")
    page.keyboard.press("Tab")
    page.locator("#play").click()
    page.wait_for_selector("#studio-main[data-playing=true][data-shown='merged 1']")
    page.wait_for_selector("#studio-main[data-playing=true][data-shown='merged 0']")
    assert page.locator(".tools").bounding_box()["height"] < 60  # in one row at 1280 pixels
    page.keyboard.press("d")  # another setting, while it plays
    assert page.get_by_label("blur", exact=True).input_value() == "109"
    page.keyboard.press(" ")
    page.wait_for_selector("#studio-main[data-playing=false]")
