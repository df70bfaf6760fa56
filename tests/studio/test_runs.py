"""What a run is started with: checked, remembered, and taken from what is there."""

import json

import pytest

from odfs_jax.errors import UserError
from odfs_jax.studio.runs import Choices, describe, preset_names, recall, remember
from odfs_jax.studio.workspace import StudioWorkspace


def test_settings_are_those_of_the_command_line():
    choices = Choices("a b", "saehd", "recipe=quick", 4, 0)
    assert choices.settings() == {
        "name": "a b", "model": "saehd", "recipe": "quick", "batch_size": 4, "iterations": 0
    }  # fmt: skip
    assert Choices("a", "h64").settings() == {"name": "a", "model": "h64"}
    more = Choices("a", "h64", more="model.width=0.5  loss.masked=false model.face_type=full")
    assert more.settings() == {
        "name": "a", "model": "h64", "model.width": 0.5, "loss.masked": False,
        "model.face_type": "full",
    }  # fmt: skip
    assert "recipe=quick" in preset_names() and "SAEHD" in describe("model", "saehd_192")


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (Choices("../a", "h64"), "the name of a folder"),
        (Choices("", "h64"), "the name of a folder"),
        (Choices("a", "../h64"), "expected one of amp"),
        (Choices("a", "h64", "hydra=default"), "expected one of recipe="),
        (Choices("a", "h64", None, 0), "batch_size=0: expected 1"),
        (Choices("a", "h64", None, None, -1), "iterations=-1: expected 0"),
        (Choices("a", "h64", more="workspace=/"), "expected settings of model"),
        (Choices("a", "h64", more="model.width=0.5 init_from=b"), "'init_from=b': expected"),
        (Choices("a", "h64", more="model.width=${oc.env:HOME}"), "expected settings of model"),
        (Choices("a", "h64", more="model.name=a/b"), "expected settings of model"),
    ],
)
def test_nothing_else_becomes_a_setting(choices, message):
    with pytest.raises(UserError, match=message):
        choices.settings()


def test_what_was_chosen_is_there_again(tmp_path):
    workspace = StudioWorkspace(tmp_path)
    first, second = Choices("a", "df", "recipe=long", 2, 7, "augment.warp=0"), Choices("b", "h128")
    remember(workspace, first)
    remember(workspace, second)
    assert recall(workspace, "a") == first and recall(workspace, "b") == second


def test_of_a_run_from_elsewhere_its_config_tells(tmp_path):
    folder = tmp_path / "models" / "c"
    folder.mkdir(parents=True)
    config = folder / "config.yaml"
    config.write_text("model: {name: df}\nbatch_size: 6\niterations: 0\n")
    workspace = StudioWorkspace(tmp_path)
    assert recall(workspace, "c") == Choices("c", "df", None, 6, 0)
    for text in ("model: {name: unheard_of}\nbatch_size: 6\niterations: 0\n", "[", ""):
        config.write_text(text)
        assert recall(workspace, "c") == Choices("c", "h64")


@pytest.mark.parametrize(
    "kept",
    [{"model": "h64", "preset": "hydra=x"}, {"model": ["h64"]}, {"batch_size": 1.5}, [], "x",
     {"preset": {}}, {"iterations": True}, {"more": 1}, {"more": "name=x"}],
)  # fmt: skip
def test_a_strangers_choices_are_not_taken(tmp_path, kept):
    (tmp_path / "studio").mkdir()
    (tmp_path / "studio" / "runs.json").write_text(json.dumps({"a": kept}))
    assert recall(StudioWorkspace(tmp_path), "a") == Choices("a", "h64")
