"""/extract with mouse and keys in Chromium: what is accepted is a valid aligned face."""

import shutil
import signal

import numpy as np
import pytest
from studios import mean_error, queued, started

from odfs_jax.data.aligned_png import read_face, read_image_and_face
from odfs_jax.extraction.journal import ExtractionJournal
from odfs_jax.faces.align import INNER

FRONT = "ada_070.jpg"  # turned by 3 degrees
DOWN = np.array([0, 12])


@pytest.fixture(scope="module")
def pristine(tmp_path_factory, pictures):
    """dst: three frames without a face, of which the second has two people in it."""
    workspace = tmp_path_factory.mktemp("manual")
    (workspace / "dst").mkdir()
    for number, name in enumerate((FRONT, "two_faces.jpg", "ben_100.jpg")):
        shutil.copy(pictures / name, workspace / "dst" / f"{number}_{name}")
    return workspace


@pytest.fixture(scope="module")
def studio(pristine):
    with started(pristine, pristine.parent / "manual.log") as running:
        yield running


@pytest.fixture
def aligned(pristine):
    yield pristine / "dst" / "aligned"
    shutil.rmtree(pristine / "dst" / "aligned", ignore_errors=True)
    shutil.rmtree(pristine / "dst" / "aligned_trash", ignore_errors=True)


class Hand:
    """The mouse over the frame, in frame pixels."""

    def __init__(self, page):
        self.page, self.board = page, page.locator("canvas.board")

    def to(self, point, steps=1):
        box, scale = self.board.bounding_box(), self.page.evaluate("extract.board.scale")
        x, y = (box[side] + (c + 0.5) * scale for side, c in zip("xy", point, strict=True))
        self.page.mouse.move(x, y, steps=steps)

    def frame(self, point, size):
        """The square around `point`, `size` pixels wide, until its points are there."""
        self.to(point)
        for _ in range(60):
            now = self.page.evaluate("extract.state.square.size")
            if abs(np.log(now / size)) < 0.05:
                break
            self.page.mouse.wheel(0, -100 if now < size else 100)
            self.page.wait_for_function(f"extract.state.square.size !== {now}")
        self.page.wait_for_function(
            "(s => s.points && s.of.x === s.x && s.of.size === s.size)(extract.state.square)"
        )

    def drag(self, start, end):
        self.to(start)
        self.page.mouse.down()
        self.to(end, steps=5)
        self.page.mouse.up()


def opened(visit, studio, **query):
    page = visit(f"{studio.url}/extract?side=dst" + "".join(f"&{k}={v}" for k, v in query.items()))
    page.wait_for_selector("#studio-main[data-ready]")
    return page, Hand(page)


def at_frame(page, number):
    page.wait_for_selector(f"#studio-main[data-frame='{number}']")


def square_of(points):
    low, high = points[INNER].min(0), points[INNER].max(0)
    return (low + high) / 2, (high - low).max()


def test_an_accepted_face_is_a_valid_aligned_face(studio, visit, aligned, truth):
    exact = np.array(truth[FRONT]["landmarks"])
    center, size = square_of(exact)
    page, hand = opened(visit, studio)
    at_frame(page, 0)
    hand.frame(center + np.array([9, -7]), size * 1.15)  # a hand is not exact
    page.keyboard.press("Enter")
    at_frame(page, 1)
    image, face = read_image_and_face(aligned / "00000_0.png")
    assert image.shape == (256, 256, 3) and face.detector == "manual" and face.score == 1
    assert face.landmarker == "face_mesh" and face.source.file == f"0_{FRONT}"
    aligned_side = np.ptp(face.source.landmarks[INNER], 0).max() / np.ptp(face.landmarks, 0).max()
    assert mean_error(face.source.landmarks, exact) < 0.02 * 256 * aligned_side
    assert not ExtractionJournal.read(aligned).doubtful()


def test_a_dragged_point_is_where_it_was_dragged(studio, visit, aligned, truth):
    exact = np.array(truth[FRONT]["landmarks"])
    page, hand = opened(visit, studio)
    at_frame(page, 0)
    hand.frame(*square_of(exact))
    page.mouse.down()
    page.mouse.up()
    page.wait_for_function("extract.state.pinned.length === 1")
    begun = page.evaluate("extract.state.pinned[0].points")
    page.keyboard.press("f")  # enlarged, so that a screen pixel is less
    page.wait_for_function("extract.board.zoom > 1")
    whole = page.evaluate("extract.board.scale")
    page.keyboard.down("Control")
    page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    page.wait_for_function(f"extract.board.scale > {whole}")
    hand.drag(begun[30], np.array(begun[30]) + DOWN)
    page.wait_for_function("extract.state.past.length === 2")
    page.keyboard.press("Control+z")
    assert page.evaluate("extract.state.pinned[0].points") == begun
    for index in (8, 30):
        hand.drag(page.evaluate(f"extract.state.pinned[0].points[{index}]"), exact[index])
    page.keyboard.press("Enter")
    at_frame(page, 1)
    points = read_face(aligned / "00000_0.png").source.landmarks
    scale = page.evaluate("extract.board.scale")
    assert scale > whole and np.abs(points[[8, 30]] - exact[[8, 30]]).max() < 1 / scale


def test_two_faces_a_frame_and_going_back_to_change_one(studio, visit, aligned):
    page, hand = opened(visit, studio)
    at_frame(page, 0)
    page.keyboard.press(" ")
    at_frame(page, 1)
    assert not aligned.exists()  # later
    width = page.evaluate("extract.board.image.width")
    height = page.evaluate("extract.board.image.height")
    for x in (0.25, 0.75):
        hand.to((width * x, height / 2))
        page.wait_for_function("extract.state.following && extract.state.square?.points")
        hand.frame((width * x, height / 2), height * 0.4)
        page.mouse.down()
        page.mouse.up()
        page.wait_for_function("!extract.state.following")
        hand.to((5, 5))
        page.mouse.down()  # beside it: another
        page.mouse.up()
    assert page.evaluate("extract.state.pinned.length") == 2
    page.keyboard.press("Enter")
    at_frame(page, 2)
    faces = [read_face(aligned / f"00001_{k}.png") for k in range(2)]
    left, right = sorted(face.source.landmarks.mean(0)[0] for face in faces)
    assert left < width / 2 < right
    page.keyboard.press("Backspace")
    at_frame(page, 1)
    hand.to(faces[0].source.landmarks[30])
    page.mouse.down()
    page.mouse.up()
    page.wait_for_function("extract.state.pinned.length === 1")
    hand.drag(faces[0].source.landmarks[8], faces[0].source.landmarks[8] + DOWN)
    page.keyboard.press("Escape")  # neither the change nor its draft is left
    assert page.evaluate("[extract.state.pinned.length, extract.state.existing.length]") == [0, 2]
    assert page.evaluate("Object.keys(localStorage).filter((key) => /draft/.test(key))") == []
    page.keyboard.press("Control+z")
    page.keyboard.press("Enter")
    at_frame(page, 2)
    now = {p.name: read_face(p).source.landmarks for p in aligned.glob("*.png")}
    assert len(now) == 2  # it took the place of the old one, which is in the trash
    assert [p.name for p in (aligned.parent / "aligned_trash").iterdir()] == ["00001_0.png"]
    moved = faces[0].source.landmarks[8] + DOWN
    assert min(np.abs(points[8] - moved).max() for points in now.values()) < 1


def test_nobody_here_is_noted(studio, visit, aligned):
    page, _ = opened(visit, studio)
    at_frame(page, 0)
    assert queued(page) == "extract dst"
    page.keyboard.press("Enter")
    at_frame(page, 1)
    journal = ExtractionJournal.read(aligned)
    assert not list(aligned.glob("*.png"))
    assert not journal.doubtful() and len(journal.frames) == 1
    page.reload()
    page.wait_for_selector("#studio-main[data-ready]")
    assert page.evaluate("extract.state.queue") == [1, 2]
    page.keyboard.press("Enter")
    at_frame(page, 2)
    page.keyboard.press("Enter")
    page.locator("#studio-say", has_text="the last of these frames").wait_for()
    page.reload()
    page.locator(".nothing", has_text="All 3 frames have a clear face.").wait_for()
    assert page.locator("#queue").is_hidden()
    page.mouse.move(400, 400)
    page.mouse.move(420, 400)
    page.mouse.click(420, 300)
    page.keyboard.press("Enter")
    page.locator("#all").click()  # and nothing was wrong before
    assert page.locator("#studio-say.bad").count() == 0
    at_frame(page, 0)
    page.get_by_label("frame number").fill("1")
    page.keyboard.press("Enter")
    at_frame(page, 1)
    page.keyboard.press("ArrowRight")
    at_frame(page, 2)
    page.reload()  # the place is kept, and which frames are shown
    at_frame(page, 2)
    assert page.evaluate("extract.state.queue") == [0, 1, 2]


def test_a_gap_is_filled_from_the_frames_around_it(studio, visit, aligned, truth):
    page, _ = opened(visit, studio, show="all")
    ends = [np.array(truth[name]["landmarks"]) for name in (FRONT, "ben_100.jpg")]
    for frame, points in zip((0, 2), ends, strict=True):
        body = {"side": "dst", "frame": frame, "faces": [points.tolist()]}
        page.evaluate("(body) => studio.call('/api/accept', body)", body)
    page.reload()
    at_frame(page, 0)
    page.keyboard.press(" ")
    at_frame(page, 1)
    pinned = "extract.state.pinned[0].points"
    for key, expected in (("c", ends[0]), ("v", ends[1]), ("i", (ends[0] + ends[1]) / 2)):
        page.keyboard.press(key)
        page.wait_for_function("extract.state.pinned.length === 1")
        np.testing.assert_allclose(page.evaluate(pinned), expected, atol=0.01)
        if key != "i":
            page.keyboard.press("Control+z")
            page.wait_for_function("extract.state.pinned.length === 0")
    page.keyboard.press("Shift+Enter")
    at_frame(page, 2)
    page.keyboard.press("j")
    page.wait_for_selector("#studio-main[data-curves='0']")
    assert page.evaluate("extract.curves.trembling()") == []  # it is in the middle
    eyes = page.evaluate("extract.curves.point(1)")
    np.testing.assert_allclose(eyes, (ends[0] + ends[1])[36:48].mean(0) / 2, atol=0.1)
    page.evaluate("extract.curves.rows[1][3] += 0.02 * extract.curves.rows[1][1]")
    assert page.evaluate("extract.curves.trembling()") == [1]
    page.keyboard.press("j")
    assert page.locator(".curve").is_hidden()
    middle = read_face(aligned / "00001_0.png").source.landmarks
    np.testing.assert_allclose(middle, (ends[0] + ends[1]) / 2, atol=0.01)
    page.keyboard.press("Delete")  # the face of frame 2, which comes back
    page.locator("#studio-say", has_text="Ctrl Z takes it back").wait_for()
    assert not (aligned / "00002_0.png").exists()
    page.keyboard.press("Control+z")
    page.locator("#studio-say", has_text="is back").wait_for()
    assert (aligned / "00002_0.png").exists()


@pytest.mark.slow
def test_a_killed_studio_loses_no_accepted_and_no_pinned_face(pristine, visit, aligned, truth):
    """SIGKILL between two faces; the next studio on the same address goes on there."""
    log = pristine.parent / "killed.log"
    with started(pristine, log) as first:
        page, hand = opened(visit, first)
        at_frame(page, 0)
        hand.frame(*square_of(np.array(truth[FRONT]["landmarks"])))
        page.keyboard.press("Enter")
        at_frame(page, 1)
        hand.frame((100, 100), 100)
        page.mouse.down()
        page.mouse.up()
        page.wait_for_function("extract.state.pinned.length === 1")
        pinned = page.evaluate("extract.state.pinned[0].points")
        first.end(signal.SIGKILL)
        before = (aligned / "00000_0.png").read_bytes()
        page.keyboard.press("Enter")  # there is nobody to take it
        page.locator("#studio-say", has_text="does not answer").wait_for()
    port = first.url.rsplit(":", 1)[1]
    with started(pristine, log, f"server.port={port}") as second:
        page, _ = opened(visit, second)
        at_frame(page, 1)
        assert page.evaluate("extract.state.pinned[0].points") == pinned
        page.keyboard.press("Enter")
        at_frame(page, 2)
    assert (aligned / "00000_0.png").read_bytes() == before
    found = read_face(aligned / "00001_0.png").source.landmarks
    np.testing.assert_allclose(found, pinned, atol=1e-3)
