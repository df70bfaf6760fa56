"""The pmap step: the same on any number of devices, donated, compiled once."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from omegaconf import OmegaConf

from odfs_jax.data.batches import make_batches
from odfs_jax.data.faceset import load_faceset
from odfs_jax.faces.spec import FaceSpec
from odfs_jax.faces.types import FaceType
from odfs_jax.losses import make_loss
from odfs_jax.nets import build_net
from odfs_jax.training.state import init_state, replicated, split_over
from odfs_jax.training.step import make_step

STEPS, BATCH = 4, 8


@pytest.fixture(scope="module")
def parts(make_workspace, configure):
    """(settings, network, loss, facesets) of a tiny run."""
    workspace = make_workspace()
    config = OmegaConf.to_container(configure(workspace))
    facesets = {
        side: load_faceset(workspace / side / "aligned", side, FaceSpec(FaceType.HALF, 32))
        for side in ("src", "dst")
    }
    return config, build_net(config["model"]), make_loss(config["loss"]), facesets


def steps(parts, devices, tx):
    """(state, metrics) before and after each step of a run on `devices`."""
    config, net, loss, facesets = parts
    one = jax.jit(lambda: init_state(net, tx, 0), out_shardings=replicated(devices[:1]))
    state = jax.device_put(one(), replicated(devices))  # without a compile for each device count
    batches = make_batches(facesets, jax.random.key(0), BATCH, split_over(devices))
    step = make_step(net, loss, tx, config["augment"], devices)
    yield state, None
    for number in range(STEPS):
        state, metrics = step(state, batches(number))
        yield state, metrics


@pytest.fixture(scope="module")
def trained(parts):
    """{devices: (params at first, params at last, metrics)} of SGD on 1, 2, 4 and 8 devices."""
    found = {}
    for count in (1, 2, 4, 8):
        states = steps(parts, jax.devices()[:count], optax.sgd(0.05))
        first = jax.tree.map(np.array, next(states)[0].params)
        *_, (state, metrics) = states
        found[count] = first, state, metrics
    return found


def flat(tree):
    return np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)])


@pytest.mark.parametrize("count", [2, 4, 8])
def test_more_devices_give_the_same_parameters(trained, count):
    first, one, metrics = trained[1]
    _, many, metrics_of_many = trained[count]
    for ours, theirs in zip(jax.tree.leaves(many.params), jax.tree.leaves(one.params), strict=True):
        ours, theirs = np.float64(ours), np.float64(theirs)
        assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)
    moved = flat(one.params) - flat(first)
    assert np.linalg.norm(moved) > 1e-3 * np.linalg.norm(flat(first))
    apart = flat(many.params) - flat(one.params)
    assert np.linalg.norm(apart) < 1e-3 * np.linalg.norm(moved)
    for name, value in metrics.items():
        assert float(metrics_of_many[name]) == pytest.approx(float(value), rel=1e-5)


@pytest.mark.parametrize("count", [2, 4, 8])
def test_every_device_holds_the_same_state(trained, count):
    _, state, _ = trained[count]
    for leaf in jax.tree.leaves(state.params):
        copies = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(copies) == count and copies[0].shape == leaf.shape
        for copy in copies[1:]:
            np.testing.assert_array_equal(copy, copies[0])


def test_metrics_are_the_terms_of_the_loss(trained):
    _, state, metrics = trained[1]
    assert set(metrics) == {"src_face", "src_mask", "dst_face", "dst_mask"}
    assert all(value.shape == () and value.dtype == jnp.float32 for value in metrics.values())
    assert int(state.step) == STEPS


@pytest.mark.parametrize("count", [1, 2])
def test_the_step_compiles_once_and_consumes_its_input(parts, caplog, count):
    """The first state comes from init, the others from the step itself: all have one form."""
    states = steps(parts, jax.devices()[:count], optax.sgd(0.05))
    before, _ = next(states)
    after, _ = next(states)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(after.params))
    with jax.log_compiles(), caplog.at_level(logging.DEBUG):
        for state, _ in states:
            jax.block_until_ready(state.params)
        assert not [m for m in caplog.messages if "ompil" in m]
        jax.jit(lambda x: x * 3.25 + 1)(jnp.arange(7.0)).block_until_ready()
        assert [m for m in caplog.messages if "ompil" in m]  # the log would have told
