"""The pmap step: the same on any number of devices, donated, compiled once."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from omegaconf import OmegaConf

from odfs_jax.data.batches import make_batches
from odfs_jax.runtime.distributed import replicated, split_over
from odfs_jax.training.objectives import make_objective

STEPS, BATCH = 4, 8


@pytest.fixture(scope="module")
def tiny(make_workspace, configure):
    """(objective, facesets) of a tiny run that learns by SGD."""
    objective = make_objective(OmegaConf.to_container(configure(make_workspace())))
    objective.optimizers = {"autoencoder": optax.sgd(0.05)}
    return objective, objective.load_facesets()


def steps(tiny, devices):
    """(state, metrics) before and after each step of a run on `devices`."""
    objective, facesets = tiny
    one = jax.jit(objective.init_state, out_shardings=replicated(devices[:1]))
    state = jax.device_put(one(), replicated(devices))  # without a compile for each device count
    batches = make_batches(facesets, jax.random.key(0), BATCH, split_over(devices))
    step = objective.make_step(devices)
    yield state, None
    for number in range(STEPS):
        state, metrics = step(state, batches(number))
        yield state, metrics


def all_steps(tiny, count):
    """(params at first, state at last, metrics) of a run on `count` devices."""
    states = steps(tiny, jax.devices()[:count])
    first = jax.tree.map(np.array, next(states)[0].params)
    *_, (state, metrics) = states
    return first, state, metrics


@pytest.fixture(scope="module")
def trained(tiny):
    """{devices: `all_steps`} of SGD on 1, 2 and 4 devices."""
    return {count: all_steps(tiny, count) for count in (1, 2, 4)}


def flat(tree):
    return np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)])


def assert_same(found, expected):
    """The parameters, and how far they moved, are those of another number of devices."""
    first, one, metrics = expected
    _, many, metrics_of_many = found
    for ours, theirs in zip(jax.tree.leaves(many.params), jax.tree.leaves(one.params), strict=True):
        ours, theirs = np.float64(ours), np.float64(theirs)
        assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs) + 1e-7
    moved = flat(one.params) - flat(first)
    assert np.linalg.norm(moved) > 1e-3 * np.linalg.norm(flat(first))
    apart = flat(many.params) - flat(one.params)
    assert np.linalg.norm(apart) < 1e-3 * np.linalg.norm(moved)
    for name, value in metrics.items():
        assert float(metrics_of_many[name]) == pytest.approx(float(value), rel=1e-5)


@pytest.mark.parametrize("count", [2, 4])
def test_more_devices_give_the_same_parameters(trained, count):
    assert_same(trained[count], trained[1])


@pytest.fixture(scope="module")
def judged(make_workspace, configure):
    """(objective, facesets) of a tiny run with discriminators of faces and of codes, by SGD."""
    small = ("discriminator=unet", "discriminator.patch_size=3", "discriminator.dims=4")
    settings = configure(make_workspace(), *small, "loss.true_face=0.1")
    objective = make_objective(OmegaConf.to_container(settings))
    objective.optimizers = dict.fromkeys(objective.nets, optax.sgd(0.05))
    return objective, objective.load_facesets()


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_discriminators_are_the_same_on_more_devices(judged, count):
    found, expected = all_steps(judged, count), all_steps(judged, 1)
    assert set(found[1].nets) == {"autoencoder", "discriminator", "code_discriminator"}
    assert_same(found, expected)
    for name, one in expected[1].params.items():
        moved = flat(one) - flat(expected[0][name])
        assert np.linalg.norm(moved) > 1e-4 * np.linalg.norm(flat(one)), name


@pytest.mark.parametrize("count", [2, 4])
def test_every_device_holds_the_same_state(trained, count):
    _, state, _ = trained[count]
    for leaf in jax.tree.leaves(state.params):
        copies = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(copies) == count and copies[0].shape == leaf.shape
        for copy in copies[1:]:
            np.testing.assert_array_equal(copy, copies[0])


def test_metrics_are_the_terms_of_the_loss(trained):
    _, state, metrics = trained[1]
    sums = {"src_face", "src_mask", "dst_face", "dst_mask"}
    assert set(metrics) == sums | {"src_face/dssim", "dst_face/dssim", "total/autoencoder"}
    assert all(value.shape == () and value.dtype == jnp.float32 for value in metrics.values())
    assert int(state.step) == STEPS


@pytest.mark.parametrize("count", [1, 2])
def test_the_step_compiles_once_and_consumes_its_input(tiny, caplog, count):
    """The first state comes from init, the others from the step itself: all have one form."""
    states = steps(tiny, jax.devices()[:count])
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


def test_a_step_is_the_gradient_and_the_optimizers_update(tiny):
    """Bit for bit what `jax.grad` and optax give, written out plainly, over 12 steps of Adam."""
    objective, facesets = tiny
    device, tx = jax.devices()[:1], optax.adam(1e-3, b1=0.6)
    reference = make_objective(objective.config)
    reference.optimizers = {"autoencoder": tx}
    batches = make_batches(facesets, jax.random.key(0), BATCH, split_over(device))
    step = reference.make_step(device)

    def plain_step(params, opt, number, batch):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 1), number)
        keys = {}
        for place, side in enumerate(("dst", "src")):
            of_side = jax.random.fold_in(key, place)
            keys[side] = jax.vmap(lambda i, k=of_side: jax.random.fold_in(k, i))(jnp.arange(BATCH))

        def loss_fn(params):
            losses, _ = reference.losses({"autoencoder": params}, batch, keys, number)
            return losses["autoencoder"]

        updates, opt = tx.update(jax.grad(loss_fn)(params), opt, params)
        return optax.apply_updates(params, updates), opt

    state = jax.jit(reference.init_state, out_shardings=replicated(device))()
    params = jax.tree.map(jnp.copy, state.params["autoencoder"])
    opt = tx.init(params)
    plain = jax.pmap(plain_step, in_axes=(None, None, None, 0), out_axes=None, devices=device)
    with jax.numpy_dtype_promotion("standard"):
        for number in range(12):
            params, opt = plain(params, opt, jnp.int32(number), batches(number))
            state, _ = step(state, batches(number))
    for ours, theirs in zip(
        jax.tree.leaves(state.nets["autoencoder"]), jax.tree.leaves((params, opt)), strict=True
    ):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()
