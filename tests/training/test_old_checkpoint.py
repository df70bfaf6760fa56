"""A checkpoint that the code of 9245833 wrote, before networks had names, is gone on with.

tests/assets/checkpoint_9245833 is a real run of that code: 20 iterations of a tiny H64 with a mean
of the weights, on the faces that `make_workspace` writes.
"""

import logging
import shutil
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from odfs_jax.saved_model import load_model

ASSET = Path(__file__).parents[1] / "assets" / "checkpoint_9245833"
SETTINGS = (
    "model.width=0.001",
    "model.args.encoder=[128,256,512]",
    "model.args.decoder=[256,128]",
    "model.args.mask_decoder=[128,64]",
    "ema=0.9",
    "log_every=5",
    "preview_every=0",
)


@pytest.fixture(scope="module")
def old_state():
    """{path: numpy array} of the saved state, as orbax reads it without knowing what it is."""
    folder = (ASSET / "checkpoints" / "20" / "state").absolute()
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    tree = ocp.PyTreeCheckpointer().metadata(folder).item_metadata.tree
    args = jax.tree.map(lambda _: ocp.ArrayRestoreArgs(sharding=sharding), tree)
    state = ocp.PyTreeCheckpointer().restore(folder, restore_args=args)
    state["key"] = jax.random.key_data(state["key"])
    return flat(state)


def flat(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): np.asarray(x) for p, x in leaves}


@pytest.fixture
def old_model(workspace):
    """The model's folder in a workspace with the faces that it was trained on."""
    folder = workspace / "models" / "h64"
    shutil.copytree(ASSET, folder)
    return folder


def test_it_is_gone_on_with(old_model, old_state, run_training, read_checkpoint, caplog):
    """Steps, losses and the optimizer's moments go on from where they were."""
    caplog.set_level(logging.INFO, logger="odfs_jax")
    workspace = old_model.parent.parent
    run_training(workspace, *SETTINGS, "iterations=21")
    assert f"{old_model}: resuming at iteration 20" in caplog.messages
    assert not [line for line in caplog.messages if "begin" in line]  # nothing is started over
    state, config, history = read_checkpoint(old_model)
    assert list(state.nets) == ["autoencoder"] and int(state.step) == 21
    assert [step for step, _ in history.rows] == [5, 10, 15, 20, 21]
    losses = [sum(means.values()) for _, means in history.rows]
    assert losses[-1] < 1.05 * losses[-2] < losses[0]
    assert load_model(old_model).landmarkers == {"dlib68"}
    assert "src_eyes" not in config and config["objective"]["name"] == "autoencoder"

    net = state.nets["autoencoder"]
    now = {part: flat(getattr(net, part)) for part in ("params", "opt", "ema")}
    # Adam after one more step: counts are one higher, and nu' = 0.999 nu + 0.001 g^2.
    assert {int(v) for k, v in now["opt"].items() if k.endswith("count")} == {21}
    for part, values in now.items():
        for name, value in values.items():
            before = old_state[f"{part}/{name}"]
            assert value.shape == before.shape and value.dtype == before.dtype
            if part == "opt" and "/nu/" in name:
                assert (value >= (1 - 1e-6) * 0.999 * before).all()
                assert value.sum() < 2 * before.sum()
    moved = [np.abs(now["params"][n] - old_state[f"params/{n}"]).max() for n in now["params"]]
    assert 1e-4 < max(moved) < 5e-3  # a step of Adam is about the learning rate, 1e-3
    np.testing.assert_array_equal(jax.random.key_data(jax.random.wrap_key_data(state.key)),
                                  old_state["key"])  # fmt: skip


def test_conversion_gets_the_mean_of_its_weights_and_srcs_eyes(old_state):
    model = load_model(ASSET)
    assert model.step == 20 and model.config["net"] == "shared_encoder"
    params = flat(model.params)
    mean = {n.removeprefix("ema/"): v for n, v in old_state.items() if n.startswith("ema/")}
    assert params.keys() == mean.keys()
    for name, value in params.items():
        np.testing.assert_array_equal(value, mean[name])
    assert any((value != old_state[f"params/{name}"]).any() for name, value in params.items())
    assert model.landmarkers == frozenset()
    assert model.src_eyes.shape == (12, 2) and 0.2 < model.src_eyes.mean() < 0.8
