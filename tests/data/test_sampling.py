"""Which faces a step gets: in turn, or with src's head turned as dst's is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odfs_jax.data.faceset import Faceset
from odfs_jax.data.sampling import (
    BINS,
    SAMPLINGS,
    epoch_order,
    evenly_spread,
    nearest_bins,
    yaw_bins,
    yaw_matched,
)
from odfs_jax.faces.spec import FaceSpec
from odfs_jax.faces.types import FaceType

draw = jax.jit(epoch_order, static_argnums=(2, 3))


def turned(yaws):
    """A faceset of black faces whose heads are turned by `yaws`."""
    images = np.zeros((len(yaws), 1, 1, 4), np.uint8)
    matrices = np.zeros((len(yaws), 2, 3), np.float32)
    return Faceset(images, matrices, np.asarray(yaws, np.float32), FaceSpec(FaceType.HALF, 16))


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


def test_evenly_spread_places_have_both_ends_and_the_same_between_them():
    assert evenly_spread(9, 3).tolist() == [0, 4, 8]
    assert evenly_spread(2, 4).tolist() == [0, 0, 1, 1]
    assert evenly_spread(0, 0).tolist() == []
    for count in range(1, 40):
        for chosen in range(1, count + 1):
            places = evenly_spread(count, chosen)
            assert len(set(places)) == chosen and len(set(np.diff(places))) <= 2
            assert places[0] == 0 and (chosen == 1 or places[-1] == count - 1)


def test_a_step_depends_on_key_and_number_only():
    key = jax.random.key(3)
    later = draw(key, np.int32(1000), 7, 4)
    np.testing.assert_array_equal(later, draw(key, np.int32(1000), 7, 4))
    assert (drawn(50, 10, 5, seed=0) != drawn(50, 10, 5, seed=1)).any()


@pytest.mark.parametrize("sampling", sorted(SAMPLINGS))
def test_both_people_are_drawn_apart_and_the_same_way_again(sampling):
    faces = {side: turned(np.linspace(-50, 50, 40, dtype=np.float32)) for side in ("src", "dst")}
    choose = jax.jit(SAMPLINGS[sampling](faces, 8))
    first, again = (choose(jax.random.key(0), np.int32(5)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert (first["src"][0] != first["dst"][0]).any()
    for other in (choose(jax.random.key(0), np.int32(6)), choose(jax.random.key(1), np.int32(5))):
        assert (first["dst"][0] != other["dst"][0]).any()
    for chosen, mirror in first.values():
        assert chosen.dtype == mirror.dtype == jnp.int32
        assert chosen.shape == mirror.shape == (8,)


YAWS = st.floats(-90, 90, width=32)


@given(YAWS)
def test_bins_cover_the_half_turn_and_mirror_each_other(yaw):
    (bin_,) = yaw_bins(np.array([yaw], np.float32))
    assert 0 <= bin_ < BINS
    low = -90 + 180 / BINS * bin_
    assert low - 1e-3 <= yaw <= low + 180 / BINS + 1e-3
    (mirror,) = yaw_bins(np.array([-yaw], np.float32))
    on_an_edge = abs(yaw * BINS / 180 - round(yaw * BINS / 180)) < 1e-4
    assert on_an_edge or bin_ + mirror == BINS - 1


def test_heads_turned_too_far_fall_into_the_outer_bins():
    assert yaw_bins(np.array([-170.0, -90.0, 90.0, 179.0])).tolist() == [0, 0, 63, 63]


@given(st.sets(st.integers(0, BINS - 1), min_size=1))
def test_the_nearest_bin_by_brute_force(filled):
    nearest, mirror = nearest_bins(np.isin(np.arange(BINS), list(filled)))
    for bin_ in range(BINS):
        as_it_is = min(abs(bin_ - own) for own in filled)
        flipped = min(abs(bin_ - (BINS - 1 - own)) for own in filled)
        assert nearest[bin_] in filled
        assert mirror[bin_] == (flipped < as_it_is)
        looks_like = BINS - 1 - nearest[bin_] if mirror[bin_] else nearest[bin_]
        assert abs(bin_ - looks_like) == min(as_it_is, flipped)


@settings(max_examples=4, deadline=None)
@given(st.lists(YAWS, min_size=9, max_size=9), st.lists(YAWS, min_size=12, max_size=12))
def test_src_is_turned_as_dst_is_as_far_as_src_has_it(src, dst):
    faces = {"src": turned(src), "dst": turned(dst)}
    bins = {side: yaw_bins(faceset.yaws) for side, faceset in faces.items()}
    choose = jax.jit(jax.vmap(yaw_matched(faces, 16), (None, 0)))
    drawn = jax.device_get(choose(jax.random.key(0), jnp.arange(32)))
    (src_faces, mirror), (dst_faces, never) = drawn["src"], drawn["dst"]
    assert not never.any()
    wanted, own = bins["dst"][dst_faces], bins["src"][src_faces]
    looks_like = np.where(mirror == 1, BINS - 1 - own, own)
    candidates = np.concatenate([bins["src"], BINS - 1 - bins["src"]])
    best = np.abs(wanted[..., None] - candidates).min(-1)
    np.testing.assert_array_equal(np.abs(wanted - looks_like), best)
    assert set(np.unique(dst_faces)) == set(range(12))  # 512 draws of at most 12 bins


def test_bins_come_first_then_faces():
    """A bin of one face and one of nine are drawn as often; so are the nine among themselves."""
    facesets = {"src": turned([40.0, -1.0]), "dst": turned([-40.0] + 9 * [1.0])}
    choose = jax.jit(jax.vmap(yaw_matched(facesets, 50), (None, 0)))
    drawn = jax.device_get(choose(jax.random.key(0), jnp.arange(40)))
    faces, counts = np.unique(drawn["dst"][0], return_counts=True)
    assert faces.tolist() == list(range(10))
    assert 900 < counts[0] < 1100  # of 2000
    assert counts[1:].min() > 70 and counts[1:].max() < 160
    first = drawn["dst"][0] == 0
    np.testing.assert_array_equal(drawn["src"][0], np.where(first, 0, 1))
    assert drawn["src"][1].all()  # -40 is 40 mirrored, and 1 is -1
