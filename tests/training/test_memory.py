"""What a batch takes, what fits, and what is said when it does not."""

import copy
import dataclasses
import logging

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from odfs_jax.errors import UserError
from odfs_jax.training import memory, train
from odfs_jax.training.objectives import make_objective

MB = 10**6


@given(st.integers(0, 10**9), st.integers(1, 10**8), st.integers(1, 2 * 10**9), st.integers(1, 64))
def test_on_a_straight_line_three_compiles_find_the_largest(base, rise, free, most):
    asked = []

    def need(n):
        asked.append(n)
        return base + rise * n

    found = memory.largest_that_fits(need, free, most)
    assert found == max((n for n in range(1, most + 1) if base + rise * n <= free), default=0)
    assert len(asked) == len(set(asked)) <= 4 and all(1 <= n <= most for n in asked)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 100)), min_size=1), st.data())
def test_on_a_bent_line_the_answer_fits_and_is_near(lines, data):
    """The need is the largest of several straight lines, as the peak of a program is."""
    asked = []

    def need(n):
        asked.append(n)
        return max(base + rise * n for base, rise in lines)

    free = data.draw(st.integers(0, 8000))
    found = memory.largest_that_fits(need, free, 64)
    best = max((n for n in range(1, 65) if need(n) <= free), default=0)
    assert 0 <= found <= best
    if best >= 8:
        assert found >= 0.75 * best


@pytest.fixture(scope="module")
def planner(make_workspace, configure):
    """A planner for a tiny run with plenty of memory."""
    config = OmegaConf.to_container(configure(make_workspace()))
    objective = make_objective(config)
    facesets = objective.load_facesets()
    return memory.MemoryPlanner(objective, facesets, jax.devices()[:1], 10**12)


@pytest.fixture(scope="module")
def step(planner):
    return planner.objective.make_step(planner.devices)


@pytest.fixture(scope="module")
def needs(planner, step):
    return {size: planner.need(step, size) for size in (4, 8)}


def test_the_parts_of_the_need(planner, needs):
    state = jax.eval_shape(planner.objective.init_state)
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    need = needs[4]
    assert need.parameters == 4 * count
    assert 8 * count <= need.optimizer <= 8 * count + 100  # Adam's two moments, key and counters
    assert need.faces == sum(
        f.images.nbytes + f.store_from_model.nbytes for f in planner.facesets.values()
    )
    assert need.total == need.parameters + need.optimizer + need.activations + need.faces
    assert str(need).startswith(f"parameters {4 * count / 1e9:.2f}, optimizer ")


def test_activations_grow_with_the_batch(needs):
    """By the pictures in it at least: those shown, those wanted, those given."""
    pictures = 4 * 2 * 3 * 32 * 32 * 4 * 4
    assert pictures < needs[8].activations - needs[4].activations < 50 * pictures


@pytest.mark.slow
def test_devices_share_the_batch(planner, needs):
    two = dataclasses.replace(planner, devices=jax.devices()[:2])
    need = two.need(planner.objective.make_step(two.devices), 8)
    assert need.parameters == needs[4].parameters
    assert need.total == pytest.approx(needs[4].total, rel=0.1)


@pytest.fixture
def straight(monkeypatch):
    """A need of 10 MB and 1 MB a pair; twice that a pair without recomputed decoders, and 2 MB less
    with small moments."""

    def need(self, _step, size):
        times = 1 if self.objective.config["remat"] == "decoders" else 2
        optimizer = 2 if self.objective.config["optimizer"]["moments"] == "bfloat16" else 4
        return memory.Need(5 * MB, optimizer * MB, times * size * MB, MB)

    monkeypatch.setattr(memory.MemoryPlanner, "need", need)


@pytest.mark.parametrize(
    ("free", "remedy"),
    [(18, "remat=decoders"), (17, "remat=decoders optimizer.moments=bfloat16"), (15, None)],
)
def test_the_first_remedy_that_fits(planner, straight, free, remedy):
    assert dataclasses.replace(planner, free=free * MB).remedy(8) == remedy


@pytest.mark.parametrize(
    ("size", "room", "fits"),
    [
        (64, 43, r"takes 0\.14 GB \(parameters 0\.01,.*; what fits: batch_size=16$"),
        (20, 43, r"batch_size=20 .*: batch_size=16 or batch_size=20 with remat=decoders$"),
        (4, 11, r"what fits: nothing$"),
        ("auto", 11, r"batch_size=1 takes .* what fits: batch_size=1 with remat=decoders$"),
    ],
)
def test_a_batch_that_cannot_fit_is_refused_before_anything_is_made(
    workspace, run_training, straight, size, room, fits
):
    room /= (1 - memory.MARGIN) * 1000
    with pytest.raises(UserError, match=fits):
        run_training(workspace, f"batch_size={size}", f"hardware.memory_gb={room + 1e-5}")
    folder = workspace / "models" / "h64"
    assert not (folder / "config.yaml").exists() and not list(folder.glob("checkpoints/*"))


@pytest.mark.slow
def test_auto_takes_the_largest(workspace, run_training, straight, caplog):
    with caplog.at_level("INFO", logger="odfs_jax"):
        folder = run_training(
            workspace, "iterations=1", "batch_size=auto", "hardware.memory_gb=0.02"
        )
    assert OmegaConf.load(folder / "config.yaml").batch_size == 4
    assert "memory: batch_size=4 takes 0.02 GB, " in caplog.text
    assert "of them parameters 0.01, " in caplog.text
    assert caplog.text.count("GB stay free") == 1


def test_auto_has_an_end(planner, straight):
    assert planner.largest(None) == memory.MAX_AUTO_BATCH
    parts = copy.copy(planner.objective)
    parts.config = parts.config | {"accumulate": 3}
    assert (
        dataclasses.replace(planner, objective=parts).largest(None)
        == memory.MAX_AUTO_BATCH // 3 * 3
    )


@pytest.mark.slow
def test_the_step_is_compiled_once(workspace, run_training, caplog):
    """What the planner compiles is what the loop runs."""
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        run_training(workspace, "iterations=2")
    compiled = [m for m in caplog.messages if m.startswith("Finished XLA compilation of jit(_fun)")]
    assert len(compiled) == 1


class Failing:
    """A step that runs out of memory for real, at its fifth call, before or after its work."""

    def __init__(self, step, takes_the_state):
        self.step, self.calls, self.takes_the_state = step, 0, takes_the_state

    def __call__(self, state, batch):
        self.calls += 1
        if self.calls < 5:
            return self.step(state, batch)
        if self.takes_the_state:
            self.step(state, batch)
        return jax.block_until_ready(jax.jit(lambda: jnp.zeros((1 << 46,)))())


@pytest.mark.parametrize(
    ("lost", "saved_at"),
    [pytest.param(False, "iteration 4 is", marks=pytest.mark.slow), (True, "nothing was")],
)
def test_out_of_memory_saves_what_there_is(
    workspace, run_training, read_checkpoint, lost, saved_at
):
    message = f"ran out of memory with batch_size=4; {saved_at} saved; .*remat=decoders"
    with pytest.raises(UserError, match=message):
        run_training(workspace, "iterations=40", wrap_step=lambda step: Failing(step, lost))
    folder = workspace / "models" / "h64"
    if not lost:
        assert int(read_checkpoint(folder)[0].step) == 4
        run_training(workspace, "iterations=6")
        assert int(read_checkpoint(folder)[0].step) == 6


def test_other_errors_of_the_device_are_not_hidden(workspace, run_training, monkeypatch):
    def fail(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(train, "make_preview", fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        run_training(workspace, "iterations=1")
