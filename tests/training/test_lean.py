"""Less memory, the same learning: a batch in parts, decoders recomputed, bfloat16; mean weights."""

from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import jaxprs_in_params
from omegaconf import OmegaConf

from odfs_jax.data.batches import make_batches
from odfs_jax.errors import UserError
from odfs_jax.runtime.distributed import replicated, split_over
from odfs_jax.training.checkpoint import Checkpoints, start
from odfs_jax.training.objectives import make_objective

STEPS = 4
DECAY = 0.3  # of the mean; reached at step 3


@pytest.fixture(scope="module")
def settings(make_workspace, configure):
    """The settings of a tiny run, and its facesets."""
    config = OmegaConf.to_container(configure(make_workspace(), "batch_size=8"))
    return config, make_objective(config).load_facesets()


def steps(settings, changes, count=STEPS, devices=1, tx=None):
    """The states before and after each of `count` steps, and their metrics, as numpy arrays."""
    config, facesets = settings
    objective = make_objective(config | changes)
    if tx is not None:
        objective.optimizers = {"autoencoder": tx}
    devices = jax.devices()[:devices]
    state = jax.jit(objective.init_state, out_shardings=replicated(devices))()
    step = objective.make_step(devices)
    batches = make_batches(facesets, jax.random.key(0), config["batch_size"], split_over(devices))
    found = [(weights(state), None)]
    for number in range(count):
        state, metrics = step(state, batches(number))
        found.append((weights(state), metrics))
    return found


def weights(state):
    """(parameters, their mean or None) as numpy arrays."""
    net = state.nets["autoencoder"]
    return jax.tree.map(np.array, (net.params, net.ema))


@pytest.fixture(scope="module")
def plain(settings):
    """SGD in one part, everything kept, float32; with a mean of the weights."""
    return steps(settings, {"ema": DECAY}, tx=optax.sgd(0.05))


def moved(found):
    """How far each parameter went, as one float64 vector."""
    first, last = (found[i][0][0] for i in (0, -1))
    return np.concatenate([
        np.ravel(np.float64(b) - a)
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(last), strict=True)
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "devices"),
    [
        ({"accumulate": 2}, 1),
        pytest.param({"remat": "decoders"}, 1, marks=pytest.mark.slow),
        pytest.param({"accumulate": 2}, 2, marks=pytest.mark.slow),
        pytest.param({"accumulate": 4, "remat": "decoders"}, 1, marks=pytest.mark.slow),
    ],
)
def test_the_result_is_that_of_one_big_batch(settings, plain, changes, devices):
    found = steps(settings, changes, devices=devices, tx=optax.sgd(0.05))
    assert jax.tree.structure(found[-1][0][0]) == jax.tree.structure(plain[-1][0][0])
    expected = moved(plain)
    assert np.linalg.norm(expected) > 0.01
    assert np.linalg.norm(moved(found) - expected) < 1e-3 * np.linalg.norm(expected)
    for name, value in plain[-1][1].items():
        assert float(found[-1][1][name]) == pytest.approx(float(value), rel=1e-5)


@pytest.mark.slow
def test_bfloat16_learns_what_float32_learns(settings, plain):
    """Parameters, outputs and losses stay float32; the way taken is the same within its digits."""
    found = steps(settings, {"precision": "bfloat16"}, tx=optax.sgd(0.05))
    (params, _), metrics = found[-1]
    assert {leaf.dtype for leaf in jax.tree.leaves((params, metrics))} == {np.dtype(np.float32)}
    expected = moved(plain)
    apart = np.linalg.norm(moved(found) - expected)
    assert 0 < apart < 0.08 * np.linalg.norm(expected)
    for name, value in plain[-1][1].items():
        assert float(metrics[name]) == pytest.approx(float(value), rel=0.01)


def test_bfloat16_is_what_the_layers_compute_in(settings):
    config, _ = settings
    for precision in ("float32", "bfloat16"):
        net = make_objective(config | {"precision": precision}).net
        params = jax.eval_shape(net.init, jax.random.key(0), *net.blank())
        program = jax.make_jaxpr(net.apply)(params, *net.blank())
        kinds = [kind for eqn in equations(program.jaxpr) for kind in multiplied(eqn)]
        assert kinds and set(kinds) == {np.dtype(precision)}


def equations(jaxpr):
    """Those of a program and of all programs in it."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jaxprs_in_params(eqn.params):
            yield from equations(inner)


def multiplied(eqn):
    """The types of what a convolution or a matrix product multiplies."""
    if eqn.primitive.name in ("conv_general_dilated", "dot_general"):
        return [operand.aval.dtype for operand in eqn.invars]
    return []


def test_the_mean_of_the_weights_follows_its_equation(plain):
    """mean <- d mean + (1 - d) weights, d = min(decay, (1 + t) / (10 + t)), in float64."""
    (first, mean), _ = plain[0]
    expected = jax.tree.map(np.float64, first)
    assert jax.tree.all(jax.tree.map(np.array_equal, first, mean))
    for number, ((params, mean), _) in enumerate(plain[1:]):
        d = min(DECAY, (1 + number) / (10 + number))
        expected = jax.tree.map(lambda e, p, d=d: d * e + (1 - d) * p, expected, params)
        for ours, theirs in zip(jax.tree.leaves(mean), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "change",
    [
        ["optimizer=adafactor"],
        pytest.param(["optimizer=adam_bf16", "freeze=[shared]"], marks=pytest.mark.slow),
        pytest.param(["optimizer=adabelief", "accumulate=2"], marks=pytest.mark.slow),
    ],
)
def test_stopped_and_resumed_is_unbroken(change, settings, configure, save_state, tmp_path):
    """A step, a checkpoint, another one: bit for bit two in one go, moments and mean included."""
    config, facesets = settings
    config = OmegaConf.to_container(configure(tmp_path, "ema=0.9", *change))
    objective, devices = make_objective(config), jax.devices()[:1]
    batches = make_batches(facesets, jax.random.key(0), config["batch_size"], split_over(devices))
    step = objective.make_step(devices)
    state, _ = step(jax.jit(objective.init_state, out_shardings=replicated(devices))(), batches(0))
    save_state(tmp_path, state, config, [[1, {}]])
    state, _ = step(state, batches(1))
    with closing(Checkpoints(tmp_path)) as checkpoints:
        resumed, history = start(checkpoints, objective, devices)
    assert history.rows == [[1, {}]] and int(resumed.step) == 1
    resumed, _ = step(resumed, batches(1))
    assert jax.tree.structure(resumed) == jax.tree.structure(state)
    for ours, theirs in zip(jax.tree.leaves(resumed), jax.tree.leaves(state), strict=True):
        if not jnp.issubdtype(ours.dtype, jax.dtypes.prng_key):
            assert ours.dtype == theirs.dtype
            assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()
    assert jax.random.key_data(resumed.key).tolist() == jax.random.key_data(state.key).tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "float16"}, "precision=float16: expected one of float32, bfloat16"),
        ({"remat": "all"}, "remat=all: expected one of none, decoders"),
        ({"ema": 1.0}, r"ema=1\.0: expected a decay between 0 and 1"),
        ({"ema": 0.0}, r"ema=0\.0: expected a decay"),
    ],
)
def test_mistakes_name_the_key(settings, changes, message):
    with pytest.raises(UserError, match=message):
        make_objective(settings[0] | changes)


def total(metrics):
    """Without the parts of sums."""
    return sum(value for name, value in metrics.items() if "/" not in name)


@pytest.mark.slow
def test_bfloat16_reaches_float32s_loss(settings):
    """300 iterations of Adam: the loss of the last 30 within 2 %."""
    losses = {}
    for precision in ("float32", "bfloat16"):
        found = steps(settings, {"precision": precision}, count=300)
        tail = jnp.stack([total(metrics) for _, metrics in found[-30:]])
        losses[precision] = float(tail.mean())
        assert losses[precision] < 0.5 * float(total(found[1][1]))
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)
