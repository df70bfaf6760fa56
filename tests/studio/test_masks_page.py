"""/masks in Chromium: what is drawn is in the PNG, and what is taken back is not."""

import json
import urllib.error
import urllib.request

import numpy as np
import pytest

from odfs_jax.data.aligned_png import read_face, read_image_and_face
from odfs_jax.data.stored_masks import stored_mask

CORNERS = ((30, 30), (100, 35), (95, 100), (35, 95))  # of pictures of 128 pixels


@pytest.fixture
def aligned(shared_studio):
    """dst's faces, which are as they were after each test."""
    folder = shared_studio.workspace / "dst" / "aligned"
    before = {path: path.read_bytes() for path in folder.glob("*.png")}
    yield folder
    for path, content in before.items():
        path.write_bytes(content)


def test_polygons_are_drawn_changed_and_taken_back(shared_studio, aligned, visit):
    path = aligned / "00000_0.png"
    picture, _ = read_image_and_face(path)
    page = visit(f"{shared_studio.url}/masks?side=dst&name=00000_0.png")
    page.wait_for_selector("#studio-main[data-shown='00000_0.png']")
    board = page.locator("canvas.board")
    page.wait_for_function("document.querySelector('canvas.board').clientWidth > 400")
    size = picture.shape[0]
    saved = 0

    def place(point):
        box = board.bounding_box()
        return [
            box[side] + (value + 0.5) * box["width"] / size
            for side, value in zip("xy", point, strict=True)
        ]

    def written(action):
        """The polygons in the PNG after `action`, which writes them once."""
        nonlocal saved
        action()
        saved += 1
        page.wait_for_selector(f"#studio-main[data-saved='{saved}']")
        return read_face(path).polygons

    def draw():
        for corner in CORNERS:
            page.mouse.click(*place(corner))
        page.keyboard.press("Enter")

    (area,) = written(draw)
    scale = board.bounding_box()["width"] / size
    assert not area.include and np.abs(area.points - CORNERS).max() < 1 / scale  # a screen pixel
    hidden = stored_mask(read_face(path))
    assert hidden[65, 65] == 0 and hidden.max() == 255  # a hole in the hull

    def drag():
        page.mouse.move(*place(CORNERS[1]))
        page.mouse.down()
        page.mouse.move(*place((110, 20)), steps=3)
        page.mouse.up()

    (moved,) = written(drag)
    assert np.abs(moved.points[1] - (110, 20)).max() < 1 / scale
    (more,) = written(lambda: page.mouse.click(*place((65, 97.5))))  # an edge: another point
    assert len(more.points) == 5
    page.mouse.move(*place((65, 97.5)))
    assert len(written(lambda: page.keyboard.press("Delete"))[0].points) == 4
    assert written(lambda: page.keyboard.press("x"))[0].include
    assert stored_mask(read_face(path))[65, 65] == 255
    for _ in range(4):
        (back,) = written(lambda: page.keyboard.press("Control+z"))
    np.testing.assert_array_equal(back.points, area.points)
    np.testing.assert_array_equal(read_image_and_face(path)[0], picture)  # as it was
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#studio-main[data-shown='00001_0.png']")
    written(lambda: page.keyboard.press("c"))
    np.testing.assert_array_equal(
        read_face(aligned / "00001_0.png").polygons[0].points, area.points
    )
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("#studio-main[data-shown='00000_0.png']")
    assert written(lambda: page.keyboard.press("Control+z")) == ()  # each face has its own past


def test_what_no_page_sends_is_refused(shared_studio, aligned):
    path = aligned / "00000_0.png"
    version, before = str(path.stat().st_mtime_ns), path.read_bytes()
    points = [list(corner) for corner in CORNERS]

    def answer(polygons, version=version):
        body = json.dumps({"version": version, "polygons": polygons}).encode()
        headers = {"Content-Type": "application/json", "Origin": shared_studio.url}
        request = urllib.request.Request(
            f"{shared_studio.url}/api/masks/dst/00000_0.png", body, headers
        )
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(request, timeout=60)
        with error.value as refusal:  # or its socket stays open
            return refusal.code

    for wrong in (points[:2], [[1e9, 0], *points], [[0], *points], points * 300):
        assert answer([{"include": True, "points": wrong}]) == 422
    assert answer([{"include": True, "points": points}] * 101) == 422
    assert answer([{"include": True, "points": points}], version="5") == 400  # another file now
    assert path.read_bytes() == before
