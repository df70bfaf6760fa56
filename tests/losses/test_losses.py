"""The losses against scikit-image, scipy and numpy, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from omegaconf import OmegaConf
from scipy.ndimage import correlate1d
from skimage.metrics import structural_similarity

from odfs_jax.config import compose
from odfs_jax.losses import dssim, mae, make_loss, ms_dssim, mse
from odfs_jax.losses.terms import (
    MS_WEIGHTS,
    blur_outside,
    extend_inside,
    gaussian_blur,
    mae_inside,
    ms_ssim,
    scale_count,
    scaled_dssim,
    soft,
    ssim,
)

BORDER = 5  # pixels at which the window does not fit


def reference(a, b):
    """scikit-image's SSIM in float64, mean over the windows that fit."""
    values = []
    for one, other in zip(np.asarray(a, np.float64), np.asarray(b, np.float64), strict=True):
        _, full = structural_similarity(
            one, other, win_size=11, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
            data_range=1.0, channel_axis=-1, full=True,
        )  # fmt: skip
        values.append(full[BORDER:-BORDER, BORDER:-BORDER].mean())
    return np.array(values)


def pictures(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).random((3, height, width, channels), np.float32)


@pytest.mark.parametrize("shape", [(11, 11, 1), (32, 48, 3), (17, 12, 3)])
@pytest.mark.parametrize("closeness", [0.0, 0.9, 1.0])
def test_ssim_is_scikit_images(shape, closeness):
    a = pictures(*shape)
    b = (closeness * a + (1 - closeness) * pictures(*shape, seed=1)).astype(np.float32)
    np.testing.assert_allclose(jax.jit(ssim)(a, b), reference(a, b), atol=2e-5)


@pytest.mark.parametrize(("one", "other"), [(0.0, 0.0), (0.0, 1.0), (0.5, 0.5), (0.3, 0.31)])
def test_ssim_of_constant_pictures(one, other):
    a, b = (np.full((1, 16, 16, 3), value, np.float32) for value in (one, other))
    found = float(ssim(jnp.asarray(a), jnp.asarray(b))[0])
    luminance = (2 * one * other + 1e-4) / (one**2 + other**2 + 1e-4)
    assert found == pytest.approx(luminance, abs=5e-4)  # float32: variances of 1e-7 over 9e-4
    assert found == pytest.approx(float(reference(a, b)[0]), abs=5e-4)


def test_dssim_goes_from_0_to_1():
    a = pictures(24, 24)
    np.testing.assert_allclose(dssim(a, a), 0, atol=1e-6)
    checks = (np.indices((24, 24)).sum(0) % 2).astype(np.float32)[None, ..., None]
    opposite = float(dssim(jnp.asarray(checks), jnp.asarray(1 - checks))[0])
    assert 0.95 < opposite <= 1
    np.testing.assert_allclose(dssim(a, 1 - a), (1 - reference(a, 1 - a)) / 2, atol=1e-5)


def test_the_gradient_is_finite_where_pictures_are_flat_or_equal():
    flat = jnp.full((1, 16, 16, 3), 0.5)
    gradient = jax.jit(jax.grad(lambda b, a: dssim(a, b).sum()))
    for a, b in ((flat, flat), (flat, 0 * flat), (0 * flat, 0 * flat)):
        assert np.isfinite(gradient(b, a)).all()


@pytest.mark.parametrize("shape", [(10, 32), (32, 10), (1, 1)])
def test_pictures_smaller_than_the_window_are_refused(shape):
    picture = jnp.zeros((1, *shape, 3))
    with pytest.raises(ValueError, match="smaller than the 11 px window"):
        ssim(picture, picture)


def test_pixel_losses_are_numpys():
    a, b = pictures(9, 7), pictures(9, 7, seed=1)
    difference = a.astype(np.float64) - b
    np.testing.assert_allclose(mae(a, b), np.abs(difference).mean((1, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(mse(a, b), (difference**2).mean((1, 2, 3)), rtol=1e-6)


def test_the_error_inside_an_area_is_numpys():
    a, b = pictures(9, 7), pictures(9, 7, seed=1)
    area = pictures(9, 7, 1, seed=2)
    area[1] = 0  # no eye to be seen
    area[2] *= 0.5 / area[2].sum()  # half a pixel of one
    error = np.abs(a.astype(np.float64) - b).mean(-1, keepdims=True)
    expected = [(e * w).sum() / max(w.sum(), 1) for e, w in zip(error, area, strict=True)]
    assert expected[0] > 0 == expected[1]
    np.testing.assert_allclose(mae_inside(a, b, area), expected, rtol=1e-5)


def reference_ms_ssim(a, b):
    """The paper's formula in float64: scipy's correlation, scales by numpy, one picture."""
    offsets = np.arange(-BORDER, BORDER + 1)
    window = np.exp(-(offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    fitting = [level for level in range(5) if min(a.shape[:2]) // 2**level >= 11]
    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])[: len(fitting)]
    weights /= weights.sum()

    def blur(x):
        for axis in (0, 1):
            x = correlate1d(x, window, axis)
        return x[BORDER:-BORDER, BORDER:-BORDER]

    values = np.ones(a.shape[-1])
    for level, weight in zip(fitting, weights, strict=True):
        mean_a, mean_b = blur(a), blur(b)
        var_a, var_b = blur((a - 0.5) ** 2), blur((b - 0.5) ** 2)
        var_a, var_b = var_a - (mean_a - 0.5) ** 2, var_b - (mean_b - 0.5) ** 2
        covariance = blur((a - 0.5) * (b - 0.5)) - (mean_a - 0.5) * (mean_b - 0.5)
        factor = (2 * covariance + 0.03**2) / (var_a + var_b + 0.03**2)
        if level == fitting[-1]:
            factor *= (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
        values *= np.maximum(factor.mean((0, 1)), 1e-4) ** weight
        height, width = (side // 2 * 2 for side in a.shape[:2])
        a, b = (
            (x[0:height:2, 0:width:2] + x[1:height:2, 0:width:2] + x[0:height:2, 1:width:2]
             + x[1:height:2, 1:width:2]) / 4 for x in (a, b)
        )  # fmt: skip
    return values.mean()


@pytest.mark.parametrize("shape", [(11, 14, 1), (45, 64, 3), (128, 96, 3), (177, 190, 1)])
@pytest.mark.parametrize("closeness", [0.0, 0.5, 0.95, 1.0])
def test_ms_ssim_is_the_papers(shape, closeness):
    a = pictures(*shape)
    b = (closeness * a + (1 - closeness) * pictures(*shape, seed=1)).astype(np.float32)
    expected = [reference_ms_ssim(*np.float64((x, y))) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(jax.jit(ms_ssim)(a, b), expected, atol=3e-5)
    np.testing.assert_allclose(ms_dssim(a, b), (1 - np.array(expected)) / 2, atol=2e-5)


def test_one_scale_of_ms_ssim_is_scikit_images_ssim():
    """A picture with room for one scale only: SSIM of each channel."""
    a, b = pictures(16, 21, 1), (0.7 * pictures(16, 21, 1) + 0.2).astype(np.float32)
    assert scale_count(16) == 1
    np.testing.assert_allclose(ms_ssim(a, b), reference(a, b), atol=2e-5)


@pytest.mark.parametrize(
    ("size", "count"), [(11, 1), (21, 1), (22, 2), (64, 3), (128, 4), (175, 4), (176, 5), (999, 5)]
)
def test_the_scales_that_fit_are_used(size, count):
    assert scale_count(size) == count <= len(MS_WEIGHTS)


def test_the_gradient_of_ms_ssim_is_finite_for_opposite_pictures():
    """Their structure is negative: what the paper's powers are not defined for."""
    a = jnp.asarray(pictures(32, 32))
    gradient = jax.jit(jax.grad(lambda b, a: ms_dssim(a, b).sum()))
    for b in (1 - a, a, jnp.zeros_like(a), jnp.full_like(a, 0.5)):
        assert np.isfinite(gradient(b, a)).all()
    assert np.isfinite(ms_dssim(a, 1 - a)).all()


def test_dssim_in_windows_of_any_size_is_the_originals():
    """DeepFaceLab 2.0's figures: constants, and a ramp to the right against one down."""
    constants = [(0, 1, 0.49995), (0, 0.5, 0.4998001), (0.5, 1, 0.0996716)]
    for one, other, expected in constants:
        pair = (np.full((1, 16, 16, 1), value, np.float32) for value in (one, other))
        assert float(dssim(*pair)[0]) == pytest.approx(expected, abs=5e-4)  # its float32
    across = np.broadcast_to(np.linspace(0, 1, 32, dtype=np.float32), (32, 32))[None, ..., None]
    down = across.swapaxes(1, 2)
    for window, expected in ((5, 0.4126225), (11, 0.4317733), (16, 0.4270523), (22, 0.4226687)):
        assert float(dssim(across, down, window)[0]) == pytest.approx(expected, abs=1e-5)
    for window, expected in ((11, 0.7503053), (22, 0.8125078)):
        assert float(dssim(across, 1 - across, window)[0]) == pytest.approx(expected, abs=1e-5)


def test_the_scaled_window_is_a_share_of_the_width():
    for size, windows in ((64, [5]), (128, [11]), (224, [19]), (256, [22, 11])):
        a, b = np.random.default_rng(0).random((2, 1, size, size, 1), np.float32)
        expected = np.mean([dssim(a, b, window)[0] for window in windows])
        assert float(scaled_dssim(a, b)[0]) == pytest.approx(float(expected), rel=1e-5)


def test_blur_has_the_originals_weights():
    impulse = np.zeros((1, 9, 9, 1), np.float32)
    impulse[0, 4, 4] = 1
    row = gaussian_blur(impulse, 1.0)[0, 4, :, 0]
    weights = [0.0219382, 0.0983203, 0.1621028, 0.0983203, 0.0219382]
    np.testing.assert_allclose(row, [0, 0, *weights, 0, 0], atol=1e-6)


@pytest.fixture(scope="module")
def original_case():
    """(face, prediction, true mask, predicted mask) of 64 pixels, [1, 64, 64, C]."""
    x, p, m = (
        np.random.RandomState(seed).uniform(0, 1, (1, 64, 64, channels)).astype(np.float32)
        for seed, channels in ((1, 3), (2, 3), (3, 1))
    )
    y = np.arange(64) - 31.5
    disc = ((y[:, None] ** 2 + y**2) < 400).astype(np.float32)[None, ..., None]
    return x, p, disc, m


def test_the_loss_of_saehd_is_the_originals(original_case):
    x, p, disc, m = original_case
    assert float(soft(disc).sum()) == pytest.approx(1452.437, abs=0.01)
    settings = OmegaConf.to_container(compose("train", ["loss=saehd"]).loss)
    outputs, targets = {"src": (p, m)}, {"src": {"face": x, "mask": disc}}
    loss, metrics = make_loss(settings)(outputs, targets, jnp.int32(0))
    assert 10 * float(metrics["src_face/dssim"]) == pytest.approx(2.198290, abs=1e-4)
    assert 10 * float(metrics["src_face/mse"]) == pytest.approx(0.565994, abs=1e-5)
    assert 10 * float(metrics["src_mask"]) == pytest.approx(3.350845, abs=1e-5)
    assert float(loss) == pytest.approx(6.115129, abs=1e-4)


def test_skin_goes_on_outside_of_the_mask():
    """The middle stays bit for bit; elsewhere no color comes but skin, least of all the rim's."""
    rows, cols = np.mgrid[:80, :80]
    distance = np.hypot(rows - 40, cols - 40)
    disc = (distance < 24).astype(np.float32)[None, ..., None]
    skin = np.array([0.8, 0.6, 0.4], np.float32) + 0.1 * (cols[..., None] / 80 - 0.5)
    hair = np.array([0.05, 0.02, 0.01])
    brow = (abs(rows - 24) < 2) & (abs(cols - 40) < 9)
    face = np.where((distance < 22)[..., None] & ~brow[..., None], skin, hair)
    face = face.astype(np.float32)[None]
    no_features = np.zeros_like(disc)
    found = np.asarray(extend_inside(face, disc, no_features))[0]
    middle = (distance < 15) | (brow & (distance < 18))
    np.testing.assert_array_equal(found[middle], face[0][middle])
    below = rows >= 40
    assert np.abs(found[below] - skin[below]).max() < 0.06
    near = below & (distance < 28)  # as it is at the nearest edge, not a mean of the face
    assert np.abs(found[near] - skin[near]).max() < 0.05
    assert found[brow].max() < 0.25  # the upper edge runs along the brows and stays
    above = rows < 12
    assert np.abs(found[above] - skin[above]).max() < 0.06  # and these are not carried outward
    assert np.isfinite(np.asarray(extend_inside(face, 0 * disc, no_features))).all()


def test_skin_ends_at_features():
    """Lips at the outline of a turned head stay, but for the mask's last pixels, and no red of
    theirs goes on outside."""
    rows, cols = np.mgrid[:80, :80]
    mask = (abs(rows - 40) < 30) & (cols >= 20)
    lips = (abs(rows - 50) < 3) & (cols >= 20) & (cols < 40)
    skin, red = np.array([0.8, 0.6, 0.5], np.float32), np.array([0.8, 0.4, 0.4], np.float32)
    face = np.where(lips[..., None], red, skin) * mask[..., None]
    mask, features = (m.astype(np.float32)[None, ..., None] for m in (mask, lips))
    found = np.asarray(extend_inside(face[None], mask, features))[0]
    np.testing.assert_array_equal(found[48:53, 24:40], face[48:53, 24:40])
    assert np.abs(found[:, :17] - skin).max() < 0.02
    # Without features they are rim, as a cheek is.
    plain = np.asarray(extend_inside(face[None], mask, 0 * features))[0]
    assert np.abs(plain[50, :20] - skin).max() > 0.05


def test_what_lies_outside_is_blurred_as_in_the_original(original_case):
    x, _, disc, _ = original_case
    found = np.asarray(blur_outside(x, disc))[0]
    np.testing.assert_allclose(found[0, 0], [0.355808, 0.523314, 0.086562], atol=1e-5)
    np.testing.assert_allclose(found[31, 10], [0.586914, 0.750837, 0.223484], atol=1e-5)
    assert found.mean() == pytest.approx(0.496117, abs=1e-5)
    inside = disc[0, ..., 0] == 1
    np.testing.assert_array_equal(found[inside], x[0][inside])
