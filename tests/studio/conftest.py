"""A real headless Chromium to visit a studio with, and the actors' faces in a workspace."""

import dataclasses
import importlib.util
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from models import write_model
from studios import PATIENCE, ROOT, Studio, started

from odfs_jax.data.aligned_png import write_face

PICTURES = ROOT / "tests" / "extraction" / "data"
SRC_FACES = 300
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="session")
def browser():
    """Chromium; skips where it, or Playwright, which drives it, is not installed."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None or importlib.util.find_spec("playwright") is None:
        pytest.skip("chromium and playwright are needed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])


@pytest.fixture
def visit(browser) -> Iterator[Callable]:
    """visit(url) -> the page. Nothing may be loaded from elsewhere, and no script may fail."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(PATIENCE * 1000)
    errors = []

    def go(url: str):
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: errors.append(request.url) if foreign(request) else None)
        page.goto(url)
        return page

    yield go
    context.close()
    assert not errors


def foreign(request) -> bool:
    return not re.match(r"(http|ws)://127\.0\.0\.1[:/]|data:|blob:", request.url)


@pytest.fixture(scope="session")
def pictures() -> Path:
    """The folder of the actors' pictures."""
    return PICTURES


@pytest.fixture(scope="session")
def truth() -> dict[str, dict]:
    """Exact landmarks and pose of the actors' pictures, by file name."""
    return json.loads((PICTURES / "truth.json").read_text())


@pytest.fixture(scope="session")
def place_actors(actor_faces) -> Callable[[Path], None]:
    """Puts ben's pictures, as frames of dst, and exact aligned faces of both into a workspace."""

    def place(workspace: Path) -> None:
        for side, person in (("src", "ada"), ("dst", "ben")):
            pictures = sorted(PICTURES.glob(f"{person}_*.jpg"))
            for number, path in enumerate(pictures):
                (workspace / side).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, workspace / side)
                image, face = actor_faces[path.stem]
                source = dataclasses.replace(face.source, frame=number)
                face = dataclasses.replace(face, source=source)
                write_face(workspace / side / "aligned" / f"{number:05d}_0.png", image, face)

    return place


@pytest.fixture(scope="session")
def shared_studio(tmp_path_factory, place_actors, write_faceset) -> Iterator[Studio]:
    """One studio for several pages' tests: ben as dst, SRC_FACES of src, a model `tiny`."""
    workspace = tmp_path_factory.mktemp("shared")
    place_actors(workspace)
    shutil.rmtree(workspace / "src")
    write_faceset(workspace / "src" / "aligned", SRC_FACES, size=32)
    write_model(workspace / "models" / "tiny")
    with started(workspace, workspace.parent / "shared.log") as running:
        yield running
