"""Several workspaces in one studio: each at its own address, whatever its name."""

from urllib.parse import quote

import pytest
from studios import started, wait_for
from test_guard import ask

from odfs_jax.errors import BadFileError, UserError
from odfs_jax.studio.layout import is_page
from odfs_jax.studio.workspace import Workspaces

ODD = "né #1 50%? 'a' \"b\" <i>{x}&c;=%2F ${oc.env:HOME}"


def test_each_folder_is_a_workspace(tmp_path):
    for name in ("b", ODD, ".hidden", "elsewhere/linked"):
        (tmp_path / "all" / name).mkdir(parents=True)
    (tmp_path / "all" / "file").touch()
    (tmp_path / "all" / "link").symlink_to(tmp_path / "all" / "elsewhere" / "linked")
    workspaces = Workspaces(tmp_path / "all")
    assert workspaces.names() == sorted(["b", ODD, "elsewhere", "link"])
    assert workspaces.workspace(ODD).root == tmp_path / "all" / ODD
    for name in ("..", ".", "", "file", "none", "elsewhere/linked", ".hidden", "b/", "../all/b"):
        with pytest.raises(BadFileError, match="no such workspace"):
            workspaces.workspace(name)


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "/a", ".hidden", "a\0b", "x" * 300, "old"])
def test_a_new_workspace_is_a_new_folder(tmp_path, name):
    workspaces = Workspaces(tmp_path)
    workspaces.make("old")
    with pytest.raises(UserError):
        workspaces.make(name)
    assert workspaces.names() == ["old"] and len(list(tmp_path.iterdir())) == 1


def test_which_paths_are_pages():
    assert all(map(is_page, ("/", "/faces", "/w/a/", "/w/a b/faces")))
    assert not any(
        map(is_page, ("/api/faces", "/w/a", "/w/a/api/frames/dst/1/faces", "/w/a/b/faces"))
    )


@pytest.fixture(scope="module")
def studio(tmp_path_factory, write_faceset):
    folder = tmp_path_factory.mktemp("several")
    write_faceset(folder / ODD / "src" / "aligned", 3, size=32)
    write_faceset(folder / "night" / "src" / "aligned", 5, size=32)
    (folder.parent / "outside" / "src").mkdir(parents=True)
    with started(folder, folder.parent / "several.log", f"workspaces={folder}") as running:
        yield running


def test_no_name_leads_out_of_the_folder(studio):
    own = f"/w/{quote(ODD, safe='')}/api/faces/src"
    assert ask(studio, own)[0] == 200 and ask(studio, "/w/night/api/faces/src")[0] == 200
    for name in ("..", "../outside", "..%2Foutside", "%2e%2e", ".", "", "none", "a\0b"):
        for quoted in (name, quote(name, safe="")):
            status, text = ask(studio, f"/w/{quote(quoted)}/api/faces/src")
            assert status == 404, (quoted, text)
    body = {"side": "src", "names": ["00000_0.png"]}
    assert ask(studio, "/w/night/api/faces/trash", body, Origin="http://evil.example")[0] == 403
    assert ask(studio, "/w/none/api/faces/trash", body)[0] == 404
    assert ask(studio, "/faces")[0] == 404  # of which workspace?


def test_a_walk_through_two_workspaces(studio, visit):
    page = visit(studio.url)
    page.get_by_role("link", name=ODD, exact=True).click()
    page.wait_for_selector("#studio-main[data-ready]")
    page.get_by_role("link", name="Faces").first.click()
    page.wait_for_selector("#studio-main[data-ready]")
    assert page.locator(".bar").first.inner_text().count("3 faces") == 1
    assert page.url == f"{studio.url}/w/{page.evaluate('encodeURIComponent', ODD)}/faces"
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")
    wait_for(lambda: len(list((studio.workspace / ODD / "src" / "aligned").glob("*.png"))) == 0)
    page.get_by_label("workspace", exact=True).select_option("night")
    page.wait_for_url(f"{studio.url}/w/night/faces")
    page.wait_for_selector("#studio-main[data-ready]")
    assert page.locator(".bar").first.inner_text().count("5 faces") == 1
    assert len(list((studio.workspace / "night" / "src" / "aligned").glob("*.png"))) == 5
    for name in ("Train", "Masks", "Convert", "Debug", "Extract by hand"):  # live, scripts load
        page.get_by_role("link", name=name, exact=True).click()
        page.wait_for_url("**/w/night/*")
        page.wait_for_selector("#studio-main > *, .train-side .state:has-text('no run')")
    page.get_by_label("workspace", exact=True).select_option("")
    page.get_by_label("name of a new workspace").fill("two ends? 100%")
    page.get_by_role("button", name="New workspace").click()
    page.get_by_text("Put src.mp4 and dst.mp4 into").wait_for()
    assert (studio.workspace / "two ends? 100%").is_dir()
