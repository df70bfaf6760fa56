"""Optimisers against their papers in float64, their schedules, and their state in bfloat16."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from odfs_jax.config import OptimizerConfig
from odfs_jax.errors import UserError
from odfs_jax.training.optimizers import (
    gradient_norms,
    learning_rate,
    make_optimizer,
    make_thin,
    round_stochastically,
)
from odfs_jax.training.step import NetState, TrainState


@pytest.fixture
def optimizer():
    """The schema's own defaults, so that a new setting needs no change here."""
    return dataclasses.asdict(OptimizerConfig(name="adam", learning_rate=0.5, b1=0.5))


def rates(config, iterations, count):
    """The learning rates of the first updates: Adam's first-sign steps on a gradient of one."""
    tx = make_optimizer(config, iterations)
    state, found = tx.init(jnp.zeros(())), []
    update_once = jax.jit(tx.update)
    for _ in range(count):
        update, state = update_once(jnp.ones(()), state)
        found.append(-float(update))
    return found


@pytest.mark.parametrize("changes", [{}, {"warmup": 3}, {"schedule": "cosine", "warmup": 1}])
def test_the_rate_that_is_shown_is_the_one_of_the_step(optimizer, changes):
    config = optimizer | changes
    shown = [learning_rate(config, 9, step) for step in range(1, 7)]
    np.testing.assert_allclose(shown, rates(config, 9, 6), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 5.0),
        ({"moments": "bfloat16"}, 5.0),
        ({"clip_norm": 1.0}, 1.0),
        ({"name": "adabelief"}, 5.0),
        ({"name": "adabelief_2020"}, 5.0),
        ({"name": "soap"}, 5.0),
        ({"name": "adafactor"}, None),  # a mean of steps, not of gradients
        ({"name": "rmsprop"}, None),
    ],
)
def test_the_norm_of_a_gradient_is_found_in_the_optimizers_state(optimizer, changes, expected):
    """A gradient that stays the same, (3, 4) in all: its running mean becomes it."""
    params = {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(1)}
    grads = {"kernel": jnp.zeros((2, 3)).at[1, 1].set(3.0), "bias": jnp.full(1, -4.0)}
    tx = make_optimizer(optimizer | changes, 0)
    opt, update = tx.init(params), jax.jit(tx.update)
    for _ in range(12):
        _, opt = update(grads, opt, params)
    state = TrainState({"net": NetState(params, opt)}, jax.random.key(0), jnp.int32(12))
    norms = gradient_norms(state)
    if expected is None:
        assert norms == {}
    else:
        assert float(norms["net"]) == pytest.approx(expected, rel=0.02)


def test_schedules(optimizer):
    constant = optimizer | {"schedule": "constant", "warmup": 0}
    np.testing.assert_allclose(rates(constant, 0, 3), [0.5] * 3, rtol=1e-4)
    warm = optimizer | {"schedule": "constant", "warmup": 2}
    np.testing.assert_allclose(rates(warm, 0, 4), [0, 0.25, 0.5, 0.5], rtol=1e-4)
    cosine = optimizer | {"schedule": "cosine", "warmup": 0}
    np.testing.assert_allclose(
        rates(cosine, 4, 4), 0.25 * (1 + np.cos(np.pi * np.arange(4) / 4)), rtol=1e-4
    )


@pytest.mark.parametrize(
    ("changes", "iterations", "message"),
    [
        (
            {"name": "sgd"},
            9,
            r"optimizer\.name=sgd: expected one of adam, adabelief, .*soap",
        ),
        ({"name": "soap", "moments": "bfloat16"}, 9, "soap's bases need float32"),
        ({"moments": "int8"}, 9, r"optimizer\.moments=int8: expected one of float32, bfloat16"),
        ({"schedule": "linear"}, 9, r"optimizer\.schedule=linear: expected constant or cosine"),
        ({"schedule": "cosine"}, 0, r"expected iterations above optimizer\.warmup=5, .*=0"),
        ({"schedule": "cosine"}, 5, r"expected iterations above optimizer\.warmup=5"),
    ],
)
def test_optimizer_mistakes_name_the_key(optimizer, changes, iterations, message):
    with pytest.raises(UserError, match=message):
        make_optimizer(optimizer | {"schedule": "constant", "warmup": 5} | changes, iterations)


def adam(gradients, rate, b1, b2):
    """Kingma and Ba, 2015, algorithm 1."""
    m = v = 0.0
    for t, g in enumerate(gradients, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        yield -rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + 1e-8)


def adabelief(gradients, rate, b1, b2):
    """Zhuang et al., 2020, algorithm 2."""
    m = s = 0.0
    for t, g in enumerate(gradients, 1):
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * (g - m) ** 2 + 1e-16
        yield -rate * (m / (1 - b1**t)) / (np.sqrt(s / (1 - b2**t)) + 1e-16)


def adafactor(gradients, rate, b1, b2):
    """Shazeer and Stern, 2018, algorithm 4 without relative steps; no momentum, `b1` is 0."""
    row = column = 0.0
    for t, g in enumerate(gradients, 1):
        decay, square = 1 - t**-0.8, g**2 + 1e-30
        row = decay * row + (1 - decay) * square.mean(1, keepdims=True)
        column = decay * column + (1 - decay) * square.mean(0, keepdims=True)
        update = g / np.sqrt(row * column / row.mean())
        yield -rate * update / max(1, np.sqrt((update**2).mean()))


PAPERS = {"adam": (adam, 0.5), "adabelief": (adabelief, 0.9), "adafactor": (adafactor, 0.0)}


@pytest.mark.parametrize("name", PAPERS)
@pytest.mark.parametrize("moments", ["float32", "bfloat16"])
def test_updates_are_the_papers(optimizer, name, moments):
    """bfloat16 keeps two to three digits of the state, and its errors do not add up."""
    paper, b1 = PAPERS[name]
    config = optimizer | {"name": name, "b1": b1, "moments": moments, "learning_rate": 1e-3}
    tx = make_optimizer(config, 0)
    gradients = np.random.default_rng(0).normal(0.3, 1.0, (6, 128, 160))
    state, update_once = tx.init(jnp.zeros((128, 160))), jax.jit(tx.update)
    for gradient, expected in zip(gradients, paper(gradients, 1e-3, b1, 0.999), strict=True):
        update, state = update_once(jnp.float32(gradient), state, jnp.zeros((128, 160)))
        tolerance = 5e-5 if moments == "float32" else 0.02
        assert np.abs(update - expected).max() < tolerance * np.abs(expected).max()


@pytest.mark.parametrize(
    ("changes", "per_parameter"),
    [
        ({"name": "adam"}, 8),
        ({"name": "adam", "moments": "bfloat16"}, 4),
        ({"name": "adabelief"}, 8),
        ({"name": "adafactor", "b1": 0.0}, 0.06),
        ({"name": "adafactor", "b1": 0.5}, 4.06),
    ],
)
def test_bytes_of_state_for_a_parameter(optimizer, changes, per_parameter):
    state = jax.eval_shape(make_optimizer(optimizer | changes, 0).init, jnp.zeros((512, 256)))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    assert size <= per_parameter * 512 * 256 + 16


def test_rounding_keeps_the_mean():
    """Over all thresholds each value is rounded up as often as its dropped bits say."""
    values = np.float32([1.0, 1.001, -1.001, 3.3e-12, 0.0, 65535.9])
    thresholds = np.arange(0, 1 << 16, 8, dtype=np.uint16)
    found = np.float64(jax.vmap(lambda t: round_stochastically(jnp.asarray(values), t))(thresholds))
    np.testing.assert_allclose(found.mean(0), values, rtol=4e-6)
    for value, results in zip(values, found.T, strict=True):
        assert len(set(results)) <= 2  # the two neighbours
        assert np.abs(results - value).max() <= 2**-7 * abs(value)


def test_a_slow_moment_arrives_in_bfloat16(optimizer):
    """From 1 to 0.01 by 0.1 % an update: rounding to nearest would never leave 1."""
    tx = make_optimizer(optimizer | {"moments": "bfloat16", "b1": 0.0}, 0)
    params = jnp.zeros(50)
    state = tx.init(params)
    _, state = jax.jit(tx.update)(jnp.full(50, np.sqrt(1000.0)), state, params)
    assert float(optax.tree_utils.tree_get(state, "nu")[0]) == pytest.approx(1.0, rel=0.01)

    def quiet(state, _):
        return tx.update(jnp.full(50, 0.1), state, params)[1], None

    state, _ = jax.jit(lambda s: jax.lax.scan(quiet, s, length=3000))(state)
    expected = 0.01 + (1 - 0.01) * 0.999**3000
    assert float(optax.tree_utils.tree_get(state, "nu").mean()) == pytest.approx(expected, rel=0.1)
    nearest = jnp.bfloat16(1.0) * jnp.float32(0.999).astype(jnp.bfloat16)
    assert float(nearest) == 1.0  # what is avoided


@pytest.mark.parametrize("name", ["adam", "adabelief"])
def test_half_is_no_costlier_than_other_moments(optimizer, name):
    """b1 = 0.5 made XLA:CPU compute the running mean twice, from a copy of the old one."""

    def temporaries(b1):
        tx = make_optimizer(optimizer | {"name": name, "b1": b1}, 0)

        def step(params, state, x):
            gradients = jax.grad(lambda p: jnp.mean(jnp.tanh(jnp.tanh(x @ p) @ p) ** 2))(params)
            updates, state = tx.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

        params = jnp.ones((256, 256))
        lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, tx.init(params), params[:8])
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporaries(0.5) == temporaries(0.9)


def soap(gradients, rate, b1, b2):
    """Vyas et al., 2025, algorithm 3, on the right side, the basis followed before each tenth."""
    basis, outer = np.eye(gradients.shape[2]), 0.0
    mean, square, changes = 0.0, 0.0, []
    for t, gradient in enumerate(gradients, 1):
        if t % 10 == 1:
            outer = b2**10 * outer + (1 - b2**10) * gradient.T @ gradient
            new = np.linalg.qr(outer @ basis)[0]
            basis, mean = new, mean @ basis.T @ new if t > 1 else 0.0
        rotated = gradient @ basis
        mean = b1 * mean + (1 - b1) * rotated
        square = b2 * square + (1 - b2) * rotated**2
        step = mean / (1 - b1**t) / (np.sqrt(square / (1 - b2**t)) + 1e-8)
        changes.append(-rate * step @ basis.T)
    return np.array(changes)


@pytest.mark.parametrize("shape", [(3, 3, 2, 6), (4, 30)], ids=["long", "wide"])
def test_soap_is_the_papers(optimizer, shape):
    gradients = np.random.default_rng(0).normal(size=(23, *shape)) * np.arange(1, shape[-1] + 1)
    matrices = gradients.reshape(len(gradients), -1, shape[-1])
    turned = matrices.shape[1] < matrices.shape[2]
    expected = soap(matrices.swapaxes(1, 2) if turned else matrices, 0.5, 0.5, 0.9)
    expected = (expected.swapaxes(1, 2) if turned else expected).reshape(gradients.shape)
    config = optimizer | {"name": "soap", "b2": 0.9, "schedule": "constant", "warmup": 0}
    tx, found = make_optimizer(config, 0), []
    state = tx.init({"kernel": jnp.zeros(shape), "bias": jnp.zeros(3)})
    update = jax.jit(tx.update)
    for gradient in gradients.astype(np.float32):
        changes, state = update({"kernel": gradient, "bias": gradient.ravel()[:3]}, state)
        found.append(changes)
    np.testing.assert_allclose([c["kernel"] for c in found], expected, atol=2e-3)
    biases = gradients.reshape(len(gradients), -1)[:, :3]
    np.testing.assert_allclose(
        [c["bias"] for c in found], list(adam(biases, 0.5, 0.5, 0.9)), atol=1e-4
    )


@pytest.mark.parametrize(
    ("name", "clip_norm", "expected"),
    [
        (
            *("adabelief_2020", None),
            [(0.9648642, -1.9648637), (0.9152902, -1.9152560), (0.8548895, -1.8547050)],
        ),
        (
            *("adabelief_2020", 1.0),
            [(0.9648711, -1.9648649), (0.9152710, -1.9152300), (0.8547305, -1.8545593)],
        ),
        (
            *("rmsprop", None),
            [(0.9683773, -1.9683772), (0.9457881, -1.9456097), (0.9270532, -1.9266337)],
        ),
    ],
)
def test_the_optimizers_of_deepfacelab_2_take_its_steps(optimizer, name, clip_norm, expected):
    """Its own figures for w0^2 + 3 w1^2."""
    own = {"name": name, "clip_norm": clip_norm, "learning_rate": 0.01, "b1": 0.9}
    tx = make_optimizer(optimizer | own, 0)
    w = jnp.array([1.0, -2.0])
    state = tx.init(w)
    for after in expected:
        updates, state = tx.update(jnp.array([2.0, 6.0]) * w, state, w)
        w = optax.apply_updates(w, updates)
        np.testing.assert_allclose(w, after, atol=2e-7)


def test_dropout_keeps_a_share_of_an_update_anew_each_time(optimizer):
    thin = make_thin(optimizer | {"dropout": 0.3})
    updates = {"a": jnp.ones((100, 100)), "b": jnp.ones((100, 100))}
    first, other = (thin(jax.random.key(n), jnp.int32(n), updates) for n in (0, 1))
    for kept in (first["a"], first["b"], other["a"]):
        assert set(np.unique(kept)) == {0.0, 1.0}
        assert np.mean(kept) == pytest.approx(0.3, abs=0.02)
    assert np.mean(first["a"] * first["b"]) == pytest.approx(0.09, abs=0.02)
    assert np.mean(first["a"] * other["a"]) == pytest.approx(0.09, abs=0.02)
    assert make_thin(optimizer) is None


def test_dropout_may_come_with_a_cosine(optimizer):
    thin = make_thin(optimizer | {"dropout": 1.0, "dropout_period": 500})
    factors = [
        float(thin(jax.random.key(0), jnp.int32(n), jnp.ones(1))[0]) for n in (0, 125, 250, 500)
    ]
    np.testing.assert_allclose(factors, [1, 0.5, 0, 1], atol=1e-6)
