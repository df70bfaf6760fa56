"""DeepFaceLab 2.0's terms: its own numbers (saehd), and face and background style by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from odfs_jax.config import compose
from odfs_jax.errors import UserError
from odfs_jax.losses import dssim, make_loss, mse
from odfs_jax.losses.terms import blur_outside, scaled_dssim, soft, style_distance

SIZE = 64


@pytest.fixture(scope="module")
def drawn():
    """Faces X, P and the mask m that is predicted, all noise, and the true mask, a disc."""
    x, p, m = (
        np.random.RandomState(seed).uniform(0, 1, (1, SIZE, SIZE, channels)).astype(np.float32)
        for seed, channels in ((1, 3), (2, 3), (3, 1))
    )
    y, z = np.mgrid[:SIZE, :SIZE] - 31.5
    disc = (y**2 + z**2 < 400).astype(np.float32)[None, :, :, None]
    return tuple(jnp.asarray(picture) for picture in (x, p, m, disc))


def test_the_numbers_of_the_original(drawn):
    x, p, m, mask = drawn
    area = soft(mask)
    assert float(area.sum()) == pytest.approx(1452.437, abs=0.01)
    assert 10 * float(scaled_dssim(x * area, p * area)[0]) == pytest.approx(2.198290, abs=1e-4)
    assert 10 * float(mse(x * area, p * area)[0]) == pytest.approx(0.565994, abs=1e-5)
    assert 10 * float(mse(mask, m)[0]) == pytest.approx(3.350845, abs=1e-5)
    outside = blur_outside(x, mask)
    np.testing.assert_allclose(outside[0, 0, 0], (0.355808, 0.523314, 0.086562), atol=1e-5)
    np.testing.assert_allclose(outside[0, 31, 10], (0.586914, 0.750837, 0.223484), atol=1e-5)
    assert float(style_distance(x * area, p * area)[0]) == pytest.approx(4.2875e-6, rel=1e-3)


def test_a_style_is_a_channels_mean_and_spread(drawn):
    """Pictures of one color have the spread of their faded border only: nearly the mean's."""
    flat = jnp.ones((1, SIZE, SIZE, 3)) * jnp.array([0.2, 0.5, 0.8]).reshape(1, 1, 1, 3)
    assert float(style_distance(flat, flat)[0]) == 0
    near, far = (float(style_distance(flat, flat * gain)[0]) for gain in (0.9, 0.5))
    assert 0 < 20 * near < far
    mirrored = drawn[0][:, :, ::-1]
    assert float(style_distance(drawn[0], mirrored)[0]) < 1e-9  # place does not count


def test_styles_are_terms_of_the_new_face(drawn):
    x, p, m, mask = drawn
    config = compose("train", ["loss.face_style=2.0", "loss.background_style=3.0"]).loss
    loss, plain = make_loss(config), make_loss(compose("train").loss)
    assert loss.of_swap and not plain.of_swap
    swap, rebuilt = (p, m, 1 - 0.5 * m), (x[:, ::-1], m)
    outputs = {"src": (p, m), "dst": rebuilt, "swap": swap, "decoded_swap": swap}
    targets = {"src": {"face": x, "mask": mask}, "dst": {"face": p[:, ::-1], "mask": mask}}
    value, metrics = loss(outputs, targets, jnp.int32(0))
    without, _ = plain(outputs, targets, jnp.int32(0))
    style = style_distance(p * m, rebuilt[0] * m)[0]
    outside = 1 - soft(m * (1 - 0.5 * m))
    pair = targets["dst"]["face"] * outside, p * outside
    window = int(SIZE / 11.6)
    background = dssim(*pair, window)[0] + mse(*pair)[0]
    assert float(metrics["swap_style"]) == pytest.approx(float(style), rel=1e-5)
    assert float(metrics["swap_background"]) == pytest.approx(float(background), rel=1e-5)
    added = 2.0 * style + 3.0 * background
    assert float(value - without) == pytest.approx(float(added), rel=1e-4)


def test_masks_are_not_moved_by_styles(drawn):
    x, p, m, mask = drawn
    loss = make_loss(compose("train", ["loss.face_style=1", "loss.background_style=1"]).loss)
    targets = {side: {"face": x, "mask": mask} for side in ("src", "dst")}

    def of_mask(m):
        swap = (p, m, m)
        outputs = {"src": (p, mask), "dst": (p, mask), "swap": swap, "decoded_swap": swap}
        return loss(outputs, targets, jnp.int32(0))[0]

    assert not np.asarray(jax.grad(of_mask)(m)).any()


@pytest.mark.parametrize("name", ["face_style", "background_style"])
def test_a_weight_below_zero_is_named(name):
    with pytest.raises(UserError, match=rf"loss\.{name}=-1"):
        make_loss(compose("train", [f"loss.{name}=-1"]).loss)
