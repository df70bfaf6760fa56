"""/debug in Chromium: the pictures of all three stages, and nothing else."""

import shutil
import urllib.error
import urllib.request

import cv2
import numpy as np
import pytest

from odfs_jax.errors import BadFileError
from odfs_jax.studio.workspace import StudioWorkspace

FOLDERS = ("dst/aligned_debug", "models/h64/debug", "result_debug")


def write_pictures(workspace):
    """Three stages' folders; the pictures are as wide as their place in order."""
    for number, folder in enumerate(FOLDERS):
        (workspace / folder).mkdir(parents=True)
        for at in range(2):
            picture = np.full((20, 30 + 10 * number + at, 3), 99, np.uint8)
            cv2.imwrite(str(workspace / folder / f"{at:05d}.jpg"), picture)
    (workspace / "models" / "h64" / "config.yaml").touch()
    (workspace / "result_debug" / "notes.txt").touch()


@pytest.mark.slow
def test_each_stage_is_shown(shared_studio, visit):
    studio = shared_studio
    write_pictures(studio.workspace)
    try:
        page = visit(f"{studio.url}/debug")
        for number, folder in enumerate(FOLDERS):
            page.get_by_role("button", name=f"{folder} (2)").click()
            page.wait_for_selector(f"#studio-main[data-shown='{folder}/00000.jpg']")
            page.keyboard.press("ArrowRight")
            page.wait_for_selector(f"#studio-main[data-shown='{folder}/00001.jpg']")
            width = page.evaluate("document.querySelector('img.frame').naturalWidth")
            assert width == 31 + 10 * number
            title = "iteration 1" if folder.startswith("models") else "frame 1"
            assert page.locator(".where").inner_text() == title
        sheets = studio.workspace / FOLDERS[-1]
        for name in ("00007_-53_6", "00007_120_6"):
            shutil.copy(sheets / "00000.jpg", sheets / f"{name}.jpg")
        page.get_by_role("button", name=f"{FOLDERS[-1]} (4)").wait_for()
        page.get_by_label("picture", exact=True).press("End")
        page.locator(".where", has_text="frame 7, face 2 of 2").wait_for()
        for folder in ("dst/aligned", "..", "", "models/h64"):
            address = f"{studio.url}/api/debug/picture?folder={folder}&name=00000.jpg"
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(address, timeout=60)
    finally:
        for folder in (*FOLDERS, "models/h64"):
            shutil.rmtree(studio.workspace / folder, ignore_errors=True)


def test_a_workspace_shows_pictures_of_its_debug_folders_only(tmp_path):
    workspace = tmp_path
    write_pictures(workspace)
    studio_workspace = StudioWorkspace(workspace)
    assert tuple(studio_workspace.debug_folders()) == FOLDERS
    assert studio_workspace.debug_picture("result_debug", "00001.jpg").is_file()
    (workspace / "result_debug" / "out.jpg").symlink_to(workspace / "dst/aligned_debug/00000.jpg")
    for name in ("notes.txt", "../result_debug/00000.jpg", "out.jpg", "00007.jpg", ""):
        with pytest.raises(BadFileError):
            studio_workspace.debug_picture("result_debug", name)
