"""A whole job in Chromium: extract, place by hand, cull, train, try merge settings, play, convert.

Everything is done on the pages, as somebody at the screen would; what lies on the disk proves it.
"""

import re
import shutil
from itertools import islice

import av
import cv2
import numpy as np
import pytest
import yaml
from studios import PATIENCE, ROOT, shown, started, wait_for

from odfs_jax.data.aligned_png import read_face
from odfs_jax.training.backups import checkpoints_in

FRAMES, BLURRED = 5, 2  # of dst, and the one whose face no detector finds
NETWORK = "model.resolution=32 model.width=0.03125 model.face_type=full"


@pytest.fixture
def workspace(tmp_path, write_clip, actor_faces, place_actors):
    """dst.mp4, a few frames of ben of which one is blurred, and exact faces of ada as src."""
    place_actors(tmp_path)
    shutil.rmtree(tmp_path / "dst")
    with av.open(str(ROOT / "assets" / "demo" / "dst.mp4")) as clip:
        decoded = [
            frame.to_ndarray(format="rgb24") for frame in islice(clip.decode(video=0), FRAMES)
        ]
    frames = [cv2.resize(frame, None, fx=0.5, fy=0.5) for frame in decoded]
    frames[BLURRED] = cv2.GaussianBlur(frames[BLURRED], (0, 0), 40)
    write_clip(tmp_path / "dst.mp4", frames)
    return tmp_path


def go(page, name):
    page.get_by_role("link", name=name, exact=True).click()


def test_a_job_from_the_clip_to_the_result(workspace, visit):
    aligned = workspace / "dst" / "aligned"
    with started(workspace, workspace / "log") as studio:
        page = visit(studio.url)
        _extract(page, aligned)
        _place_by_hand(page, aligned)
        _cull(page, workspace / "src")
        _train(page, workspace / "models" / "first try")
        _convert(page, workspace, _try_settings(page, workspace))


def _extract(page, aligned):
    page.get_by_role("button", name="Extract dst").click()
    page.get_by_role("button", name="Stop").wait_for()
    page.get_by_role("link", name="Place them by hand").wait_for()
    assert len(list(aligned.glob("*.png"))) == FRAMES - 1


def _place_by_hand(page, aligned):
    """The face between two others, with its chin moved down."""
    page.get_by_role("link", name="Place them by hand").click()
    page.wait_for_selector(f"#studio-main[data-frame='{BLURRED}']")
    page.keyboard.press("i")
    page.wait_for_function("extract.state.pinned[0]?.matrix")
    page.keyboard.press("f")
    x, y = page.evaluate("extract.state.pinned[0].points[8]")
    box, scale = page.locator("canvas.board").bounding_box(), page.evaluate("extract.board.scale")
    page.mouse.move(box["x"] + (x + 0.5) * scale, box["y"] + (y + 0.5) * scale)
    page.mouse.down()
    page.mouse.move(box["x"] + (x + 0.5) * scale, box["y"] + (y + 3.5) * scale, steps=3)
    page.mouse.up()
    page.keyboard.press("Enter")
    page.locator("#studio-say", has_text="the last of these frames").wait_for()
    before, face = (read_face(aligned / f"{n:05d}_0.png") for n in (BLURRED - 1, BLURRED))
    assert face.detector == "manual" and face.source.frame == BLURRED
    assert abs(face.source.landmarks[8][1] - (y + 3)) < 1
    assert np.abs(face.source.landmarks - before.source.landmarks).max() < 9  # 40 ms later


def _cull(page, src):
    go(page, "Faces")
    page.wait_for_selector("#studio-main[data-ready]")
    page.get_by_label("order").select_option("face_yaw")
    page.wait_for_function("faces.state.order")
    page.keyboard.press("Tab")
    page.locator(".scroll").focus()
    page.keyboard.press("End")
    (name,) = page.evaluate("[...faces.grid.chosen]")
    page.keyboard.press("Delete")
    page.wait_for_function("faces.state.names.length === 2")
    yaws = [read_face(path).pose.yaw for path in (src / "aligned").glob("*.png")]
    assert read_face(src / "aligned_trash" / name).pose.yaw < min(yaws)


def _train(page, folder):
    go(page, "Train")
    page.locator("[data-new]").click()
    page.get_by_label("name").fill(folder.name)
    page.get_by_label("batch size").fill("2")
    page.get_by_label("iterations").fill("50")
    page.get_by_label("other settings").fill(NETWORK)
    page.locator("[data-start]").click()
    # A busy machine compiles for minutes, and a fast one may be done between two looks of the page.
    wait_for((folder / "config.yaml").exists, patience=5 * PATIENCE)
    wait_for(lambda: checkpoints_in(folder))
    page.get_by_text("50 of 50").wait_for()
    page.locator(".state.not-running").wait_for()
    page.wait_for_function("document.querySelector('.preview img')?.naturalWidth > 0")


def _try_settings(page, workspace) -> np.ndarray:
    """What the last frame was with them."""
    go(page, "Convert")
    page.wait_for_selector("#studio-main[data-merged='{}']")
    page.get_by_label("erode", exact=True).fill("30")
    page.keyboard.press("Enter")
    page.wait_for_selector("#studio-main[data-merged='{\"erode\":30}']")
    page.get_by_label("frames to play").fill(f"{FRAMES}")
    page.keyboard.press("Tab")
    page.locator("#play").click()
    page.wait_for_selector(f"#studio-main[data-playing=true][data-shown='merged {FRAMES - 1}']")
    page.locator("#play").click()
    page.locator("#write").click()
    page.locator("#studio-say", has_text="written").wait_for()
    assert yaml.safe_load((workspace / "dst.shots.yaml").read_text()) == [{"from": 0, "erode": 30}]
    page.get_by_label("frame", exact=True).fill(f"{FRAMES - 1}")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"#studio-main[data-playing=false][data-shown='merged {FRAMES - 1}']")
    return shown(page)


def _convert(page, workspace, seen):
    result = workspace / "result.mp4"
    page.locator("#begin").click()
    page.wait_for_selector("#studio-main[data-job=done]")
    assert re.search(r"result\.mp4, 0\.\d MB", page.locator(".job").inner_text())
    with av.open(str(result)) as clip:
        frames = [frame.to_ndarray(format="bgr24") for frame in clip.decode(video=0)]
    assert len(frames) == FRAMES and np.abs(frames[-1].astype(int) - seen).mean() < 2  # two codecs
    page.locator("#view-result").click()
    page.wait_for_selector(f"#studio-main[data-shown='result {FRAMES - 1}']")
    assert np.abs(shown(page) - seen).mean() < 2
    page.locator("#play").click()  # from the last frame on: it begins anew
    page.wait_for_function("converting.state.playing && converting.state.frame === 0")
    page.wait_for_function("document.querySelector('video').currentTime > 0")
    page.locator("#play").click()
    first = result.read_bytes()
    page.locator("#begin").click()
    page.get_by_role("button", name="Cancel").click()  # nothing was replaced, nothing started
    assert page.locator("#studio-main").get_attribute("data-job") == "done"
    page.locator("#begin").click()
    page.locator("button[value=keep]").click()
    kept = workspace / "result.1.mp4"
    wait_for(kept.exists)
    page.locator("#stop").click()
    assert kept.read_bytes() == first
