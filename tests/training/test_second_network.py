"""A second network with an optimizer of its own: a toy critic beside the autoencoder.

It tells true faces from rebuilt ones by patches; from `STARTS_AT` on it learns, and the autoencoder
learns to deceive it. The product has none: this is what the step, the state and the checkpoints
promise to an objective that adds one.
"""

import logging
from contextlib import closing

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from omegaconf import OmegaConf

from odfs_jax.data.batches import make_batches
from odfs_jax.runtime.distributed import replicated, split_over
from odfs_jax.training.checkpoint import Checkpoints, start
from odfs_jax.training.objectives import make_objective
from odfs_jax.training.objectives.autoencoder import Autoencoder

BATCH = 8
WEIGHT = 0.1  # of what the critic says, for the autoencoder


class PatchCritic(nn.Module):
    """Faces [N, R, R, 3] to scores of overlapping patches [N, R/4, R/4, 1]; true faces above 0."""

    @nn.compact
    def __call__(self, faces):
        for features in (4, 8):
            faces = nn.leaky_relu(nn.Conv(features, (4, 4), strides=2)(faces), 0.2)
        return nn.Conv(1, (3, 3))(faces)


class WithCritic(Autoencoder):
    """The autoencoder, and a critic that begins at iteration `starts_at`."""

    def __init__(self, config, starts_at):
        super().__init__(config)
        self.starts_at = starts_at
        self.nets |= {"critic": PatchCritic()}
        own = config["optimizer"] | {"learning_rate": 1e-2}
        self.optimizers |= {"critic": self.optimizer("critic", own)}

    def init_params(self, key):
        faces = jnp.zeros((1, self.net.resolution, self.net.resolution, 3))
        params = self.nets["critic"].init(jax.random.fold_in(key, 1), faces)["params"]
        return super().init_params(key) | {"critic": params}

    def losses(self, params, batch, keys, step):
        targets, outputs = self.rebuild(params, batch, keys, step)
        loss, metrics = self.loss(outputs, targets, step)
        critic = self.nets["critic"].apply
        frozen = jax.lax.stop_gradient(params["critic"])

        def scores(params, faces):
            return critic({"params": params}, jnp.concatenate([faces[name] for name in targets]))

        true = {name: target["face"] for name, target in targets.items()}
        rebuilt = {name: outputs[name][0] for name in targets}
        deceived = nn.softplus(-scores(frozen, rebuilt)).mean()
        told_apart = (
            nn.softplus(-scores(params["critic"], true)).mean()
            + nn.softplus(scores(params["critic"], jax.lax.stop_gradient(rebuilt))).mean()
        )
        on = step >= self.starts_at
        metrics |= {"critic": told_apart, "deceived": deceived}
        return {
            "autoencoder": loss + jnp.where(on, WEIGHT, 0.0) * deceived,
            "critic": jnp.where(on, 1.0, 0.0) * told_apart,
        }, metrics


@pytest.fixture(scope="module")
def tiny(make_workspace, configure):
    """(settings, facesets) of a tiny run."""
    config = OmegaConf.to_container(
        configure(make_workspace(), f"batch_size={BATCH}", "data.brows=false")
    )
    return config, make_objective(config).load_facesets()


def run_steps(objective, facesets, count, devices=1, state=None):
    """The state after `count` steps, and the metrics of each."""
    devices = jax.devices()[:devices]
    if state is None:
        state = jax.jit(objective.init_state, out_shardings=replicated(devices))()
    batches = make_batches(facesets, jax.random.key(0), BATCH, split_over(devices))
    step, found, first = objective.make_step(devices), [], int(state.step)
    for number in range(first, first + count):
        state, metrics = step(state, batches(number))
        found.append({name: float(value) for name, value in metrics.items()})
    return state, found


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.fixture(scope="module")
def alone(tiny):
    """The autoencoder without a critic, after 6 steps."""
    config, facesets = tiny
    return run_steps(make_objective(config), facesets, 6)


@pytest.mark.parametrize(
    ("devices", "accumulate"),
    [
        (1, 1),
        pytest.param(2, 1, marks=pytest.mark.slow),
        pytest.param(1, 2, marks=pytest.mark.slow),
    ],
)
def test_a_critic_that_has_not_begun_changes_no_bit(tiny, alone, devices, accumulate):
    config, facesets = tiny
    config = config | {"accumulate": accumulate}
    critic = WithCritic(config, starts_at=100)
    state, metrics = run_steps(critic, facesets, 6, devices)
    if (devices, accumulate) == (1, 1):
        expected, without = alone
    else:
        expected, without = run_steps(make_objective(config), facesets, 6, devices)
    assert bits(state.nets["autoencoder"]) == bits(expected.nets["autoencoder"])
    fresh = jax.jit(critic.init_state)().params["critic"]
    assert bits(state.params["critic"]) == bits(fresh)
    for ours, theirs in zip(metrics, without, strict=True):
        assert {name: ours[name] for name in theirs} == theirs


@pytest.fixture(scope="module")
def with_critic(tiny):
    """(state, metrics) of 12 steps with a critic from the first one on."""
    config, facesets = tiny
    return run_steps(WithCritic(config, starts_at=0), facesets, 12)


def test_a_critic_that_has_begun_learns_and_so_does_the_autoencoder(tiny, with_critic):
    config, facesets = tiny
    state, metrics = with_critic
    assert metrics[-1]["critic"] < 0.97 * metrics[0]["critic"]
    assert metrics[-1]["src_mask"] < metrics[0]["src_mask"]
    plain, _ = run_steps(make_objective(config), facesets, 12)
    assert bits(state.params["autoencoder"]) != bits(plain.params["autoencoder"])


@pytest.mark.parametrize(
    ("devices", "accumulate"),
    [
        pytest.param(2, 1, marks=pytest.mark.slow),
        pytest.param(1, 2, marks=pytest.mark.slow),
        (2, 2),
    ],
)
def test_it_learns_the_same_on_two_devices_and_in_parts(tiny, with_critic, devices, accumulate):
    config, facesets = tiny
    critic = WithCritic(config | {"accumulate": accumulate}, starts_at=0)
    _, metrics = run_steps(critic, facesets, 12, devices)
    for ours, theirs in zip(metrics, with_critic[1], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


def test_stopped_and_resumed_is_unbroken(tiny, with_critic, save_state, tmp_path):
    """Both networks and both optimizers' moments come back bit for bit."""
    config, facesets = tiny
    critic = WithCritic(config, starts_at=0)
    state, _ = run_steps(critic, facesets, 5)
    save_state(tmp_path, state, config)
    with closing(Checkpoints(tmp_path)) as checkpoints:
        resumed, _ = start(checkpoints, critic, jax.devices()[:1])
    resumed, _ = run_steps(critic, facesets, 7, state=resumed)
    assert int(resumed.step) == 12
    assert bits(resumed.nets) == bits(with_critic[0].nets)


@pytest.mark.slow
def test_a_checkpoint_without_a_critic_gets_it_fresh(tiny, alone, save_state, tmp_path, caplog):
    """Switched on in the middle of a run, in one log line; the autoencoder goes on as it was."""
    config, facesets = tiny
    state, _ = run_steps(make_objective(config), facesets, 6)
    save_state(tmp_path, state, config, [[6, {}]])
    critic = WithCritic(config, starts_at=6)
    caplog.clear()
    with (
        closing(Checkpoints(tmp_path)) as checkpoints,
        caplog.at_level(logging.INFO, logger="odfs_jax"),
    ):
        resumed, history = start(checkpoints, critic, jax.devices()[:1])
    assert caplog.messages == [
        f"{tmp_path}: resuming at iteration 6",
        "critic: not in the checkpoint, begins fresh",
    ]
    assert history.rows == [[6, {}]] and int(resumed.step) == 6
    assert bits(resumed.nets["autoencoder"]) == bits(alone[0].nets["autoencoder"])
    assert bits(resumed.params["critic"]) == bits(jax.jit(critic.init_state)().params["critic"])
    after, metrics = run_steps(critic, facesets, 6, state=resumed)
    assert metrics[-1]["critic"] < metrics[0]["critic"]
    assert bits(after.params["critic"]) != bits(jax.jit(critic.init_state)().params["critic"])
