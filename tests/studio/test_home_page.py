"""/: what it says of a workspace at each stage of the work, and its one button."""

import json
import os
import shutil
import time

import pytest
from models import write_model

from odfs_jax.data.lock import locked
from odfs_jax.extraction.journal import Done, ExtractionJournal
from odfs_jax.studio.jobs import Jobs
from odfs_jax.studio.pages.home import look
from odfs_jax.studio.workspace import StudioWorkspace


@pytest.fixture
def seen(tmp_path):
    """seen() -> (the text of the next step, its button, the pages' states)."""
    workspace = StudioWorkspace(tmp_path)

    def read():
        found = look(workspace, Jobs(workspace))
        states = {step["name"]: (step["state"], step["done"]) for step in found["steps"]}
        return found["next"]["text"], found["next"]["label"], states

    return read


def test_the_next_step_at_each_stage(seen, tmp_path, pictures, write_faceset):
    text, label, states = seen()
    assert label is None and "Put src.mp4 and dst.mp4 into" in text
    assert states["Clips"][0].count("no such clip") == 2 and not states["Clips"][1]
    for side, person in (("src", "ada_070"), ("dst", "ben_100")):
        (tmp_path / side).mkdir()
        shutil.copy(pictures / f"{person}.jpg", tmp_path / side)
    assert seen()[1] == "Extract src and dst" and seen()[2]["Clips"] == ("src, dst", True)
    write_faceset(tmp_path / "src" / "aligned", 3)
    assert seen()[1] == "Extract dst"
    write_faceset(tmp_path / "dst" / "aligned", 2)
    journal = ExtractionJournal.read(tmp_path / "dst" / "aligned")
    journal.start({})
    journal.add(Done("ben_100.jpg", 0, None, 0))
    text, label, states = seen()
    assert label == "Place them by hand" and text.startswith("1 frame of dst has no clear face")
    assert states["Faces"] == ("3 of src, 2 of dst, 1 frame of dst without a clear one", True)
    journal.add(Done("ben_100.jpg", 0, None, 0, seen=True))
    assert seen()[1] == "Train" and seen()[2]["Train"] == ("no model yet", False)
    write_model(tmp_path / "models" / "tiny")
    assert seen()[1] == "Try it on dst and convert"
    assert seen()[2]["Train"] == ("tiny: 1 iterations", True)
    (tmp_path / "result.mp4").touch()  # of a clip; dst is a folder of frames
    assert seen()[2]["Convert"] == ("no result yet", False)
    result = tmp_path / "result"
    result.mkdir()
    assert seen()[1] == "See the result" and seen()[2]["Convert"][0].startswith("result, ")
    os.utime(result, (5, 5))
    assert seen()[0] == "tiny has learned more since result was made."


def test_a_mask_network_is_no_run_that_converts(seen, tmp_path, write_faceset, write_mask_model):
    for side in ("src", "dst"):
        write_faceset(tmp_path / side / "aligned", 1)
    masks, none = tmp_path / "models" / "facemask", ("no model yet", False)
    (masks / "checkpoints").mkdir(parents=True)  # of a run before it first saves
    (masks / "config.yaml").write_text("model: {name: facemask, net: mask_unet}\n")
    with locked(masks, "training"):
        assert seen()[1] == "Train" and seen()[2]["Train"] == none
        write_model(tmp_path / "models" / "tiny")
        (tmp_path / "dst.mp4").touch()
        (tmp_path / "result.mp4").touch()
        write_mask_model(masks)  # later than the result
        assert seen()[1] == "See the result"
        assert seen()[2]["Train"] == ("tiny: 1 iterations", True)


def test_a_result_of_odfs_swap_lies_elsewhere(seen, tmp_path, write_faceset):
    """As its record says; a record of anything else is as none."""
    for side in ("src", "dst"):
        write_faceset(tmp_path / side / "aligned", 1)
    (tmp_path / "dst.mp4").touch()
    write_model(tmp_path / "models" / "tiny")
    record = tmp_path / "swap.json"
    for odd in ("{", "[]", '{"convert": {"out": null, "path": "/a"}}', '{"convert": 1}'):
        record.write_text(odd)
        assert seen()[2]["Convert"] == ("no result yet", False)
    later = time.time_ns() + 10**9
    made = {"running": False, "out": [5, later], "path": "/films/anna.mp4"}
    record.write_text(json.dumps({"convert": made}))
    text, label, states = seen()
    assert text == "odfs-swap made anna.mp4, in /films." and label == "Try other settings"
    assert states["Convert"] == ("anna.mp4 in /films, 0 seconds old", True)
    result = tmp_path / "result.mp4"
    result.touch()
    os.utime(result, ns=(later + 10**9,) * 2)
    assert seen()[0] == "result.mp4 is newer than the model."


def test_the_button_leads_on(shared_studio, visit):
    page = visit(shared_studio.url)
    page.get_by_role("link", name="Try it on dst and convert").click()
    page.wait_for_url("**/convert")
