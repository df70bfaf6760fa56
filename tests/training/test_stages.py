"""Settings that change at given iterations: in one command what several would do."""

import jax
import numpy as np
import pytest

from odfs_jax.errors import UserError
from odfs_jax.training.stages import from_iteration, read_stages

STAGES = (
    "stages=[{from:2,augment.warp:0.0},{from:4,optimizer.dropout:0.3,discriminator.name:patch}]"
)
QUIET = ("log_every=0", "preview_every=0", "batch_size=2", "discriminator.dims=4")


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.mark.slow
def test_stages_do_what_commands_one_by_one_would(make_workspace, run_training, read_checkpoint):
    """Also where the run is stopped in the middle of a stage."""
    stages = "stages=[{from:2,optimizer.dropout:0.3,discriminator.name:patch}]"
    found = []
    for commands in (
        [(stages, "iterations=3"), (stages, "iterations=4")],
        [("iterations=2",), ("optimizer.dropout=0.3", "discriminator=patch", "iterations=4")],
    ):
        workspace = make_workspace()
        for settings in commands:
            folder = run_training(workspace, *QUIET, *settings)
        found.append(read_checkpoint(folder))
    (staged, *_), (by_hand, *_) = found
    assert int(staged.step) == 4 and set(staged.nets) == {"autoencoder", "discriminator"}
    assert bits(by_hand.nets) == bits(staged.nets)


def test_a_stage_has_the_settings_of_those_before_it(configure, workspace):
    stages = read_stages(configure(workspace, STAGES))
    assert [(stage.start, stage.end) for stage in stages] == [(0, 2), (2, 4), (4, None)]
    assert [stage.config["augment"]["warp"] for stage in stages] == [0.24, 0.0, 0.0]
    assert [stage.config["discriminator"]["name"] for stage in stages] == ["none", "none", "patch"]
    assert [s.start for s in from_iteration(stages, 3)] == [2, 4]
    assert [s.start for s in from_iteration(stages, 4)] == [4]
    assert len(read_stages(configure(workspace))) == 1


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("[{from:4,augment.warp:0},{from:2,augment.warp:1}]", r"stages: expected entries of from:"),
        ("[{augment.warp:0}]", r"stages: expected entries of from:"),
        ("[5]", r"stages: expected entries of from:"),
        ("[{from:4,model.resolution:64}]", r"stages: from 4: model\.resolution: a stage cannot"),
        ("[{from:4,augment.wrap:0}]", r"stages: from 4: augment\.wrap: "),
        ("[{from:4,augment.warp:much}]", r"stages: from 4: augment\.warp: "),
        ("[{from:4,discriminator.name:gan}]", r"discriminator\.name=gan: expected one of"),
    ],
)
def test_mistakes_are_said_before_anything_is_trained(configure, workspace, stages, message):
    with pytest.raises(UserError, match=message):
        read_stages(configure(workspace, f"stages={stages}"))
