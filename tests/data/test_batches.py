"""Which faces a step gets, and that it does not matter where the facesets are kept."""

import logging
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from odfs_jax.data import batches
from odfs_jax.data.faceset import Faceset
from odfs_jax.training.state import split_over

draw = jax.jit(batches.draw, static_argnums=(2, 3))


def drawn(count, batch_size, steps, seed=0):
    """The faces of the first `steps` steps, one after the other."""
    key = jax.random.key(seed)
    return np.concatenate([draw(key, np.int32(s), count, batch_size) for s in range(steps)])


@pytest.mark.parametrize(
    ("count", "batch_size"),
    [(12, 4), (7, 4), (3, 8), (5, 5), (1, 4), (16, 16)],
    ids=["even", "crossing borders", "batch above set", "batch is set", "one face", "usual"],
)
def test_every_epoch_shows_every_face_once(count, batch_size):
    steps = -(-4 * count // batch_size)
    faces = drawn(count, batch_size, steps)
    assert faces.shape == (steps * batch_size,) and faces.dtype == np.int32
    epochs = faces[: 4 * count].reshape(4, count)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(count), (4, 1)))
    if count > 4:
        assert len({tuple(epoch) for epoch in epochs}) == 4  # a new order each time


def test_a_step_depends_on_key_and_number_only():
    key = jax.random.key(3)
    later = draw(key, np.int32(1000), 7, 4)
    np.testing.assert_array_equal(later, draw(key, np.int32(1000), 7, 4))
    assert (drawn(50, 10, 5, seed=0) != drawn(50, 10, 5, seed=1)).any()


@pytest.fixture
def facesets():
    rng = np.random.default_rng(0)

    def faceset(count):
        images = rng.integers(0, 256, (count, 6, 6, 4), dtype=np.uint8)
        return Faceset(images, rng.random((count, 2, 3), np.float32))

    return {"src": faceset(5), "dst": faceset(3)}


@pytest.mark.parametrize("count", [1, 2])
def test_device_and_host_give_the_same_batches(facesets, count):
    """The whole batch is also the same on any number of devices, merely cut into more parts."""
    sharding = split_over(jax.devices()[:count])
    keys = {side: jax.random.fold_in(jax.random.key(0), i) for i, side in enumerate(("dst", "src"))}
    device = batches.make_batches(facesets, jax.random.key(0), 4, sharding)
    host = batches._from_host(facesets, keys, 4, sharding)
    for step in (0, 1, 2, 3, 7):
        ours, theirs = device(step), host(step)
        for side, faceset in facesets.items():
            chosen = draw(keys[side], np.int32(step), len(faceset), 4)
            for mine, other, store in zip(
                ours[side], theirs[side], (faceset.images, faceset.cuts), strict=True
            ):
                assert mine.shape == (count, 4 // count, *store.shape[1:])
                assert mine.sharding == other.sharding == sharding
                assert mine.dtype == other.dtype == store.dtype
                np.testing.assert_array_equal(mine, other)
                np.testing.assert_array_equal(mine.reshape(4, *store.shape[1:]), store[chosen])


@pytest.mark.parametrize("where", ["_from_device", "_from_host"])
def test_several_steps_at_once_are_those_steps(facesets, where):
    """Each device gets its own part of each step, the steps on the second axis."""
    sharding = split_over(jax.devices()[:2])
    keys = {side: jax.random.key(i) for i, side in enumerate(("dst", "src"))}
    single = getattr(batches, where)(facesets, keys, 4, sharding)
    several = getattr(batches, where)(facesets, keys, 4, sharding, steps=3)
    for first in (0, 3, 7):
        together = several(first)
        for step in range(3):
            alone = single(first + step)
            jax.tree.map(
                lambda a, b, n=step: np.testing.assert_array_equal(a[:, n], b), together, alone
            )


def test_processes_share_a_batch(monkeypatch):
    """Two processes of two devices get together what one process of four does."""
    draws = jnp.arange(3 * 8).reshape(3, 8)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    parts = []
    for index in range(2):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        parts.append(batches.own_part(draws, 2))
    monkeypatch.undo()
    whole = batches.own_part(draws, 4)
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert whole.tolist()[1] == [[2, 3], [10, 11], [18, 19]]
    assert batches.own_part(draws[:1], 4).tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]


@pytest.mark.parametrize(
    ("limit", "kept"), [(None, "device"), (10_000_000, "device"), (1000, "host")]
)
def test_large_facesets_stay_on_the_host(facesets, monkeypatch, caplog, limit, kept):
    monkeypatch.setattr(batches, "_from_device", lambda *_: "device")
    monkeypatch.setattr(batches, "_from_host", lambda *_: "host")
    stats = None if limit is None else {"bytes_limit": limit}
    sharding = SimpleNamespace(device_set=[SimpleNamespace(memory_stats=lambda: stats)])
    with caplog.at_level(logging.INFO):
        assert batches.make_batches(facesets, jax.random.key(0), 4, sharding) == kept
    assert "5 src, 3 dst faces" in caplog.text and f"on the {kept}" in caplog.text
