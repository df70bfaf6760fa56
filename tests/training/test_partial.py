"""Parts of a network by name: frozen, taken over, begun afresh."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from odfs_jax.errors import UserError
from odfs_jax.training.partial import (
    at_step,
    check_patterns,
    freeze,
    matches,
    merge,
    patterns_of,
    reset,
)
from odfs_jax.training.step import NetState, TrainState

PARAMS = {
    "shared": {"down_0": {"kernel": jnp.ones((2, 3)), "bias": jnp.full(3, -0.0)}},
    "decoder_src": {"face": {"kernel": jnp.ones(3)}, "mask": {"kernel": jnp.ones(2)}},
    "decoder_dst": {"face": {"kernel": jnp.ones(3)}, "mask": {"kernel": jnp.ones(2)}},
}


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("decoder_src", "decoder_src/face/kernel", True),  # all below
        ("decoder_src/face", "decoder_src/face/kernel", True),
        ("decoder_src/face/kernel", "decoder_src/face/kernel", True),
        ("decoder_*", "decoder_dst/mask/kernel", True),
        ("*/mask", "decoder_dst/mask/kernel", True),
        ("*/mask", "decoder_dst/face/kernel", False),
        ("decoder", "decoder_src/face/kernel", False),  # a whole part, or nothing
        ("face", "decoder_src/face/kernel", False),  # from the start
        ("Shared", "shared/down_0/bias", False),
        ("*", "shared/down_0/bias", True),
        ("shared/down_?/bias", "shared/down_0/bias", True),
    ],
)
def test_patterns(pattern, name, expected):
    assert matches(name, [pattern]) == matches(name, ["nothing", pattern]) == expected
    assert not matches(name, [])


def test_a_pattern_may_begin_with_the_name_of_its_network():
    """One that does not is for the network that is exported."""
    patterns = ["decoder_src", "critic/layers_*", "*/mask", "autoencoder/shared", "critic"]
    nets = {"autoencoder", "critic"}
    own = {name: patterns_of(name, patterns, nets, "autoencoder") for name in nets}
    assert own == {
        "autoencoder": ["decoder_src", "*/mask", "shared"],
        "critic": ["layers_*", "*"],
    }


@pytest.mark.parametrize(
    ("pattern", "near"), [("decodr_src", "decoder_src"), ("shared/down_1", "shared/down_0")]
)
def test_a_pattern_for_nothing_is_refused_with_names_near_it(pattern, near):
    with pytest.raises(UserError, match=f"^freeze={pattern}: no such parameter; near it: .*{near}"):
        check_patterns("freeze", ["shared", pattern], PARAMS)
    with pytest.raises(UserError, match=r"near it: decoder_dst, decoder_src, shared$"):
        check_patterns("reset", ["§"], PARAMS)
    check_patterns("freeze", ["shared", "*/kernel"], PARAMS)


def test_frozen_parameters_keep_their_bits_and_have_no_moments():
    tx = freeze(optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)), ["shared"])
    state = tx.init(PARAMS)
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert sum(leaf.size for leaf in moments) == 2 * 10  # those of the decoders only

    @jax.jit
    def update(params, state):
        grads = jax.tree.map(lambda p: p + 1e3, params)  # a norm of which the frozen have no share
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    with jax.numpy_dtype_promotion("standard"):
        after, _ = update(PARAMS, state)
    frozen, before = (p["shared"]["down_0"] for p in (after, PARAMS))
    for name in ("kernel", "bias"):
        assert np.asarray(frozen[name]).tobytes() == np.asarray(before[name]).tobytes()
    np.testing.assert_allclose(after["decoder_src"]["face"]["kernel"], 0.9, rtol=1e-5)


def test_merging_takes_what_fits_and_lists_the_rest():
    others = {
        "shared": {"down_0": {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(4)}},
        "decoder_src": {"face": {"kernel": jnp.zeros(3)}, "mask": {"kernel": jnp.zeros(2)}},
        "inter": {"bias": jnp.zeros(1)},
    }
    merged, lines = merge(PARAMS, others)
    assert lines == [
        "+ decoder_dst/face/kernel 3",
        "+ decoder_dst/mask/kernel 2",
        "- inter/bias 1",
        "- shared/down_0/bias 4",
        "+ shared/down_0/bias 3",
    ]
    assert jax.tree.map(jnp.shape, merged) == jax.tree.map(jnp.shape, PARAMS)
    taken = {"kernel": 0.0, "bias": -0.0}
    for name, value in taken.items():
        np.testing.assert_array_equal(merged["shared"]["down_0"][name], value)
    np.testing.assert_array_equal(merged["decoder_src"]["mask"]["kernel"], 0)
    np.testing.assert_array_equal(merged["decoder_dst"]["mask"]["kernel"], 1)


def test_the_same_network_is_taken_over_whole():
    merged, lines = merge(PARAMS, jax.tree.map(lambda p: p + 1, PARAMS))
    assert lines == []
    np.testing.assert_array_equal(merged["shared"]["down_0"]["kernel"], 2)


def test_reset_begins_afresh_with_the_learning_rate_where_it_was():
    tx = optax.adam(optax.linear_schedule(0.0, 1.0, 10))
    trained = jax.tree.map(lambda p: p + 5, PARAMS)
    moments = jax.tree.map(lambda x: x + 7, tx.init(PARAMS))
    nets = {name: NetState(trained, moments, ema=trained) for name in ("net", "other")}
    fresh_nets = {name: NetState(PARAMS, tx.init(PARAMS), ema=PARAMS) for name in nets}
    state = TrainState(nets, jax.random.key(0), jnp.int32(4))
    fresh = TrainState(fresh_nets, jax.random.key(0), jnp.int32(0))
    found = reset(state, fresh, {"net": ["decoder_*/face"], "other": []})
    assert found.nets["other"] is state.nets["other"]  # as it was, moments included
    net = found.nets["net"]
    for tree in (net.params, net.ema):
        np.testing.assert_array_equal(tree["decoder_dst"]["face"]["kernel"], 1)
        np.testing.assert_array_equal(tree["decoder_dst"]["mask"]["kernel"], 6)
        np.testing.assert_array_equal(tree["shared"]["down_0"]["kernel"], 6)
    adam, schedule = net.opt
    assert (int(adam.count), int(schedule.count), int(found.step)) == (0, 4, 4)
    assert not any(leaf.any() for leaf in jax.tree.leaves((adam.mu, adam.nu)))
    plain, plain_fresh = (
        whole.replace(nets={"net": whole.nets["net"].replace(ema=None)}) for whole in (state, fresh)
    )
    assert reset(plain, plain_fresh, {"net": ["shared"]}).nets["net"].ema is None


def test_schedules_are_found_wherever_they_are():
    tx = freeze(optax.chain(optax.identity(), optax.adam(optax.constant_schedule(0.1))), ["shared"])
    counts = [
        leaf for leaf in jax.tree.leaves(at_step(tx.init(PARAMS), jnp.int32(9))) if not leaf.ndim
    ]
    assert sorted(map(int, counts)) == [0, 9]
