"""/faces with mouse and keys in Chromium; the files on disk prove what it did."""

import shutil

import cv2
import numpy as np
import pytest
from studios import queued, wait_for

from odfs_jax.config import compose
from odfs_jax.conversion.convert import convert
from odfs_jax.curation.measures import brightness
from odfs_jax.data.aligned_png import read_face, read_image_and_face
from odfs_jax.studio.pages.faces import THUMB_SIZE, thumbnail

COUNT = 300  # faces of src


@pytest.fixture(scope="module")
def studio(shared_studio):
    return shared_studio


def opened(visit, studio, side):
    page = visit(f"{studio.url}/faces?side={side}")
    page.wait_for_selector("#studio-main[data-ready]")
    page.wait_for_function("Object.keys(faces.state.poses).length === faces.state.names.length")
    return page


def chosen(page):
    return sorted(page.evaluate("[...faces.grid.chosen]"))


def converted(workspace) -> list[bool]:
    """Which of dst's frames a conversion changes, by name."""
    settings = [f"workspace={workspace}", "hardware.compilation_cache=null", "batch_size=1"]
    convert(compose("convert", ["data=dst", *settings]))
    frames, results = (
        sorted((workspace / "dst").glob("*.jpg")),
        (workspace / "result").glob("*.png"),
    )
    pairs = zip(frames, sorted(results), strict=True)
    changed = [bool((cv2.imread(str(a)) != cv2.imread(str(b))).any()) for a, b in pairs]
    shutil.rmtree(workspace / "result")
    return changed


@pytest.mark.slow
def test_a_trashed_face_does_not_convert_and_comes_back(studio, visit):
    """By a real conversion each time."""
    folder = studio.workspace / "dst" / "aligned"
    page = opened(visit, studio, "dst")
    before = (folder / "00000_0.png").read_bytes()
    assert converted(studio.workspace) == [True, True]
    page.locator(".cell", has_text="00000_0").click()
    page.keyboard.press("Delete")
    page.wait_for_function("faces.grid.items.length === 1")
    assert converted(studio.workspace) == [False, True]
    assert (folder.parent / "aligned_trash" / "00000_0.png").read_bytes() == before
    page.keyboard.press("Control+z")
    page.wait_for_function("faces.grid.items.length === 2")
    assert (folder / "00000_0.png").read_bytes() == before
    assert converted(studio.workspace) == [True, True]


def test_the_trash_gives_faces_back_after_a_reload(studio, visit):
    """And no set asks for the pictures of another one."""
    folder = studio.workspace / "src" / "aligned"
    page = opened(visit, studio, "src")
    refused = []
    page.on("response", lambda answer: refused.append(answer.url) if answer.status > 399 else None)
    page.locator(".cell", has_text="00003_0").click()
    page.locator(".cell", has_text="00005_0").click(modifiers=["Shift"])
    page.locator("#trash").click()
    page.wait_for_function("faces.state.names.length === 297")
    assert not (folder / "00004_0.png").exists()
    page.reload()
    page.wait_for_selector("#studio-main[data-ready]")
    page.get_by_label("faceset").select_option("src-trash")
    page.wait_for_function("faces.grid.items.length === 3")
    page.keyboard.press("Control+a")
    page.locator("#trash").click()
    page.wait_for_function("faces.state.names.length === 0")
    assert len(list(folder.glob("*.png"))) == COUNT
    page.get_by_label("faceset").select_option("dst")
    assert page.locator("aside table tr").count() == 0
    page.wait_for_function("faces.map.poses.length === 2")
    assert not refused


def test_choosing_with_mouse_and_keys(studio, visit):
    page = opened(visit, studio, "src")
    cell = lambda name: page.locator(".cell", has_text=name)  # noqa: E731
    cell("00002_0").click()
    cell("00004_0").click(modifiers=["Shift"])
    assert chosen(page) == [f"0000{i}_0.png" for i in (2, 3, 4)]
    cell("00003_0").click(modifiers=["Control"])
    assert chosen(page) == ["00002_0.png", "00004_0.png"]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    assert chosen(page) == ["00004_0.png", "00005_0.png"]
    page.keyboard.press("Control+a")
    assert len(chosen(page)) == COUNT
    page.keyboard.press("Escape")
    page.keyboard.press("End")
    assert chosen(page) == ["00299_0.png"]
    page.locator(".cell.cursor", has_text="00299_0").wait_for()
    page.keyboard.press("ArrowUp")
    page.locator("#onward").click()
    columns = page.evaluate("faces.grid.columns")
    assert chosen(page) == [f"{i:05d}_0.png" for i in range(299 - columns, COUNT)]
    assert page.locator(".cell").count() < 150  # the others are no elements


def test_the_pose_map_filters(studio, visit):
    """A face that it hides is neither counted nor moved."""
    folder = studio.workspace / "dst" / "aligned"
    page = opened(visit, studio, "dst")  # yaw -34.7 and 18.4
    page.locator(".scroll").focus()
    page.keyboard.press("Control+a")
    bar = page.locator(".bar").bounding_box()
    canvas = page.get_by_label("map of yaw and pitch")
    box = canvas.bounding_box()
    x = lambda yaw: box["x"] + box["width"] * (64 + (yaw / 90 + 1) / 2 * 556) / 632  # noqa: E731
    page.mouse.move(x(-60), box["y"] + 20)
    page.mouse.down()
    page.mouse.move(x(-10), box["y"] + 180, steps=4)
    page.mouse.up()
    page.wait_for_function("faces.grid.items.length === 1")
    (name,) = page.evaluate("faces.grid.items")
    assert -60 < read_face(folder / name).pose.yaw < -10
    assert page.locator(".count").inner_text() == "1 of 2 faces, 1 chosen"
    assert page.locator(".bar").bounding_box() == bar
    page.locator("#trash").click()
    page.wait_for_function("faces.state.names.length === 1")
    page.locator("#undo").click()
    page.wait_for_function("faces.state.names.length === 2")
    canvas.press("Escape")  # its keys do what the mouse does
    page.wait_for_function("faces.grid.items.length === 2")
    for key in [*["ArrowLeft"] * 6, *["ArrowUp"] * 3]:
        canvas.press(key)
    assert page.evaluate("faces.grid.items") == [name]
    canvas.dblclick()
    page.wait_for_function("faces.grid.items.length === 2")
    page.get_by_label("dst poses that src lacks").check()
    page.wait_for_function("faces.map.lacked.length === 2")  # src looks ahead only
    page.locator(".compare", has_text="2 of 2 dst poses").wait_for()


def test_a_face_enlarged_with_its_points_and_data(studio, visit):
    page = opened(visit, studio, "dst")
    page.locator(".cell", has_text="00000_0").dblclick()
    page.wait_for_selector(".look[data-shown='00000_0.png']")
    text = page.locator(".look table").inner_text()
    face = read_face(studio.workspace / "dst" / "aligned" / "00000_0.png")
    assert face.source.file in text and f"{face.pose.yaw:.1f}" in text
    green = """() => { const c = document.querySelector('.look canvas');
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0;
        for (let i = 0; i < d.length; i += 4) n += d[i] == 57 && d[i+1] == 255 && d[i+2] == 106;
        return n; }"""
    assert page.evaluate(green) > 500
    page.keyboard.press("l")
    assert page.evaluate(green) == 0
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".look[data-shown='00001_0.png']")
    page.keyboard.press("Escape")
    assert page.locator(".look").count() == 0


def test_an_order_is_shown_then_made_then_taken_back(studio, visit):
    folder = studio.workspace / "dst" / "aligned"
    page = opened(visit, studio, "dst")
    assert page.locator("#queue").is_disabled()
    names = {p.name: read_face(p).source.file for p in folder.glob("*.png")}
    page.get_by_label("order").select_option("face_yaw")
    page.wait_for_function("faces.grid.items[0] === '00001_0.png'")
    assert {p.name for p in folder.glob("*.png")} == set(names)
    page.locator("#sheets").click()
    page.wait_for_function("document.querySelector('.look .sheet')?.naturalWidth > 100")
    page.locator(".look .sheet").click()
    assert page.evaluate(
        "(s => s.width === s.naturalWidth)(document.querySelector('.look .sheet'))"
    )
    page.keyboard.press("Escape")
    yaw = read_face(folder / "00001_0.png").pose.yaw
    page.locator(".cell", has_text=f"{yaw:.3g}° · 00001_0").wait_for()
    assert queued(page) == "sort dst by face_yaw"
    page.locator("#sort").click()
    page.wait_for_function("faces.state.names.join() === '00000.png,00001.png'")
    page.locator("#studio-say", has_text="Undo renaming takes it back").wait_for()
    page.wait_for_function("faces.map.poses.length === 2")  # under their new names
    assert read_face(folder / "00000.png").source.file == names["00001_0.png"]
    page.locator("#unsort").click()
    page.wait_for_function("faces.state.names.join() === '00000_0.png,00001_0.png'")
    assert {p.name: read_face(p).source.file for p in folder.glob("*.png")} == names


def test_a_measure_filters_and_groups_have_headings(studio, visit):
    folder = studio.workspace / "src" / "aligned"
    bright = {p.name: brightness(read_image_and_face(p)[0]) for p in folder.glob("*.png")}
    page = opened(visit, studio, "src")
    page.get_by_label("filter by").select_option("brightness")
    page.wait_for_function("faces.range.values.length === 300")
    for _ in range(4):
        page.get_by_label("lowest value").press("PageUp")
    low = page.evaluate("faces.range.range[0]")
    passed = sorted(name for name, value in bright.items() if value >= low)
    assert 0 < len(passed) < COUNT and page.evaluate("faces.grid.items") == passed
    page.locator(".count", has_text=f"{len(passed)} of {COUNT} faces").wait_for()
    page.get_by_label("filter by").select_option("")
    page.wait_for_function("faces.grid.items.length === 300")
    people = {
        "names": sorted(bright),
        "values": None,
        "groups": [0] * 250 + [1] * 30 + [*range(2, 22)],
    }
    page.route("**/api/faces/order", lambda route: route.fulfill(json=people))
    page.get_by_label("order").select_option("identity")
    page.locator(".head", has_text="person 1 · 250 faces").wait_for()
    page.locator(".scroll").focus()
    page.keyboard.press("End")
    page.locator(".cell.cursor", has_text="00299_0").wait_for()
    page.locator(".head", has_text="each alone · 20 faces").wait_for()
    page.locator(".head", has_text="person 2 · 30 faces").click()
    assert chosen(page) == sorted(bright)[250:280]
    page.locator("#rest").click()  # of near-duplicates: all but the best
    assert chosen(page) == [*sorted(bright)[1:250], *sorted(bright)[251:280]]


def test_what_the_queue_renames_and_extraction_adds_is_seen(studio, visit):
    folder = studio.workspace / "dst" / "aligned"
    names = [folder / name for name in ("00000_0.png", "00001_0.png", "other.png")]
    page = opened(visit, studio, "dst")
    page.get_by_label("order").select_option("face_yaw")
    page.wait_for_function("faces.state.order")
    before = page.evaluate("faces.state.poses")
    for old, new in ((0, 2), (1, 0), (2, 1)):  # as sort.py does
        names[old].rename(names[new])
    page.wait_for_function("!faces.state.order && Object.keys(faces.state.poses).length === 2")
    after = page.evaluate("faces.state.poses")
    assert [after[path.name] for path in names[:2]] == [before[path.name] for path in names[1::-1]]
    shutil.copy(names[0], names[2])
    page.wait_for_function("faces.grid.items.length === 3")
    names[2].unlink()
    for old, new in ((0, 2), (1, 0), (2, 1)):
        names[old].rename(names[new])


def test_a_bad_file_is_shown_as_bad(studio, visit):
    bad = studio.workspace / "dst" / "aligned" / "bad.png"
    bad.write_bytes(b"no picture")
    try:
        page = visit(f"{studio.url}/faces?side=dst")
        page.locator(".cell", has_text="bad").click()
        page.wait_for_function(
            "document.querySelector('aside table').innerText.includes('not a PNG')"
        )
    finally:
        bad.unlink()


def test_thumbnails_are_kept_until_the_file_changes(tmp_path, write_faceset):
    write_faceset(tmp_path / "faces", 2, size=200)
    first, second = sorted((tmp_path / "faces").glob("*.png"))
    made = thumbnail(first, tmp_path / "cache")
    picture = cv2.imdecode(np.frombuffer(made, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (THUMB_SIZE, THUMB_SIZE, 3)
    exact = cv2.resize(
        cv2.imread(str(first)), (THUMB_SIZE, THUMB_SIZE), interpolation=cv2.INTER_AREA
    )
    assert np.abs(picture.astype(int) - exact).mean() < 3
    (kept,) = (tmp_path / "cache").rglob("*.jpg")
    kept.write_bytes(b"kept")
    assert thumbnail(first, tmp_path / "cache") == b"kept"
    shutil.copy(second, first)
    assert thumbnail(first, tmp_path / "cache") not in (made, b"kept")
    wait_for(lambda: len(list((tmp_path / "cache").rglob("*.jpg"))) == 2)
