"""/masks in Chromium: what is drawn is in the PNG, and what is taken back is not."""

import base64
import json
import shutil
import urllib.error
import urllib.request

import numpy as np
import pytest

from odfs_jax.curation.masks import doubt, find_masks, load_masker
from odfs_jax.data.aligned_png import read_face, read_image_and_face
from odfs_jax.data.media import png
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


class Board:
    """The face on the page, which a mouse draws on; what is then written into its PNG."""

    def __init__(self, page, aligned):
        self.page, self.aligned, self.saved = page, aligned, 0
        page.wait_for_selector("#studio-main[data-shown]")
        page.wait_for_function("document.querySelector('canvas.board').clientWidth > 400")

    @property
    def path(self):
        return self.aligned / self.page.locator("#studio-main").get_attribute("data-shown")

    @property
    def scale(self):
        return self.page.evaluate("masks.board.scale")

    def place(self, point):
        box = self.page.locator("canvas.board").bounding_box()
        pairs = zip("xy", point, strict=True)
        return [box[side] + (value + 0.5) * self.scale for side, value in pairs]

    def drag(self, start, end):
        self.page.mouse.move(*self.place(start))
        self.page.mouse.down()
        self.page.mouse.move(*self.place(end), steps=3)
        self.page.mouse.up()

    def draw(self, corners):
        for corner in corners:
            self.page.mouse.click(*self.place(corner))
        self.page.keyboard.press("Enter")

    def written(self, action, *args):
        """The face in the PNG after `action(*args)`, which writes it once."""
        action(*args)
        self.saved += 1
        self.page.wait_for_selector(f"#studio-main[data-saved='{self.saved}']")
        return read_face(self.path)

    def key(self, key):
        return self.written(self.page.keyboard.press, key)

    def go(self, key, name):
        self.page.keyboard.press(key)
        self.page.wait_for_selector(f"#studio-main[data-shown='{name}']")


def opened(visit, studio, aligned):
    return Board(visit(f"{studio.url}/masks?side=dst&name=00000_0.png"), aligned)


def test_polygons_are_drawn_changed_and_taken_back(shared_studio, aligned, visit):
    board = opened(visit, shared_studio, aligned)
    picture, _ = read_image_and_face(board.path)
    page, pixel = board.page, 1 / board.scale  # of the screen
    (area,) = board.written(board.draw, CORNERS).polygons
    assert not area.include and np.abs(area.points - CORNERS).max() < pixel
    hidden = stored_mask(read_face(board.path))
    assert hidden[65, 65] == 0 and hidden.max() == 255  # a hole in the hull
    (moved,) = board.written(board.drag, CORNERS[1], (110, 20)).polygons
    assert np.abs(moved.points[1] - (110, 20)).max() < pixel
    (more,) = board.written(page.mouse.click, *board.place((65, 97.5))).polygons  # an edge
    assert len(more.points) == 5
    page.mouse.move(*board.place((65, 97.5)))
    assert len(board.key("Delete").polygons[0].points) == 4
    assert board.key("x").polygons[0].include
    assert stored_mask(read_face(board.path))[65, 65] == 255
    for _ in range(4):
        (back,) = board.key("Control+z").polygons
    np.testing.assert_array_equal(back.points, area.points)
    np.testing.assert_array_equal(read_image_and_face(board.path)[0], picture)  # as it was
    board.go("ArrowRight", "00001_0.png")
    (copied,) = board.key("c").polygons
    np.testing.assert_array_equal(copied.points, area.points)
    board.key("Control+z")
    board.go("ArrowLeft", "00000_0.png")
    page.keyboard.press("v")
    page.locator("#studio-say", has_text="copied onto 1 faces").wait_for()
    assert len(read_face(aligned / "00001_0.png").polygons) == 1
    board.go("ArrowRight", "00001_0.png")
    assert board.key("Control+z").polygons == ()  # each face has its own past
    board.go("ArrowLeft", "00000_0.png")
    assert board.key("Control+z").polygons == ()


def test_twenty_edits_are_painted_and_taken_back_one_by_one(shared_studio, aligned, visit):
    """Brush and polygons, by mouse and by keys; the last undo leaves the face as it was."""
    board = opened(visit, shared_studio, aligned)
    page, before = board.page, read_face(board.path)
    page.keyboard.press("b")
    page.get_by_label("width of the brush").fill("16")
    known = [before]

    def edit(action, *args):
        known.append(board.written(action, *args))
        return stored_mask(known[-1])

    page.keyboard.press("x")  # what is face
    assert (
        stored_mask(before) is None and edit(board.drag, (10, 10), (50, 10))[10, 10:51].min() > 250
    )
    page.keyboard.press("x")
    mask = edit(board.drag, (40, 70), (90, 70))
    assert mask[70, 40:91].max() < 5 and mask[70 + 12, 65] > 250 and mask[10, 30] > 250
    for row in range(8):
        assert edit(board.drag, (40, 50 + 4 * row), (60, 50 + 4 * row))[50 + 4 * row, 50] < 5
    page.mouse.move(*board.place((100, 100)))
    page.keyboard.press("Shift+ArrowLeft")
    edit(page.keyboard.press, " ")
    page.keyboard.press("b")
    for step in range(4):
        x = 20 + 22 * step
        edit(board.draw, ((x, 14), (x + 16, 14), (x + 8, 30)))
    assert len(known[-1].polygons) == 4
    edit(page.keyboard.press, "x")
    page.mouse.move(*board.place((20, 14)))
    edit(page.keyboard.press, "Delete")
    page.keyboard.press("b")
    assert edit(board.drag, (20, 120), (40, 120))[120, 30] > 250  # the polygons are in it
    assert known[-1].polygons == () and known[-1].mask_maker == "hand"
    assert edit(page.keyboard.press, "h") is None
    edit(board.drag, (20, 120), (40, 120))
    assert len(known) == 21
    other = opened(visit, shared_studio, aligned)
    sent = base64.b64decode(other.page.evaluate("masks.state.face.mask"))
    np.testing.assert_array_equal(png.decode(sent), png.decode(known[-1].mask))
    for expected in known[-2::-1]:
        assert same(board.key("Control+z"), expected)


def same(one, other):
    drawn = [
        [(area.include, area.points.tolist()) for area in face.polygons] for face in (one, other)
    ]
    masks = [face.mask and png.decode(face.mask).tolist() for face in (one, other)]
    return drawn[0] == drawn[1] and masks[0] == masks[1] and one.mask_maker == other.mask_maker


def test_a_network_begins_a_mask_and_shows_where_it_doubts(
    shared_studio, aligned, visit, write_mask_model
):
    """The face that it sees in another way than the hull comes first; what it has seen is kept."""
    models = shared_studio.workspace / "models"
    write_mask_model(models / "seeing")
    try:
        board = opened(visit, shared_studio, aligned)
        page = board.page
        face = board.key("n")
        masker, _ = load_masker(models / "seeing")
        expected = find_masks([board.path], masker, masker.predict, 1)[board.path]
        np.testing.assert_allclose(stored_mask(face), expected, atol=1)
        doubts = [
            doubt(path, found, masker)
            for path, found in find_masks(
                sorted(aligned.glob("*.png")), masker, masker.predict, 1
            ).items()
        ]
        assert doubts[0] < 0.01 < doubts[1]  # the first is as the network sees it
        board.go("d", "00001_0.png")
        assert f"{100 * doubts[1]:.0f} % differs" in page.locator(".where").inner_text()
        board.go("ArrowRight", "00000_0.png")
        kept = json.loads((shared_studio.workspace / "studio" / "doubt_dst.json").read_text())
        assert kept["00001_0.png"][1] == [pytest.approx(doubts[1], abs=0.01)]
        page.keyboard.press("d")
        page.locator("#doubt", has_text="Most doubtful first").wait_for()
        assert page.evaluate("masks.state.names") == ["00000_0.png", "00001_0.png"]
    finally:
        shutil.rmtree(models / "seeing")


def test_what_no_page_sends_is_refused(shared_studio, aligned):
    path = aligned / "00000_0.png"
    version, before = str(path.stat().st_mtime_ns), path.read_bytes()
    points = [list(corner) for corner in CORNERS]

    def answer(polygons, version=version, mask=None):
        drawn = {"polygons": polygons, "mask": mask, "maker": None}
        body = json.dumps({"version": version} | drawn).encode()
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
    large = base64.b64encode(png.encode(np.zeros((1025, 1025), np.uint8))).decode()
    for wrong in ("no base64", base64.b64encode(b"no PNG").decode(), large, large[:400]):
        assert answer([], mask=wrong) == 400
    assert answer([], mask="A" * (1 << 21) + "A") == 422
    assert path.read_bytes() == before
