"""Pretraining on many people, and what a run takes over from it."""

import json
import logging
from contextlib import closing

import jax
import numpy as np
import pytest
from omegaconf import OmegaConf

from odfs_jax.config import compose
from odfs_jax.data.sampling import uniform_yaw, yaw_bins
from odfs_jax.errors import UserError
from odfs_jax.saved_model import named
from odfs_jax.training.checkpoint import Checkpoints, check_start, start
from odfs_jax.training.objectives import make_objective
from odfs_jax.training.stages import read_stages

PRETRAIN = ("pretrain=true", "data=pretrain", "name=many")


@pytest.fixture(scope="module")
def people(make_workspace, write_faceset):
    """A workspace with three faces of anybody."""
    workspace = make_workspace()
    write_faceset(workspace / "pretrain" / "aligned", 3, seed=5)
    return workspace


def test_what_a_pretraining_run_learns(people, configure):
    settings = (
        "augment.hsv=0.1",
        "discriminator=patch",
        "optimizer.dropout=0.3",
        "loss.true_face=1",
    )
    (stage,) = read_stages(configure(people, *PRETRAIN, *settings))
    found = stage.config
    assert (found["augment"]["warp"], found["augment"]["hsv"]) == (0, 0)
    assert found["discriminator"]["name"] == "none" and found["loss"]["true_face"] == 0
    assert found["optimizer"]["dropout"] is None and found["data"]["sampling"] == "uniform_yaw"
    assert "augment.warp" in stage.changes and "loss.face_style" not in stage.changes
    facesets = make_objective(found).load_facesets()
    assert facesets["src"] is facesets["dst"] and len(facesets["src"]) == 3


def test_a_run_begins_with_it_but_for_the_inters(people, configure, save_state, caplog):
    models = people / "models"
    tiny = ("model=saehd", "model.args.archi=liae-ud", "model.args.ae_dims=32")
    config = read_stages(configure(people, *PRETRAIN, *tiny))[0].config
    objective = make_objective(config)
    state = jax.jit(objective.init_state)()
    state = state.replace(step=state.step + 7)
    before = jax.tree.map(np.asarray, state.params["autoencoder"])
    save_state(models / "many", state, config)
    metadata = models / "many" / "checkpoints" / "7" / "metadata" / "metadata"
    metadata.write_text(json.dumps({"exported_net": "autoencoder", "src_eyes": [[0, 0]] * 12}))
    later = ("seed=1", f"init_from={models / 'many'}", "name=two")
    config = OmegaConf.to_container(configure(people, *tiny, *later))
    objective = make_objective(config)
    with (
        closing(Checkpoints(models / "two")) as checkpoints,
        caplog.at_level(logging.INFO, logger="odfs_jax"),
    ):
        begun, _ = start(checkpoints, objective, jax.devices()[:1])
    said = [line for line in caplog.messages if "pretrained" in line]
    assert said == [f"{models / 'many'}: pretrained; begin anew: inter_AB, inter_B"]
    for name, value in named(begun.params["autoencoder"]).items():
        same = np.array_equal(value, named(before)[name])
        if name.endswith("kernel"):
            assert same != name.startswith("inter"), name

    many = Checkpoints(models / "many")
    with closing(many), pytest.raises(UserError, match="many is pretrained; give another name="):
        check_start(many, objective)


def test_there_are_no_stages_in_it(people, configure):
    with pytest.raises(UserError, match="pretrain=true: there are no stages in it"):
        read_stages(configure(people, *PRETRAIN, "recipe=quick"))


@pytest.mark.parametrize("recipe", ["quick", "standard", "long"])
@pytest.mark.parametrize("model", ["saehd", "df"])
def test_every_recipe_fits_a_model(recipe, model):
    stages = read_stages(compose("train", [f"model={model}", f"recipe={recipe}"]))
    assert stages[0].start == 0 and stages[0].config["augment"]["warp"] > 0
    assert stages[-1].config["augment"]["warp"] == 0
    assert stages[-1].config["discriminator"]["name"] == "unet"
    assert stages[-1].start < stages[-1].config["iterations"]


def test_every_yaw_comes_as_often():
    class Faces:
        yaws = np.float32([0] * 30 + [-50] + [60] * 2)

        def __len__(self):
            return len(self.yaws)

    sides = {"src": Faces(), "dst": Faces()}
    draw = jax.jit(jax.vmap(uniform_yaw(sides, 8), (None, 0)))
    drawn = draw(jax.random.key(0), np.arange(150))
    for side in sides:
        faces, mirrored = (np.ravel(part) for part in drawn[side])
        assert not mirrored.any() and len(np.unique(faces)) == 33
        counts = np.unique(yaw_bins(Faces.yaws)[faces], return_counts=True)[1]
        assert counts.min() > 300 and len(counts) == 3  # of 1200
    assert not np.array_equal(drawn["src"][0], drawn["dst"][0])
