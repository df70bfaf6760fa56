"""/convert in Chromium: settings are seen on a frame, written as shots, and converted with."""

import base64
import shutil

import cv2
import numpy as np
import pytest
import yaml
from studios import wait_for

PIXELS = """() => {
    const image = document.querySelector('img.frame'), canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext('2d').drawImage(image, 0, 0);
    return canvas.toDataURL().split(',')[1];
}"""


@pytest.fixture
def studio(shared_studio):
    """What the page makes is removed."""
    yield shared_studio
    (shared_studio.workspace / "dst.shots.yaml").unlink(missing_ok=True)
    shutil.rmtree(shared_studio.workspace / "result", ignore_errors=True)


def opened(visit, studio):
    page = visit(f"{studio.url}/convert")
    page.wait_for_selector("#studio-main[data-merged]")
    return page


def shown(page) -> np.ndarray:
    """The frame on the page, BGR."""
    content = np.frombuffer(base64.b64decode(page.evaluate(PIXELS)), np.uint8)
    return cv2.imdecode(content, cv2.IMREAD_COLOR).astype(int)


def merged_with(page, settings: str):
    page.wait_for_function(
        f"document.querySelector('#studio-main').dataset.merged === '{settings}'"
    )
    return shown(page)


def test_what_is_seen_is_written_and_converted(studio, visit):
    page, workspace = opened(visit, studio), studio.workspace
    usual = shown(page)
    page.get_by_label("mode", exact=True).select_option("hist_match")
    matched = merged_with(page, '{"mode":"hist_match"}')
    assert np.abs(matched - usual).max() > 20
    page.keyboard.press("Tab")
    page.get_by_label("frame", exact=True).fill("1")
    page.keyboard.press("Enter")
    page.wait_for_selector("#studio-main[data-shown='merged 1']")
    page.locator("#split").click()
    page.get_by_label("erode", exact=True).fill("40")
    page.keyboard.press("Enter")
    merged_with(page, '{"mode":"hist_match","erode":40}')
    page.get_by_label("mode", exact=True).select_option("overlay")
    second = merged_with(page, '{"erode":40}')
    page.locator("#write").click()
    file = workspace / "dst.shots.yaml"
    wait_for(file.exists)
    assert yaml.safe_load(file.read_text()) == [
        {"from": 0, "mode": "hist_match"}, {"from": 1, "erode": 40}
    ]  # fmt: skip
    page.locator("#begin").click()
    page.wait_for_selector("#studio-main[data-job=done]")
    results = sorted((workspace / "result").glob("*.png"))
    assert len(results) == len(list((workspace / "dst").glob("*.jpg")))
    for path, seen in zip(results, (matched, second), strict=False):
        assert np.abs(cv2.imread(str(path)).astype(int) - seen).mean() < 1  # but for JPEG's loss
    page.locator("[data-view=result]").click()
    page.wait_for_selector("#studio-main[data-shown='result 1']")
    assert np.abs(shown(page) - second).mean() < 2
