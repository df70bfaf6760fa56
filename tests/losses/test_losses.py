"""The losses against scikit-image and numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from odfs_jax.errors import UserError
from odfs_jax.losses import dssim, mae, make_loss, mse
from odfs_jax.losses.dssim import ssim

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


@pytest.fixture
def pairs():
    """(outputs, targets) of a batch of three, with masks of 0 and 1."""
    outputs = {s: (pictures(16, 16, 3, n), pictures(16, 16, 1, n)) for n, s in enumerate(SIDES, 1)}
    targets = {
        side: (pictures(16, 16, 3, n), (pictures(16, 16, 1, n) > 0.5).astype(np.float32))
        for n, side in enumerate(SIDES, 5)
    }
    return outputs, targets


SIDES = ("src", "dst")
USUAL = {"face": "dssim", "mask": "mae", "face_weight": 1.0, "mask_weight": 1.0}


def test_the_loss_is_the_weighted_sum_of_its_terms(pairs):
    outputs, targets = pairs
    total, terms = make_loss(USUAL | {"face_weight": 3.0, "mask_weight": 0.25})(*pairs)
    for side in SIDES:
        (face, mask), (true_face, true_mask) = outputs[side], targets[side]
        masked = (1 - reference(true_face * true_mask, face * true_mask)) / 2
        assert float(terms[f"{side}_face"]) == pytest.approx(masked.mean(), abs=2e-5)
        expected = np.abs(mask - true_mask).mean()
        assert float(terms[f"{side}_mask"]) == pytest.approx(expected, rel=1e-5)
    assert set(terms) == {"src_face", "src_mask", "dst_face", "dst_mask"}
    weights = {"face": 3.0, "mask": 0.25}
    expected = sum(weights[name.split("_")[1]] * float(value) for name, value in terms.items())
    assert float(total) == pytest.approx(expected, rel=1e-5)


def test_what_is_outside_the_mask_does_not_count(pairs):
    outputs, targets = pairs
    loss = make_loss(USUAL)
    true_mask = targets["src"][1]
    face, mask = outputs["src"]
    painted = np.where(true_mask > 0, face, 1 - face)
    assert loss(outputs | {"src": (painted, mask)}, targets)[0] == loss(*pairs)[0]
    inside = np.where(true_mask > 0, 1 - face, face)
    assert loss(outputs | {"src": (inside, mask)}, targets)[0] != loss(*pairs)[0]


def test_a_perfect_network_loses_nothing(pairs):
    _, targets = pairs
    total, _ = make_loss(USUAL | {"mask": "mse"})(targets, targets)
    assert float(total) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"face": "dsim"}, r"loss\.face=dsim: expected one of dssim"),
        ({"mask": "bce"}, r"loss\.mask=bce: expected one of mae, mse"),
    ],
)
def test_unknown_terms_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        make_loss(USUAL | changes)
