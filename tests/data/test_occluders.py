"""Objects before faces: where they are is known to the pixel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from odfs_jax.data.occluders import KINDS, NOWHERE, PARTS, Capsules, Numbers, cover, lay_over
from odfs_jax.faces.spec import FaceSpec
from odfs_jax.faces.types import FaceType

SPEC = FaceSpec(FaceType.FULL, 32)


@pytest.fixture(scope="module")
def pictures():
    """(drawn [N, R, R, 3], masks [N, R, R, 1]) of a gray face before a black picture, covered."""
    face, mask = jnp.full((32, 32, 3), 0.5), jnp.ones((32, 32, 1))

    def one(key, probability):
        return lay_over(key, face, mask, jnp.zeros_like(face), SPEC, probability)

    program = jax.jit(jax.vmap(one, (0, None)))
    keys = jax.random.split(jax.random.key(1), 48)
    return {share: program(keys, share) for share in (0.0, 1.0)}


def test_without_objects_the_mask_stays(pictures):
    faces, masks = pictures[0.0]
    np.testing.assert_array_equal(masks, 1)
    assert np.abs(faces - 0.5).mean() < 0.05  # noise only


def test_objects_hide_what_the_mask_leaves_out(pictures):
    faces, masks = pictures[1.0]
    hidden = np.asarray(1 - masks).mean((1, 2, 3))
    assert 0.03 < hidden.mean() < 0.7 and (hidden > 0.01).mean() > 0.8
    assert np.all((masks >= 0) & (masks <= 1)) and np.all((faces >= 0) & (faces <= 1))
    # Away from objects and their shadows the face is what it was.
    seen = np.asarray(masks)[..., 0] > 0.99
    assert np.median(np.abs(np.asarray(faces)[seen] - 0.5)) < 0.05
    covered = np.asarray(masks)[..., 0] < 0.01
    assert np.mean(np.abs(np.asarray(faces)[covered] - 0.5)) > 0.15


def test_every_kind_draws_finite_parts_on_the_face():
    for name, draw in KINDS.items():
        there = 0
        for seed in range(8):
            parts = draw(Numbers(jax.random.key(seed)), SPEC)
            assert parts.start.shape == (PARTS, 2), name
            assert all(np.isfinite(part).all() for part in parts), name
            there += bool((np.abs(np.asarray(parts.start) - 0.5).max(-1) < 4).any())
        assert there >= 4, name


def test_a_capsule_is_what_is_near_to_its_line():
    line = (np.arange(32, dtype=np.float32) + 0.5) / 32
    x, y = np.meshgrid(line, line)
    nowhere = np.full((PARTS, 2), NOWHERE, np.float32)
    start, end = nowhere.copy(), nowhere.copy()
    start[0], end[0] = (0.2, 0.5), (0.8, 0.5)
    start[1] = end[1] = (0.5, 0.1)
    radius, shell = np.zeros((PARTS, 2), np.float32), np.zeros(PARTS, np.float32)
    radius[0], radius[1], shell[1] = (0.1, 0.2), 0.15, 0.03
    shape = cover(Capsules(*map(jnp.asarray, (start, end, radius, shell))), (x, y))

    along = np.clip((x - 0.2) / 0.6, 0, 1)
    solid = np.hypot(x - 0.2 - 0.6 * along, y - 0.5) - (0.1 + 0.1 * along)
    hollow = np.abs(np.hypot(x - 0.5, y - 0.1) - 0.15) - 0.03
    np.testing.assert_allclose(shape.distance, np.minimum(solid, hollow), atol=1e-5)
    middle = np.asarray(shape.front)[15:17, 12:20]  # it faces the camera along its line
    assert middle.min() > 0.95
