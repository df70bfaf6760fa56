"""Colour transfers against float64 NumPy and OpenCV."""

import cv2
import jax
import numpy as np
import pytest

from odfs_jax.conversion.transfer import CONES, LIGHT_FLOOR, LIGHT_SIGMA, OPPONENT, TRANSFERS

SIZE = 48


@pytest.fixture(scope="module")
def faces() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(predicted, dst [2, S, S, 3] of unlike tones, where bool [2, S, S, 1]: a disc)."""
    rng = np.random.default_rng(0)
    coarse = rng.random((2, 2, 6, 6, 3)).astype(np.float32)
    fine = np.stack([[cv2.resize(p, (SIZE, SIZE)) for p in pair] for pair in coarse])
    y, x = np.mgrid[:SIZE, :SIZE]
    disc = np.hypot(x - SIZE / 2, y - SIZE / 2) < 0.4 * SIZE
    where = np.repeat(disc[None, ..., None], 2, axis=0)
    return 0.3 + 0.3 * fine[0], 0.1 + 0.5 * fine[1] * np.float32([1, 0.8, 0.6]), where


@pytest.mark.parametrize("name", sorted(TRANSFERS))
def test_a_face_that_has_the_colours_stays_as_it_is(name, faces):
    face, _, where = faces
    same = jax.jit(TRANSFERS[name])(face, face, where)
    np.testing.assert_allclose(same, face, atol=2e-5)


@pytest.mark.parametrize("name", sorted(TRANSFERS))
def test_nothing_to_count_changes_nothing(name, faces):
    face, dst, where = faces
    where = where & np.array([True, False])[:, None, None, None]
    moved = jax.jit(TRANSFERS[name])(face, dst, where)
    np.testing.assert_array_equal(moved[1], face[1])


def test_rct_equals_the_paper(faces):
    face, dst, where = faces

    def opponent(rgb: np.ndarray) -> np.ndarray:
        return np.log10(rgb.astype(np.float64) @ CONES.T) @ OPPONENT.T

    for i in range(2):
        inside = where[i, ..., 0]
        source, target = opponent(face[i]), opponent(dst[i])
        spread = target[inside].std(0) / source[inside].std(0)
        moved = (source - source[inside].mean(0)) * spread + target[inside].mean(0)
        expected = 10 ** (moved @ np.linalg.inv(OPPONENT).T) @ np.linalg.inv(CONES).T
        result = jax.jit(TRANSFERS["rct"])(face, dst, where)[i]
        np.testing.assert_allclose(result, expected.clip(0, 1), atol=1e-4)


def test_light_equals_a_quotient_of_gaussians(faces):
    face, dst, where = faces
    weights = where[0].astype(np.float64)

    def blur(picture: np.ndarray) -> np.ndarray:
        reach = 2 * SIZE + 1
        return cv2.GaussianBlur(
            picture, (reach, reach), LIGHT_SIGMA * SIZE, borderType=cv2.BORDER_CONSTANT
        ).reshape(SIZE, SIZE, -1)

    wanted, source = (blur(p[0] * weights) / blur(weights) for p in (dst, face))
    expected = face[0] * (wanted + LIGHT_FLOOR) / (source + LIGHT_FLOOR)
    result = jax.jit(TRANSFERS["light"])(face, dst, where)[0]
    np.testing.assert_allclose(result, expected.clip(0, 1), atol=1e-4)


def test_light_takes_a_shadow_away(faces):
    """A face whose one side lies in shadow gets its even light back, its features stay."""
    _, dst, where = faces
    shade = np.linspace(0.3, 1.0, SIZE, dtype=np.float32)[None, None, :, None]
    lit = np.asarray(jax.jit(TRANSFERS["light"])(dst * shade, dst, where))
    inside = where[..., 0]
    before = np.abs(dst * shade - dst)[inside].mean()
    assert np.abs(lit - dst)[inside].mean() < 0.3 * before
