"""What a step gets, and that it does not matter where the facesets are kept."""

import logging
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from odfs_jax.data import batches
from odfs_jax.data.augment import mirror
from odfs_jax.data.faceset import Faceset
from odfs_jax.data.sampling import SAMPLINGS
from odfs_jax.faces.spec import FaceSpec
from odfs_jax.faces.types import FaceType
from odfs_jax.runtime.distributed import split_over


@pytest.fixture
def facesets():
    rng = np.random.default_rng(0)

    def faceset(count):
        images = rng.integers(0, 256, (count, 6, 6, 4), dtype=np.uint8)
        yaws = rng.uniform(-60, 60, count).astype(np.float32)
        matrices = rng.random((count, 2, 3), np.float32)
        return Faceset(images, matrices, yaws, FaceSpec(FaceType.HALF, 16))

    return {"src": faceset(5), "dst": faceset(3)}


def made(facesets, where, sampling, count, steps=1):
    """`make_batches` that keeps the facesets on the device or on the host."""
    with pytest.MonkeyPatch.context() as patch:
        if where == "host":
            patch.setattr(batches, "_from_device", batches._from_host)
        sharding = split_over(jax.devices()[:count])
        return batches.make_batches(facesets, jax.random.key(0), 4, sharding, steps, sampling)


@pytest.mark.parametrize("sampling", sorted(SAMPLINGS))
@pytest.mark.parametrize("count", [1, 2])
def test_device_and_host_give_the_faces_drawn(facesets, count, sampling):
    """The whole batch is also the same on any number of devices, merely cut into more parts."""
    device = made(facesets, "device", sampling, count)
    host = made(facesets, "host", sampling, count)
    draw = jax.jit(SAMPLINGS[sampling](facesets, 4))
    for step in (0, 1, 2, 3, 7):
        ours, theirs = device(step), host(step)
        faces = jax.device_get(draw(jax.random.key(0), np.int32(step)))
        for side, faceset in facesets.items():
            chosen, mirrored = faces[side]
            matrices = faceset.store_from_model[chosen]
            flipped = jax.vmap(mirror, (0, None))(matrices, 16)
            matrices = np.where(mirrored[:, None, None] == 1, flipped, matrices)
            for mine, other, expected in zip(
                ours[side], theirs[side], (faceset.images[chosen], matrices), strict=True
            ):
                assert mine.shape == (count, 4 // count, *expected.shape[1:])
                assert mine.sharding == other.sharding == split_over(jax.devices()[:count])
                assert mine.dtype == other.dtype == expected.dtype
                np.testing.assert_array_equal(mine, other)
                np.testing.assert_array_equal(mine.reshape(expected.shape), expected)


@pytest.mark.parametrize("where", ["device", "host"])
def test_several_steps_at_once_are_those_steps(facesets, where):
    """Each device gets its own part of each step, the steps on the second axis."""
    single = made(facesets, where, "uniform", 2)
    several = made(facesets, where, "uniform", 2, steps=3)
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
