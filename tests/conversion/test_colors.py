"""Color transfers against float64 NumPy and OpenCV."""

from functools import partial

import cv2
import jax
import numpy as np
import pytest
from scipy.linalg import sqrtm

from odfs_jax.faces.colors import (
    CONES,
    DARKEST_SHADOW,
    DETAIL_POWER,
    IDT,
    LIGHT_FLOOR,
    LIGHT_SIGMA,
    OPPONENT,
    SOT,
    TRANSFERS,
)

SIZE = 48
NAMES = [name for name, transfer in TRANSFERS.items() if transfer is not None]


@partial(jax.jit, static_argnums=0)
def transferred(name: str, faces, targets, where):
    transfer = TRANSFERS[name]
    return transfer.apply(faces, transfer.measure(faces, targets, where))


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


@pytest.mark.parametrize("name", NAMES)
def test_a_face_that_has_the_colors_stays_as_it_is(name, faces):
    face, _, where = faces
    same = transferred(name, face, face, where)
    inside = where[..., 0]
    step = 0.5 / 255 if name == "hist" else 1e-4  # its tables hold 8-bit values
    np.testing.assert_allclose(same[inside], face[inside], atol=step)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_count_changes_nothing(name, faces):
    face, dst, where = faces
    where = where & np.array([True, False])[:, None, None, None]
    np.testing.assert_array_equal(transferred(name, face, dst, where)[1], face[1])


def test_rct_equals_the_paper(faces):
    face, dst, where = faces

    def opponent(rgb: np.ndarray) -> np.ndarray:
        return np.log10(rgb.astype(np.float64) @ CONES.T) @ OPPONENT.T

    for i in range(2):
        inside = where[i, ..., 0]
        source, target = opponent(face[i]), opponent(dst[i])
        spread = target[inside].std(0) / source[inside].std(0)
        shifted = (source - source[inside].mean(0)) * spread + target[inside].mean(0)
        expected = 10 ** (shifted @ np.linalg.inv(OPPONENT).T) @ np.linalg.inv(CONES).T
        result = transferred("rct", face, dst, where)[i]
        np.testing.assert_allclose(result, expected.clip(0, 1), atol=1e-4)


def moments(picture: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    colors = picture[inside].astype(np.float64)
    return colors.mean(0), np.cov(colors.T, bias=True)


def square_roots(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    return sqrtm(target) @ np.linalg.inv(sqrtm(source))


def monge_kantorovitch(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    back = np.linalg.inv(sqrtm(source))
    return back @ sqrtm(sqrtm(source) @ target @ sqrtm(source)) @ back


@pytest.mark.parametrize(("name", "matrix"), [("lct", square_roots), ("mkl", monge_kantorovitch)])
def test_linear_transfers_equal_the_paper(name, matrix, faces):
    face, dst, where = faces
    result = np.asarray(transferred(name, face, dst, where))
    for i in range(2):
        inside = where[i, ..., 0]
        (mean, covariance), (target_mean, target) = (
            moments(face[i], inside),
            moments(dst[i], inside),
        )
        expected = (face[i] - mean) @ np.real(matrix(covariance, target)).T + target_mean
        np.testing.assert_allclose(result[i], expected.clip(0, 1), atol=2e-4)
        unclipped = inside & ((expected > 0) & (expected < 1)).all(-1)
        if unclipped.sum() == inside.sum():
            np.testing.assert_allclose(moments(result[i], inside)[1], target, atol=1e-4)


def transported(colors: np.ndarray, target: np.ndarray, rounds: np.ndarray) -> np.ndarray:
    """Float64: each round moves `colors` [n, 3] along its directions by exact 1-D transport.

    Of as many points on both sides that is the pairing of both in sorted order. A round's moves are
    averaged over its triples of perpendicular directions.
    """
    colors = colors.astype(np.float64)
    for triples in rounds.astype(np.float64):
        moves = np.zeros_like(colors)
        for direction in triples.reshape(-1, 3):
            source = colors @ direction
            order = np.argsort(source, kind="stable")
            change = np.empty_like(source)
            change[order] = np.sort(target @ direction) - source[order]
            moves += change[:, None] * direction
        colors = colors + moves / len(triples)
    return colors


@pytest.mark.parametrize(("name", "rounds"), [("idt", IDT), ("sot", SOT)])
def test_sliced_transfers_equal_sorting(name, rounds, faces):
    """Curves of 256 places against exact pairs of pixels: an 8-bit step apart on average."""
    face, dst, where = faces
    result = np.asarray(transferred(name, face, dst, where))
    for i in range(2):
        inside = where[i, ..., 0]
        expected = transported(face[i][inside], dst[i][inside].astype(np.float64), rounds)
        away = np.abs(result[i][inside] - expected.clip(0, 1))
        assert away.mean() < 1 / 255
        assert np.percentile(away, 99) < 5 / 255


@pytest.mark.parametrize("name", ["idt", "sot"])
def test_sliced_transfers_give_dsts_distribution(name, faces):
    face, dst, where = faces
    result = np.asarray(transferred(name, face, dst, where))
    for axis in np.random.default_rng(5).standard_normal((8, 3)):
        inside = where[0, ..., 0]
        got, before, wanted = (np.sort(p[0][inside] @ axis) for p in (result, face, dst))
        assert np.abs(got - wanted).mean() < 0.1 * np.abs(before - wanted).mean()


@pytest.mark.parametrize("name", NAMES)
def test_a_mean_of_measurements_lies_between_them(name, faces):
    """What the average along a track needs: no transfer jumps when its statistics are averaged."""
    face, dst, where = faces
    transfer = TRANSFERS[name]
    one, other = (transfer.measure(face, dst * share, where) for share in (1.0, 0.9))
    middle = jax.tree.map(lambda a, b: (a + b) / 2, one, other)
    pictures = [np.asarray(transfer.apply(face, stats)) for stats in (one, middle, other)]
    inside = where[..., 0]
    first, mean, last = (p[inside].mean(0) for p in pictures)
    np.testing.assert_allclose(mean, (first + last) / 2, atol=0.005)


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
    result = transferred("light", face, dst, where)[0]
    np.testing.assert_allclose(result, expected.clip(0, 1), atol=1e-4)


def test_light_takes_a_shadow_away(faces):
    """A face whose one side lies in shadow gets its even light back, its features stay."""
    _, dst, where = faces
    shade = np.linspace(0.3, 1.0, SIZE, dtype=np.float32)[None, None, :, None]
    lit = np.asarray(transferred("light", dst * shade, dst, where))
    inside = where[..., 0]
    before = np.abs(dst * shade - dst)[inside].mean()
    assert np.abs(lit - dst)[inside].mean() < 0.3 * before


def test_tone_has_dsts_light_and_more_contrast_than_light(faces):
    """On skin that is a third as bright: the slow part is dst's, detail keeps much of its own."""
    *_, where = faces
    fine = np.float32(0.02) * np.sin(np.arange(SIZE, dtype=np.float32) * 2)[None, :, None]
    bright, dark = (
        np.full((1, SIZE, SIZE, 3), 0.6, np.float32) + fine,
        np.full((1, SIZE, SIZE, 3), 0.2, np.float32),
    )
    tone, light = (
        np.asarray(transferred(name, bright, dark, where[:1]))[0, 20:28, 16:32, 0]
        for name in ("tone", "light")
    )
    quotient = (0.2 + LIGHT_FLOOR) / (0.6 + LIGHT_FLOOR)
    np.testing.assert_allclose(tone.mean(), 0.2, atol=0.01)
    np.testing.assert_allclose(tone.std() / light.std(), quotient ** (DETAIL_POWER - 1), rtol=0.12)


def test_tone_keeps_dark_detail_above_black(faces):
    """What is darker than bright skin by more than dark skin is bright stays a share of it."""
    *_, where = faces
    bright, dark = (np.full((1, SIZE, SIZE, 3), v, np.float32) for v in (0.8, 0.2))
    bright[:, 23:25, 23:25] = 0.2
    assert transferred("tone", bright, dark, where[:1]).min() > 0.1 * 0.2


def test_tone_takes_dsts_shade_where_its_skin_is_smooth(faces):
    """A broad band on the new face's cheek goes; beside a dark feature of dst's one stays."""
    column = np.arange(SIZE, dtype=np.float32)
    band = 0.1 * np.exp(-0.5 * ((column - 12) / 4) ** 2) + 0.1 * np.exp(-((column - 36) ** 2) / 32)
    face = np.repeat((0.5 - band)[None, None, :, None], SIZE, axis=1).repeat(3, axis=3)
    smooth = np.full((1, SIZE, SIZE, 3), 0.5, np.float32)
    featured = smooth.copy()
    featured[:, :, 35:38] = 0.2
    where = np.ones((1, SIZE, SIZE, 1), bool)
    middle = slice(12, 36)
    depths = [
        [0.5 - toned[0, middle, place, 0].mean() for place in (12, 36)]
        for toned in (
            np.asarray(transferred("tone", face, dst, where)) for dst in (smooth, featured)
        )
    ]
    assert max(depths[0]) < 0.02 and depths[1][0] < 0.02 and depths[1][1] > 0.035


def test_tone_lifts_a_shadow_that_dst_has_not_and_keeps_an_eye_that_it_has():
    """Dark bars on the left and on the right of the new face; dst is dark on the right only."""
    face = np.full((1, SIZE, SIZE, 3), 0.6, np.float32)
    face[:, 10:38, 8:12] = face[:, 10:38, 36:40] = 0.1
    dst = np.full_like(face, 0.5)
    dst[:, 10:38, 35:39] = 0.1  # a pixel beside it, within SHADOW_REACH
    where = np.ones((1, SIZE, SIZE, 1), bool)
    toned = np.asarray(transferred("tone", face, dst, where))
    assert toned[:, 10:38, 8:12].min() > DARKEST_SHADOW * 0.5 - 0.01
    assert toned[:, 10:38, 36:40].max() < 0.15
    np.testing.assert_allclose(toned[:, :, 20:28], 0.5, atol=0.02)
