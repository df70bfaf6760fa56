"""DeepFaceLab 2.0's terms: its own numbers (saehd), face and background style by hand; light."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from odfs_jax.config import compose
from odfs_jax.errors import UserError
from odfs_jax.losses import dssim, make_loss, mse
from odfs_jax.losses.terms import blur_outside, light_distance, scaled_dssim, soft, style_distance

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


@pytest.mark.parametrize("name", ["face_style", "background_style", "light"])
def test_a_weight_below_zero_is_named(name):
    with pytest.raises(UserError, match=rf"loss\.{name}=-1"):
        make_loss(compose("train", [f"loss.{name}=-1"]).loss)


def light_case(shade=1.0, albedo=1.0, beard=1.0):
    """(face, dst, mask, features) of even skin: a shade on part of the face, a beard on dst's."""
    rows, cols = np.mgrid[:80, :80]
    mask = (np.hypot(rows - 40, cols - 40) < 30).astype(np.float32)[None, ..., None]
    features = ((abs(rows - 30) < 4) & (abs(abs(cols - 40) - 12) < 6)).astype(np.float32)
    skin = np.array([0.8, 0.6, 0.5], np.float32) * (1 + 0.2 * (rows / 80 - 0.5))[..., None]
    cheek = np.where((abs(rows - 42) < 5) & (abs(cols - 32) < 4), shade, 1.0)[..., None]
    chin = np.where(rows > 52, beard, 1.0)[..., None]
    face, dst = (np.float32(p)[None] for p in (albedo * skin * cheek, skin * chin))
    return face, dst, mask, features[None, ..., None]


def test_light_is_what_dst_does_not_explain():
    """A shadow counts, and a highlight; skin that is darker all over does not, nor dst's beard."""
    even = float(light_distance(*light_case())[0])
    assert even < 1e-6
    assert float(light_distance(*light_case(albedo=0.5))[0]) < 1e-6
    assert float(light_distance(*light_case(beard=0.4))[0]) < 1e-4
    weak, strong = (float(light_distance(*light_case(shade=s))[0]) for s in (0.7, 0.4))
    assert 1e-4 < weak < strong
    assert float(light_distance(*light_case(shade=1.5))[0]) > 1e-4
    face, dst, mask, features = light_case(shade=0.4)
    everywhere = np.ones_like(features)  # where an eye or a mouth is, light is not seen
    assert float(light_distance(face, dst, mask, everywhere)[0]) == 0
    # What is learned of it is to lift the shadow.
    slope = jax.grad(lambda f: light_distance(f, dst, mask, features).sum())(jnp.asarray(face))
    assert np.isfinite(slope).all()
    assert slope[0, 42, 32].max() < 0


def test_a_black_face_has_a_finite_slope(drawn):
    x, _ = drawn[:2]
    black = jnp.zeros_like(x)
    area = jnp.ones_like(x[..., :1])
    slope = jax.grad(lambda f: light_distance(f, black, area, 0 * area).sum())(black)
    assert np.isfinite(slope).all()
