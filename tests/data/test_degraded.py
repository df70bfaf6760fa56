"""Inputs made worse, against OpenCV; src's faces in dst's colors, against the conversion's."""

from functools import partial

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from odfs_jax.config import compose
from odfs_jax.data import augment
from odfs_jax.errors import UserError
from odfs_jax.faces.colors import TRANSFERS
from odfs_jax.faces.spec import FaceSpec
from odfs_jax.faces.types import FaceType

SIZE = 64


def picture(seed, gain=(1.0, 1.0, 1.0)):
    """uint8 [64, 64, 3]: smooth, in three colors."""
    noise = np.random.default_rng(seed).random((8, 8, 3)) * gain
    return cv2.resize((60 + 150 * noise).astype(np.uint8), (SIZE, SIZE), interpolation=2)


@pytest.fixture(scope="module")
def face():
    return jnp.asarray(picture(0), jnp.float32) / 255


@pytest.mark.parametrize("count", [64, 40, 16])
def test_fewer_pixels_and_as_many_again(face, count):
    share = jnp.float32(1 - count / SIZE)
    found = augment.along_both(augment.shrinking(SIZE, share), face)
    small = cv2.resize(np.asarray(face), (count, count), interpolation=cv2.INTER_AREA)
    expected = cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_a_blur_is_gaussian_away_from_the_edge(face):
    found = augment.along_both(augment.blurring(SIZE, jnp.float32(1.5)), face)
    expected = cv2.GaussianBlur(np.asarray(face), (31, 31), 1.5)
    np.testing.assert_allclose(found[8:-8, 8:-8], expected[8:-8, 8:-8], atol=1e-4)
    kept = augment.along_both(augment.blurring(SIZE, jnp.float32(0)), face)
    np.testing.assert_allclose(kept, face, atol=1e-5)


@pytest.mark.parametrize("quality", [20, 60, 95])
def test_what_jpeg_loses(face, quality):
    found = np.asarray(jax.jit(augment.compressed)(face, jnp.float32(quality)))
    bgr = np.rint(255 * np.asarray(face)[..., ::-1]).astype(np.uint8)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
    _, data = cv2.imencode(".jpg", bgr, options)
    expected = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1] / 255
    assert np.abs(found - expected).mean() < 1.5 / 255  # OpenCV's values are whole numbers
    assert np.abs(found - face).mean() > 0.7 * np.abs(expected - face).mean()


def test_each_loss_is_off_at_zero_and_reaches_its_bound(face):
    off = dict.fromkeys(augment.LOSSES, 0.0)
    keys = jax.random.split(jax.random.key(0), 16)
    for name, most in (("blur", 3.0), ("shrink", 0.75), ("noise", 0.2), ("jpeg", 0.95)):
        draw = jax.jit(
            jax.vmap(partial(augment.degraded, augment_cfg=off | {name: most}), (0, None))
        )
        found = np.asarray(draw(keys, face))
        assert found.min() >= 0 and found.max() <= 1
        changes = np.abs(found - np.asarray(face)).mean((1, 2, 3))
        assert changes.min() < changes.max() / 3
    np.testing.assert_array_equal(augment.degraded(keys[0], face, off), face)


@pytest.mark.parametrize("name", augment.COLOR_TRANSFERS[1:])
def test_src_takes_on_dsts_colors(name):
    """Faces that are stored as the network takes them: what merge.color would do, exactly."""
    spec = FaceSpec(FaceType.HALF, SIZE)
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    masks = [np.where(np.hypot(x - shift, y) < 24, 255, 0).astype(np.uint8) for shift in (-3, 4)]
    src, dst = (
        jnp.asarray(np.concatenate([picture(seed, gain), mask[..., None]], -1))
        for seed, gain, mask in ((1, (1, 0.6, 0.4), masks[0]), (2, (0.3, 0.5, 0.8), masks[1]))
    )
    still = jnp.asarray(np.eye(2, 3, dtype=np.float32))
    settings = {"color_transfer": name}

    @jax.jit
    def run(src, dst):
        move = augment.recoloring(settings, (src, still, spec), (dst, still, spec), 0)
        return move(src[..., :3].astype(jnp.float32) / 255)

    faces = [jnp.asarray(f[..., :3], jnp.float32)[None] / 255 for f in (src, dst)]
    where = jnp.asarray((masks[0] > 0) & (masks[1] > 0))[None, ..., None]
    transfer = TRANSFERS[name]
    expected = jax.jit(lambda a, b: transfer.apply(a, transfer.measure(a, b, where)))(*faces)[0]
    found = np.asarray(run(src, dst))
    np.testing.assert_allclose(found, expected, atol=2e-3)
    inside = np.asarray(where[0, ..., 0])
    wanted = np.asarray(faces[1][0])[inside].mean(0)
    before = np.abs(np.asarray(faces[0][0])[inside].mean(0) - wanted).max()
    assert np.abs(found[inside].mean(0) - wanted).max() < 0.2 * before


def test_an_input_and_its_target_change_alike():
    spec = FaceSpec(FaceType.HALF, 16)
    stored = [
        np.concatenate([picture(s), np.full((SIZE, SIZE, 1), 255, np.uint8)], -1) for s in (1, 2)
    ]
    cut = jnp.array([[4.0, 0, 1.5], [0, 4.0, 1.5]])
    settings = augment.of_side(compose("train", ["augment.color_transfer=mkl"]).augment, "src")
    settings |= dict.fromkeys(("rotation", "scale", "shift", "flip", "warp"), 0.0)

    @jax.jit
    def run(src, dst):
        drawn = {"input_spec": spec, "target_specs": {"src": spec}, "masks": ("mask",)}
        sample = partial(augment.sample, jax.random.key(0), src, cut, augment_cfg=settings, **drawn)
        return sample(lender=(dst, cut, spec)), sample()

    (warped, targets), (plain, _) = run(*stored)
    np.testing.assert_allclose(warped, targets["src"]["face"], atol=1e-4)
    assert np.abs(warped - plain).mean() > 0.01


def test_a_transfer_that_there_is_not_is_named():
    with pytest.raises(UserError, match=r"augment\.color_transfer=hist: expected one of none, rct"):
        augment.check_colors({"color_transfer": "hist"})
