"""Affine matrices on the device against those on the host."""

import jax
import jax.numpy as jnp
import numpy as np

from odfs_jax.faces.affine import invert, jnp_compose, jnp_invert, transform


def matrix(degrees, scale, shift):
    c, s = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    return np.array([[c, -s, shift], [s, c, -shift]], np.float32)


def test_compose_applies_the_second_matrix_first():
    a_from_b, b_from_c = matrix(-35, 0.6, -7.5), matrix(20, 1.3, 4.0)
    points = np.random.default_rng(2).normal(size=(9, 2)) * 50
    a_from_c = np.asarray(jax.jit(jnp_compose)(a_from_b, b_from_c))
    expected = transform(a_from_b, transform(b_from_c, points))
    np.testing.assert_allclose(transform(a_from_c, points), expected, atol=1e-3)


def test_the_inverse_undoes_a_matrix():
    for a_from_b in (matrix(0, 1, -20), matrix(23, 0.65, 11.7), matrix(-12, 1.43, -60.1)):
        inverse = invert(a_from_b)
        points = np.random.default_rng(3).normal(size=(9, 2)) * 50
        back = transform(inverse, transform(a_from_b, points))
        np.testing.assert_allclose(back, points, atol=1e-4)
        np.testing.assert_allclose(jnp_invert(jnp.array(a_from_b)), inverse, rtol=1e-4, atol=1e-4)
