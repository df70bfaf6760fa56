"""The training loss: which terms it is made of, with what weights, seen where."""

from dataclasses import replace
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from omegaconf import OmegaConf
from skimage.metrics import structural_similarity

from odfs_jax.config import LossConfig, compose, config_dir
from odfs_jax.errors import UserError
from odfs_jax.losses import make_loss, ms_dssim
from odfs_jax.losses.terms import dilate

SIDES = ("src", "dst")
PARTS = ("face", "mask")


def settings(face=None, **changes):
    """A `LossConfig`: DSSIM and MAE of the mask unless told."""
    config = OmegaConf.structured(LossConfig(mask="mae"))
    return OmegaConf.to_container(
        OmegaConf.merge(config, {"face": {"dssim": 1.0} if face is None else face}, changes)
    )


def pictures(channels, seed, size=16):
    return np.random.default_rng(seed).random((3, size, size, channels), np.float32)


@pytest.fixture
def pairs():
    """(outputs, targets) of a batch of three, with masks of 0 and 1, eyes and mouth as well."""
    outputs = {s: (pictures(3, n), pictures(1, n)) for n, s in enumerate(SIDES, 1)}
    targets = {s: target(pictures(3, n), pictures(2, n) > 0.5) for n, s in enumerate(SIDES, 5)}
    return outputs, targets


def target(face, areas):
    """A face with its mask and that of eyes and mouth, the two channels of `areas`."""
    areas = areas.astype(np.float32)
    return {"face": face, "mask": areas[..., :1], "eyes_mouth": areas[..., 1:]}


def dssim(target, prediction):
    """scikit-image's, in float64."""
    values = []
    for one, other in zip(np.float64(target), np.float64(prediction), strict=True):
        _, full = structural_similarity(
            one, other, win_size=11, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
            data_range=1.0, channel_axis=-1, full=True,
        )  # fmt: skip
        values.append((1 - full[5:-5, 5:-5].mean()) / 2)
    return np.mean(values)


FACE = {
    "dssim": dssim,
    "ms_ssim": lambda a, b: float(ms_dssim(a, b).mean()),  # itself tested in test_losses.py
    "mae": lambda a, b: np.abs(np.float64(a) - b).mean(),
    "mse": lambda a, b: ((np.float64(a) - b) ** 2).mean(),
}


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(
    "weights",
    [{"dssim": 1.0}, {"ms_ssim": 1.0}, {"mae": 1.0}, {"mse": 1.0}, {"dssim": 3.0, "mae": 0.5}],
)
def test_the_loss_is_the_weighted_sum_of_its_terms(pairs, weights, masked):
    outputs, targets = pairs
    config = settings(weights, mask="mse", mask_weight=0.25, masked=masked)
    total, terms = jax.jit(make_loss(config))(outputs, targets, 0)
    of_face = {f"{side}_face/{name}" for side in SIDES for name in weights}
    assert set(terms) == {"src_face", "src_mask", "dst_face", "dst_mask"} | of_face
    expected = 0.0
    for side in SIDES:
        (face, mask), true_face, true_mask = (outputs[side], *map(targets[side].get, PARTS))
        inside = true_mask if masked else 1.0
        face_term = 0.0
        for name, weight in weights.items():
            term = FACE[name](true_face * inside, face * inside)
            assert float(terms[f"{side}_face/{name}"]) == pytest.approx(term, rel=1e-4, abs=2e-5)
            face_term += weight * term
        mask_term = ((np.float64(mask) - true_mask) ** 2).mean()
        assert float(terms[f"{side}_face"]) == pytest.approx(face_term, rel=1e-4, abs=2e-5)
        assert float(terms[f"{side}_mask"]) == pytest.approx(mask_term, rel=1e-5)
        expected += face_term + 0.25 * mask_term
    assert float(total) == pytest.approx(expected, rel=1e-4)


def test_eyes_and_mouth_add_their_own_error(pairs):
    outputs, targets = pairs
    plain, _ = make_loss(settings())(outputs, targets, 0)
    total, terms = jax.jit(make_loss(settings(eyes_mouth=5.0)))(outputs, targets, 0)
    added = 0.0
    for side in SIDES:
        error = np.abs(np.float64(targets[side]["face"]) - outputs[side][0]).mean(-1)
        area = np.float64(targets[side]["eyes_mouth"][..., 0])
        expected = ((error * area).sum((1, 2)) / area.sum((1, 2))).mean()
        assert float(terms[f"{side}_eyes_mouth"]) == pytest.approx(expected, rel=1e-5)
        added += 5.0 * expected
    assert float(total) == pytest.approx(float(plain) + added, rel=1e-5)


def value(loss, outputs, targets):
    return loss(outputs, targets, 0)[0]


def test_what_is_outside_the_mask_does_not_count(pairs):
    outputs, targets = pairs
    loss, whole = make_loss(settings()), make_loss(settings(masked=False))
    true_mask = targets["src"]["mask"]
    face, mask = outputs["src"]
    painted = outputs | {"src": (np.where(true_mask > 0, face, 1 - face), mask)}
    assert value(loss, painted, targets) == value(loss, *pairs)
    assert value(whole, painted, targets) != value(whole, *pairs)
    inside = outputs | {"src": (np.where(true_mask > 0, 1 - face, face), mask)}
    assert value(loss, inside, targets) != value(loss, *pairs)


def test_a_margin_counts_what_lies_around_the_mask(pairs):
    outputs, targets = pairs
    areas = np.zeros((3, 16, 16, 2), np.float32)
    areas[:, 5:9, 4:10] = 1
    targets = targets | {"src": target(targets["src"]["face"], areas)}
    reach = 2  # 0.1 of 16 pixels
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    grown = np.stack([cv2.dilate(mask, kernel) for mask in areas[..., 0]])[..., None]
    np.testing.assert_array_equal(dilate(areas[..., :1], 0.1), grown)
    loss = make_loss(settings(margin=0.1))
    face, mask = outputs["src"]
    beyond, rim = (
        outputs | {"src": (np.where(area > 0, face, 1 - face), mask)}
        for area in (grown, areas[..., :1])
    )
    assert value(loss, beyond, targets) == value(loss, outputs, targets)
    assert value(loss, rim, targets) != value(loss, outputs, targets)


def test_a_weight_may_change_with_the_iteration(pairs):
    """As a term's that is to begin late, or to fade in."""
    loss = make_loss(settings())
    _, term = loss.terms["mask"]
    late = replace(loss, terms=loss.terms | {"mask": (lambda step: jnp.minimum(step, 4) / 4, term)})
    without = make_loss(settings(mask_weight=0.0))
    values = [float(jax.jit(late)(*pairs, step)[0]) for step in (0, 2, 4, 9)]
    first, last = float(value(without, *pairs)), float(value(loss, *pairs))
    assert values == pytest.approx([first, (first + last) / 2, last, last]) and first < last


@pytest.mark.parametrize("name", [f.stem for f in sorted(Path(config_dir()).glob("loss/*.yaml"))])
def test_a_perfect_network_loses_nothing(pairs, name):
    loss = make_loss(OmegaConf.to_container(compose("train", [f"loss={name}"]).loss))
    outputs, targets = pairs
    same = {side: (target["face"], target["mask"]) for side, target in targets.items()}
    assert float(value(loss, same, targets)) == pytest.approx(0, abs=1e-6)
    assert float(value(loss, outputs, targets)) > 0.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"face": {}},
            r"loss\.face: all weights are 0, .*: loss\.face\.dssim, loss\.face\.ms_ssim",
        ),
        ({"face": {"mae": -1.0}}, r"loss\.face\.mae=-1.0: expected a weight of 0 or more"),
        ({"mask": "bce"}, r"loss\.mask=bce: expected one of mae, mse"),
        ({"mask_weight": -2.0}, r"loss\.mask_weight=-2.0: expected a weight"),
        ({"margin": 0.6}, r"loss\.margin=0.6: expected a share of the width"),
        ({"eyes_mouth": -0.5}, r"loss\.eyes_mouth=-0.5: expected a weight"),
    ],
)
def test_mistakes_name_the_key(changes, message):
    with pytest.raises(UserError, match=message):
        make_loss(settings(**changes))
