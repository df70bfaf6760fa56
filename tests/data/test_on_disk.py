"""Facesets that do not fit into the memory: the same faces, read from their files when taken."""

import dataclasses

import jax
import numpy as np
import pytest

from odfs_jax.data import batches
from odfs_jax.data.faceset import OnDisk, load_faceset
from odfs_jax.errors import UserError
from odfs_jax.faces.spec import FaceSpec
from odfs_jax.faces.types import FaceType
from odfs_jax.runtime.distributed import split_over

SPEC = FaceSpec(FaceType.HALF, 24)


@pytest.fixture
def folder(write_faceset, tmp_path):
    """Nine faces of two sizes."""
    write_faceset(tmp_path, 9, size=48)
    write_faceset(tmp_path / "small", 2, size=32, seed=1)
    for path in (tmp_path / "small").iterdir():
        path.rename(tmp_path / f"1{path.name}")
    return tmp_path


def load(folder, **limit):
    return load_faceset(folder, "src", SPEC, masks=("mask", "eyes_mouth"), **limit)


@pytest.mark.parametrize("limit", [0, 30_000, 11 * 48 * 48 * 5 - 1])
def test_on_disk_they_are_the_same(folder, limit):
    """Also where some were kept before the room was full, or they fit until all have one size."""
    kept, read = load(folder, limit=11 * 48 * 48 * 5), load(folder, limit=limit)
    assert isinstance(kept.images, np.ndarray) and isinstance(read.images, OnDisk)
    assert read.images.shape == kept.images.shape == (11, 48, 48, 5)
    assert read.images.nbytes == kept.images.nbytes and read.images.dtype == kept.images.dtype
    chosen = np.array([[10, 0], [3, 10], [9, 1]])
    np.testing.assert_array_equal(read.images[chosen], kept.images[chosen])
    for name in ("store_from_model", "yaws"):
        np.testing.assert_array_equal(getattr(read, name), getattr(kept, name))


def test_a_part_is_read_from_the_disk_too(folder):
    kept, read = (load(folder, **limit).part(np.array([7, 2])) for limit in ({}, {"limit": 0}))
    assert isinstance(read.images, OnDisk) and len(read) == len(kept) == 2
    every = np.arange(2)
    np.testing.assert_array_equal(read.images[every], kept.images[every])
    for name in ("store_from_model", "yaws", "ranks"):
        np.testing.assert_array_equal(getattr(read, name), getattr(kept, name))
        np.testing.assert_array_equal(getattr(kept, name), getattr(load(folder), name)[[7, 2]])


def test_a_step_gets_the_same_batch(folder):
    found = []
    for limit in (0, 10**9):
        facesets = dict.fromkeys(("src", "dst"), load(folder, limit=limit))
        sharding = split_over(jax.devices()[:2])
        batch = batches.make_batches(facesets, jax.random.key(0), 4, sharding)
        found.append([jax.device_get(batch(number)) for number in (0, 1, 5)])
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_one_faceset_for_both_sides_counts_once(folder):
    faceset = load(folder)
    once, _ = batches.stored_bytes({"src": faceset}, jax.devices()[0])
    shared = {"src": faceset, "dst": faceset}
    assert batches.stored_bytes(shared, jax.devices()[0]) == (once, True)
    twice = {"src": faceset, "dst": dataclasses.replace(faceset)}
    assert batches.stored_bytes(twice, jax.devices()[0]) == (2 * once, True)


def test_a_file_that_is_damaged_later_is_named(folder):
    faceset = load(folder, limit=0)
    path = sorted(folder.glob("*.png"))[2]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=path.name):
        faceset.images[np.array([2])]
