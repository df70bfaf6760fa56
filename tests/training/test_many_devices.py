"""Many devices: one program, one state. That they learn the same: test_step.py."""

import jax
import numpy as np
import pytest
from omegaconf import OmegaConf

from odfs_jax.data.batches import batch_shapes, make_batches
from odfs_jax.runtime.distributed import replicated, split_over
from odfs_jax.training.objectives import make_objective

BATCH = 8


@pytest.fixture(scope="module")
def tiny(make_workspace, configure):
    """(objective, facesets) of a tiny run."""
    objective = make_objective(OmegaConf.to_container(configure(make_workspace())))
    return objective, objective.load_facesets()


@pytest.mark.slow
def test_every_device_holds_the_same_state_after_fifty_steps_of_adam(tiny):
    """Bit for bit: parameters, moments, key and counters."""
    objective, facesets = tiny
    devices = jax.devices()[:8]
    state = jax.device_put(jax.jit(objective.init_state)(), replicated(devices))
    step = objective.make_step(devices)
    batches = make_batches(facesets, jax.random.key(0), BATCH, split_over(devices))
    for number in range(50):
        state, _ = step(state, batches(number))
    assert int(state.step) == 50
    for leaf in jax.tree.leaves(state.replace(key=jax.random.key_data(state.key))):
        first, *others = (np.asarray(shard.data).tobytes() for shard in leaf.addressable_shards)
        assert len(others) == 7 and all(other == first for other in others)


@pytest.mark.slow
def test_the_program_does_not_grow_with_the_devices(tiny):
    """As traced, and as compiled for each device, with as many pairs for each."""
    objective, facesets = tiny
    traced, compiled = {}, {}
    for count in (1, 2, 8):
        devices = jax.devices()[:count]
        copies = replicated(devices)
        state = jax.tree.map(
            lambda a, where=copies: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where),
            jax.eval_shape(objective.init_state),
        )
        batch = batch_shapes(facesets, count, split_over(devices))
        lowered = objective.make_step(devices).lower(state, batch)
        traced[count] = lowered.as_text()
        if count > 1:
            compiled[count] = lowered.compile().as_text()
    lines = {count: len(text.splitlines()) for count, text in traced.items()}
    assert lines[1] <= lines[2] == lines[8] and lines[1] > 1000  # one has nothing to exchange
    assert len(traced[8]) < 1.01 * len(traced[2])
    assert len(compiled[8]) < 1.02 * len(compiled[2])
