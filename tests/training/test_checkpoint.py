"""Where a run starts: from nothing, another model, or its own checkpoint with other settings."""

import logging
from contextlib import closing

import jax
import numpy as np
import pytest
from omegaconf import OmegaConf

from odfs_jax.config import compose
from odfs_jax.errors import UserError
from odfs_jax.nets import build_net
from odfs_jax.saved_model import (
    READY_MASKS,
    WEIGHTS,
    load_model,
    load_weights,
    restore_state,
    save_weights,
    shapes,
    steps_in,
)
from odfs_jax.training.checkpoint import DELETED, Checkpoints, check_start, start
from odfs_jax.training.history import History
from odfs_jax.training.objectives import make_objective


@pytest.fixture
def begin(configure, caplog, tmp_path):
    """begin(*overrides, folder=) -> (state, history, log lines) of a run about to start."""
    caplog.set_level(logging.INFO, logger="odfs_jax")

    def go(*more, folder=tmp_path):
        objective = make_objective(OmegaConf.to_container(configure(tmp_path, *more)))
        caplog.clear()
        with closing(Checkpoints(folder)) as checkpoints:
            check_start(checkpoints, objective)
            state, history = start(checkpoints, objective, jax.devices()[:1])
        return state, history, list(caplog.messages)

    return go


def same_bits(ours, theirs):
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return all(
        a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs
    )


@pytest.mark.slow
def test_a_run_that_changes_its_settings_goes_on(finished_run, begin):
    """Another optimizer, a mean, frozen parts: what the checkpoint has not begins at its step."""
    folder, _ = finished_run
    plain, history, _ = begin(folder=folder)
    state, again, lines = begin("optimizer=adafactor", "ema=0.99", "freeze=[*/bias]", folder=folder)
    assert same_bits(state.params, plain.params) and int(state.step) == 40 and again == history
    net = state.nets["autoencoder"]
    assert same_bits(net.ema, net.params)
    assert lines[1:] == [
        "optimizer or freeze has changed: the optimizer begins afresh",
        "ema: the mean of the weights begins here",
    ]
    counts = {int(leaf) for leaf in jax.tree.leaves(net.opt) if not leaf.ndim}
    assert counts == {0, 40}  # its own, and the learning rate's
    _, _, lines = begin("optimizer.clip_norm=1.0", "optimizer.learning_rate=1e-4", folder=folder)
    assert lines == [f"{folder}: resuming at iteration 40"]  # neither has a state of its own


def test_adams_moments_are_not_taken_for_those_of_adabelief(finished_run, begin):
    """Both states have the same names and shapes."""
    folder, _ = finished_run
    state, _, lines = begin("optimizer=adabelief", folder=folder)
    assert lines[1:] == ["optimizer or freeze has changed: the optimizer begins afresh"]
    net = state.nets["autoencoder"]
    assert not any(leaf.any() for leaf in jax.tree.leaves(net.opt) if leaf.ndim)
    assert same_bits(net.params, load_model(folder).params) and int(state.step) == 40


@pytest.mark.slow
def test_a_run_with_another_optimizer_learns_on(workspace, run_training, read_checkpoint):
    run_training(workspace, "iterations=1")
    folder = run_training(workspace, "iterations=2", "optimizer=adam_bf16", "ema=0.9")
    state, _, history = read_checkpoint(folder)
    assert int(state.step) == 2 and [step for step, _ in history.rows] == [1, 2]


def test_a_new_model_takes_over_what_fits(finished_run, begin, tmp_path):
    """From a model of half the width: only the biases of the last layers have the same shape."""
    folder, _ = finished_run
    theirs = load_model(folder).params
    fresh, _, _ = begin("model.width=0.0625", "ema=0.9")
    state, history, lines = begin("model.width=0.0625", "ema=0.9", f"init_from={folder}")
    assert history.rows == [] and int(state.step) == 0
    head, *rest = lines[1].split("\n    ")
    net, fresh_net = state.nets["autoencoder"], fresh.nets["autoencoder"]
    fitting = [name for name, shape in shapes(theirs).items() if shapes(net.params)[name] == shape]
    total = len(shapes(theirs))
    assert 0 < len(fitting) < total
    assert head == f"{folder}: {len(fitting)} of {total} parameters taken over"
    assert len(rest) == 2 * (total - len(fitting))
    kernel = next(name for name in shapes(theirs) if name.endswith("down_0/conv/kernel"))
    small, large = (" x ".join(map(str, shapes(p)[kernel])) for p in (theirs, net.params))
    assert small != large and {f"- {kernel} {small}", f"+ {kernel} {large}"} <= set(rest)
    for (path, ours), before, mean in zip(
        jax.tree_util.tree_leaves_with_path(net.params),
        jax.tree.leaves(fresh_net.params),
        jax.tree.leaves(net.ema),
        strict=True,
    ):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        other = theirs
        for part in name.split("/"):
            other = other[part]
        np.testing.assert_array_equal(ours, other if name in fitting else before)
        np.testing.assert_array_equal(mean, ours)
    assert same_bits(net.opt, fresh_net.opt)


@pytest.mark.slow
def test_the_same_network_is_taken_over_whole_and_only_by_a_new_model(
    finished_run, begin, tmp_path
):
    folder, _ = finished_run
    state, _, lines = begin(f"init_from={folder}")
    theirs = load_model(folder).params
    assert same_bits(state.params["autoencoder"], theirs)
    total = len(shapes(theirs))
    assert lines[1] == f"{folder}: {total} of {total} parameters taken over"
    _, _, lines = begin(f"init_from={tmp_path / 'none'}", folder=folder)
    assert lines[0] == f"{folder}: resuming at iteration 40"
    assert lines[1] == f"init_from={tmp_path / 'none'} is for new models only: not read"


def test_weights_of_a_file_are_taken_over(finished_run, begin, tmp_path):
    """As float16 has them; a file's other arrays are told and left."""
    theirs = load_model(finished_run[0]).params
    weights = tmp_path / "weights.npz"
    save_weights(weights, theirs | {"decoder_both": {"kernel": np.ones(3)}})
    state, _, lines = begin(f"init_from={weights}")
    halves = jax.tree.map(lambda leaf: np.asarray(leaf, np.float16).astype(np.float32), theirs)
    assert same_bits(state.params["autoencoder"], halves)
    total = len(shapes(theirs))
    told = f"{weights}: {total} of {total} parameters taken over\n    - decoder_both/kernel 3"
    assert lines[1] == told


@pytest.mark.parametrize("values", [np.array([np.nan]), np.array([1])])
def test_a_file_of_other_things_is_refused(begin, tmp_path, values):
    np.savez(tmp_path / "weights.npz", a=values)
    with pytest.raises(UserError, match=r"weights.npz: 'a' holds no finite numbers"):
        begin(f"init_from={tmp_path / 'weights.npz'}")


@pytest.mark.parametrize("name", ["nobody", "../weights/ada_ben_80"])
def test_weights_that_do_not_come_with_the_program(begin, name):
    with pytest.raises(UserError, match=f"init_from=bundled:{name}.*bundled:chi_dele_80"):
        begin(f"init_from=bundled:{name}")


@pytest.mark.parametrize("file", sorted(WEIGHTS.glob("*.npz")), ids=lambda file: file.stem)
def test_bundled_weights_fit_the_demos_model(file):
    config = OmegaConf.to_container(compose("train", ["experiment=demo"]).model, resolve=True)
    net = build_net(config)
    like = jax.eval_shape(net.init, jax.random.key(0), *net.blank())["params"]
    weights = load_weights(f"bundled:{file.stem}")
    assert {name: values.shape for name, values in weights.items()} == shapes(like)


@pytest.mark.parametrize("file", sorted(READY_MASKS.glob("*.npz")), ids=lambda file: file.stem)
def test_ready_made_masks_are_of_a_model_that_can_be_trained(file):
    model = load_model(file)
    config = OmegaConf.to_container(compose("train", ["model=facemask_128"]).model, resolve=True)
    assert model.config == config and model.makes_masks and model.step > 0
    weights = {name: values.shape for name, values in load_weights(f"bundled:{file.stem}").items()}
    assert weights == shapes(model.params) and file.stat().st_size < 15e6


@pytest.mark.parametrize("name", ["[1] a*b?", "{x} 50% #2 'é'"])
def test_a_folder_may_have_any_name(tmp_path, name):
    """Letters of a pattern too: orbax would write half of a checkpoint, and say nothing."""
    state = {"nets": {"autoencoder": {"params": {"bias": jax.numpy.arange(3.0)}}}}
    with closing(Checkpoints(tmp_path / name)) as checkpoints:
        checkpoints.save(1, state, {}, {}, History())
        checkpoints.finish()
        found = restore_state(checkpoints.latest_folder, state)
    assert found["nets"]["autoencoder"]["params"]["bias"].tolist() == [0, 1, 2]


def test_a_backslash_is_refused_before_training(tmp_path):
    with pytest.raises(UserError, match="backslash"):
        Checkpoints(tmp_path / "a\\b")


def test_a_kill_while_an_old_checkpoint_is_deleted_leaves_no_half_of_it(tmp_path, monkeypatch):
    """It is renamed first: what a killed run had no time to delete, the next one deletes."""
    deleted = tmp_path / "checkpoints" / DELETED
    state = {"nets": {"autoencoder": {"params": {"bias": np.arange(3.0)}}}}
    with monkeypatch.context() as patch, closing(Checkpoints(tmp_path)) as checkpoints:
        patch.setattr("shutil.rmtree", lambda *_, **__: None)
        for step in range(1, 5):
            checkpoints.save(step, state, {}, {}, History())
        checkpoints.close()
        assert steps_in(tmp_path) == [3, 4]
        assert {path.name for path in deleted.iterdir()} == {"1", "2"}
        names = [{path.name for path in (deleted / step).iterdir()} for step in ("1", "2")]
        assert {"state", "config"} <= names[0] & names[1]
    with closing(Checkpoints(tmp_path)) as checkpoints:
        assert not deleted.exists() and checkpoints.latest() == 4
        checkpoints.save(5, state, {}, {}, History())
    assert steps_in(tmp_path) == [4, 5] and not deleted.exists()
