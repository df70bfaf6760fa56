"""Numbers that overflow: the run stops before it saves them, or goes back and learns slower."""

import shutil
from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from odfs_jax.errors import UserError
from odfs_jax.saved_model import first_not_finite, load_model
from odfs_jax.training import train
from odfs_jax.training.checkpoint import Checkpoints
from odfs_jax.training.history import History
from odfs_jax.training.not_finite import NotFiniteError


@pytest.fixture
def healthy(finished_run, make_workspace):
    """A workspace with a model of 40 iterations."""
    workspace = make_workspace()
    shutil.copytree(finished_run[0], workspace / "models" / "h64")
    return workspace


def steps_in(workspace):
    return sorted(int(p.name) for p in (workspace / "models/h64/checkpoints").iterdir())


def spoiled(at, value=jnp.nan, part="params"):
    """A `wrap_step` after whose iteration `at` one number of the state's `part` is `value`."""

    def wrap(step):
        def spoil(state, batch):
            state, metrics = step(state, batch)
            if int(state.step) == at:
                net = state.nets["autoencoder"]
                leaves, tree = jax.tree.flatten(getattr(net, part))
                place = max(range(len(leaves)), key=lambda i: leaves[i].size)
                leaves[place] = leaves[place].ravel().at[0].set(value).reshape(leaves[place].shape)
                net = net.replace(**{part: jax.tree.unflatten(tree, leaves)})
                state = state.replace(nets={"autoencoder": net})
            return state, metrics

        spoil.lower = step.lower
        return spoil

    return wrap


@pytest.mark.parametrize(
    "change",
    [["log_every=10"], pytest.param(["log_every=0", "save_minutes=0"], marks=pytest.mark.slow)],
)
def test_a_rate_that_is_too_high_stops_and_nothing_of_it_is_saved(healthy, run_training, change):
    """With and without log lines; the message names iteration, loss, checkpoint and remedies."""
    with pytest.raises(NotFiniteError) as error:
        run_training(healthy, "iterations=90", "optimizer.learning_rate=1e30", *change)
    words = ("iteration 4", " no finite number", "iteration 4", " stays saved",
             "optimizer.learning_rate=5e+29", "optimizer.clip_norm=1.0")  # fmt: skip
    assert all(word in str(error.value) for word in words)
    assert steps_in(healthy)[0] == 40  # a later one may have been made while all was finite
    load_model(healthy / "models/h64")


@pytest.mark.parametrize("part", ["opt", pytest.param("params", marks=pytest.mark.slow)])
def test_a_state_that_no_loss_tells_of_is_not_saved(healthy, run_training, part):
    """The last iteration's update overflows: its loss was finite."""
    with pytest.raises(NotFiniteError, match=r"^iteration 42: .*autoencoder/.*40 stays saved"):
        run_training(healthy, "iterations=42", wrap_step=spoiled(42, jnp.inf, part))
    assert steps_in(healthy) == [40]


@pytest.mark.slow
def test_rollback_goes_on_from_the_last_checkpoint_at_half_the_rate(
    healthy, run_training, read_checkpoint, caplog
):
    """What it learns is what a run by hand with half the rate learns."""
    attempts = []

    def once(step):
        attempts.append(step)
        return spoiled(44)(step) if len(attempts) == 1 else step

    by_hand = healthy.parent / f"{healthy.name}_by_hand"
    shutil.copytree(healthy, by_hand)
    settings = ("iterations=50", "on_nan=rollback")
    folder = run_training(healthy, *settings, wrap_step=once)
    assert len(attempts) == 2
    assert "rollback: again with optimizer.learning_rate=0.0005; tries left: 2" in caplog.text
    expected = run_training(by_hand, "iterations=50", "optimizer.learning_rate=5e-4")
    ours, theirs = read_checkpoint(folder), read_checkpoint(expected)
    for mine, other in zip(jax.tree.leaves(ours[0]), jax.tree.leaves(theirs[0]), strict=True):
        np.testing.assert_array_equal(mine, other)
    assert ours[2] == theirs[2] and ours[1]["optimizer"]["learning_rate"] == 5e-4


@pytest.mark.slow
def test_rollback_gives_up_after_its_tries(healthy, run_training, caplog):
    attempts = []

    def wrap(step):
        attempts.append(step)
        return spoiled(41)(step)

    with pytest.raises(NotFiniteError, match=r"try optimizer.learning_rate=0.00025 "):
        run_training(healthy, "iterations=42", "on_nan=rollback", "nan_tries=1", wrap_step=wrap)
    assert len(attempts) == 2 and steps_in(healthy) == [40]
    assert "rollback: again with optimizer.learning_rate=0.0005; tries left: 0" in caplog.text
    with pytest.raises(UserError, match="on_nan=ignore: expected stop or rollback"):
        run_training(healthy, "iterations=42", "on_nan=ignore")


@pytest.mark.parametrize("value", [np.inf, pytest.param(np.nan, marks=pytest.mark.slow)])
def test_weights_that_are_not_finite_are_neither_converted_with_nor_trained_on(
    healthy, run_training, read_checkpoint, monkeypatch, value
):
    """As an older version saved them."""
    folder = healthy / "models" / "h64"
    state, config, _ = read_checkpoint(folder)
    net = state.nets["autoencoder"]
    leaves, tree = jax.tree.flatten(net.params)
    leaves[-1] = np.full_like(leaves[-1], value)
    nets = {"autoencoder": net.replace(params=jax.tree.unflatten(tree, leaves))}
    key = jax.random.wrap_key_data(jnp.array(state.key))
    with monkeypatch.context() as patch, closing(Checkpoints(folder)) as checkpoints:
        patch.setattr("odfs_jax.saved_model.first_not_finite", lambda _: None)
        metadata = {"src_eyes": np.zeros((12, 2)).tolist()}
        checkpoints.save(50, state.replace(nets=nets, key=key), config, metadata, History())
    for use in (load_model, lambda _: run_training(healthy, "iterations=60")):
        with pytest.raises(UserError, match=r"checkpoints/50: .*params/.* not finite.*before it"):
            use(folder)


def test_a_healthy_run_reads_nothing_back_between_its_log_lines(
    workspace, run_training, monkeypatch
):
    """The check of the state runs once a save; that of the losses where they are read anyway."""
    checked = []
    original = train.saved_model.first_not_finite
    monkeypatch.setattr(
        "odfs_jax.saved_model.first_not_finite",
        lambda tree: checked.append(1) or original(tree),
    )
    run_training(workspace, "iterations=20")
    assert len(checked) == 1


def test_the_first_leaf_that_is_not_finite_is_named():
    tree = {"a": jnp.ones(3), "b": {"c": jnp.array([1.0, jnp.inf])}, "n": jnp.int32(7)}
    assert first_not_finite(tree) == "b/c"
    assert first_not_finite({"key": jax.random.key(0), "a": jnp.ones(2, jnp.bfloat16)}) is None
    assert first_not_finite({"a": jnp.array(jnp.nan, jnp.bfloat16)}) == "a"
