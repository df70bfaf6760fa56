"""How fast the studio answers, in headless Chromium.

python benchmarks/bench_studio.py [--report FILE.json]

A set of 10,000 faces: from the address to the first page of thumbnails, cold and again, and the
time of each frame while it scrolls. The manual extractor: from the mouse's rest to the points. The
Convert page, one face in 1080p and the demo's network after an iteration: from a changed value, and
from a mode that was not seen yet, to the merged frame; programs of an earlier studio are not used.

Makes its own workspaces of the demo's actors in a temporary folder; needs chromium and playwright.
"""

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from bench_convert import demo_clip
from common import ROOT, parse, show
from playwright.sync_api import Page, sync_playwright

from odfs_jax.data.aligned_png import FaceData, Pose, Source, write_face
from odfs_jax.faces.align import MEAN_FACE
from odfs_jax.faces.types import FaceType

FACES, SIZE, PLACES, SECONDS = 10_000, 256, 40, 10
PATIENCE = 120  # seconds for a page
# Settings of the Convert page; the first value of each is not timed.
VALUES = {"opacity": (90, 80, 70), "erode": (30, 35, 40), "blur": (60, 70, 80), "scale": (1, 2, 3)}
MODES = ("hist_match", "hist_match_bw", "seamless", "seamless_hist_match", "raw")
MERGED = "document.querySelector('#studio-main').dataset.merged"
SCROLL = """async (seconds) => {
    const box = document.querySelector('.scroll'), times = [];
    const end = performance.now() + seconds * 1e3;
    let last = performance.now();
    while (last < end) {
        box.scrollTop += 120;
        await new Promise(requestAnimationFrame);
        const now = performance.now();
        times.push(now - last);
        last = now;
    }
    return times;
}"""
FIRST_PAGE = """() => { const seen = [...document.querySelectorAll('.cell img')].slice(0, 40);
    return seen.length === 40 && seen.every((img) => img.complete && img.naturalWidth) }"""


def main(report: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        many, trained = Path(folder) / "many", Path(folder) / "trained"
        _make_faces(many / "src" / "aligned")
        shutil.copy(ROOT / "assets" / "demo" / "dst.mp4", many)
        with _visited(many) as (page, url):
            figures = _faces(page, url) | _extract(page, url)
        _train(trained)
        with _visited(trained) as (page, url):
            figures |= _convert(page, url)
    figures |= {"faces_in_the_set": FACES, "cores": os.cpu_count()}
    show(figures, report)


def _make_faces(folder: Path) -> None:
    """FACES files: noise that compresses like a picture does, each file its own."""
    points = np.concatenate([np.linspace((0, 0.3), (1, 0.3), 17), MEAN_FACE]) * SIZE
    rng = np.random.default_rng(0)
    for number in range(FACES):
        coarse = rng.integers(30, 226, (9, 9, 3)).astype(np.uint8)
        picture = cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        pose = Pose(*rng.normal(0, (25.0, 10.0, 5.0)).tolist())
        source = Source("src.mp4", number, number, SIZE, SIZE, (0.0, 0.0, 1.0, 1.0), points)
        face = FaceData(FaceType.FULL, SIZE, points, source, pose, "mtcnn", "dlib68", 1.0)
        write_face(folder / f"{number:05d}_0.png", picture, face)


def _train(workspace: Path) -> None:
    """The demo's ben at 1080p as src and dst, their faces, and a model of one iteration."""
    workspace.mkdir()
    with av.open(str(workspace / "dst.mp4"), "w") as out:
        images = demo_clip().images
        stream = out.add_stream("libx264", rate=25)
        stream.height, stream.width, _ = images[0].shape
        for image in images:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode(None))
    shutil.copy(workspace / "dst.mp4", workspace / "src.mp4")
    settings = ["data=src_dst", f"workspace={workspace}"]
    of_training = ["experiment=demo", "iterations=1", "optimizer.warmup=0"]
    for command in (["extract.py", *settings], ["train.py", *settings, *of_training]):
        subprocess.run([sys.executable, str(ROOT / command[0]), *command[1:]], check=True)


@contextmanager
def _visited(workspace: Path) -> Iterator[tuple[Page, str]]:
    """(a page of a browser, the address of a studio of `workspace`), both running."""
    log = workspace / "log"
    process = _serve(workspace, log)
    try:
        url = _address(log)
        with sync_playwright() as playwright:
            path = shutil.which("chromium") or shutil.which("google-chrome")
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.set_default_timeout(PATIENCE * 1000)
            yield page, url
            browser.close()
    finally:
        process.terminate()
        process.wait()


def _serve(workspace: Path, log: Path) -> subprocess.Popen:
    settings = (f"workspace={workspace}", "server.port=0", "hardware.compilation_cache=null")
    command = [sys.executable, str(ROOT / "scripts" / "studio.py"), *settings]
    with log.open("wb") as out:
        return subprocess.Popen(command, stdout=out, stderr=out)


def _address(log: Path) -> str:
    for _ in range(600):
        if found := re.search(r"studio: (http://[^/\s]+)", log.read_text()):
            return found[1]
        time.sleep(0.1)
    sys.exit(f"no studio: {log.read_text()}")


def _faces(page: Page, url: str) -> dict[str, float]:
    opened = []
    for _ in range(2):
        start = time.perf_counter()
        page.goto(f"{url}/faces?side=src")
        page.wait_for_function(FIRST_PAGE)
        opened.append(round(time.perf_counter() - start, 3))
    while_reading = page.evaluate(SCROLL, SECONDS)
    page.wait_for_function("Object.keys(faces.state.poses).length === 10000", timeout=600_000)
    page.evaluate("document.querySelector('.scroll').scrollTop = 0")
    at_rest = page.evaluate(SCROLL, SECONDS)
    return {
        "first_page_cold_s": opened[0],
        "first_page_again_s": opened[1],
        **_frames("scrolling", at_rest),
        **_frames("scrolling_while_poses_are_read", while_reading),
    }


def _frames(name: str, times: list[float]) -> dict[str, float]:
    median, late, worst = statistics.median(times), np.quantile(times, 0.99), max(times)
    values = zip(("median", "p99", "max"), (median, late, worst), strict=True)
    return {f"{name}_frame_{what}_ms": round(float(value), 1) for what, value in values}


def _extract(page: Page, url: str) -> dict[str, float]:
    page.goto(f"{url}/extract?side=dst&show=all")
    page.wait_for_selector("#studio-main[data-ready]")
    box = page.locator("canvas.board").bounding_box()
    for place in range(PLACES):
        x, y = 0.45 + 0.15 * (place % 7) / 7, 0.5 + 0.1 * (place % 5) / 5
        page.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] * y)
        page.wait_for_function(f"extract.state.trips.length > {place}")
    trips = page.evaluate("extract.state.trips.slice(1)")  # the first compiles
    return {
        "landmarks_median_ms": round(statistics.median(trips), 1),
        "landmarks_p90_ms": round(float(np.quantile(trips, 0.9)), 1),
    }


def _convert(page: Page, url: str) -> dict[str, float]:
    page.goto(f"{url}/convert")
    page.wait_for_selector("#studio-main[data-merged]")

    def seconds_until_seen(change: Callable, *given: Any) -> float:
        before = page.evaluate(MERGED)
        start = time.perf_counter()
        change(*given)
        page.wait_for_function(f"before => {MERGED} !== before", arg=before)
        return time.perf_counter() - start

    def give(label: str, value: int) -> None:
        page.get_by_label(label, exact=True).fill(str(value))
        page.keyboard.press("Enter")

    values = []
    for label, (first, *others) in VALUES.items():
        seconds_until_seen(give, label, first)
        values += [seconds_until_seen(give, label, value) for value in others]
    mode = page.get_by_label("mode", exact=True)
    modes = [seconds_until_seen(mode.select_option, name) for name in MODES]
    return {
        "changed_value_median_s": round(statistics.median(values), 3),
        "changed_value_max_s": round(max(values), 3),
        **{f"new_mode_{m}_s": round(s, 3) for m, s in zip(MODES, modes, strict=True)},
    }


if __name__ == "__main__":
    main(parse(__doc__).report)
