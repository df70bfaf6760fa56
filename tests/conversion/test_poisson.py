"""Poisson blending against cv2.seamlessClone, on random pictures and on the actors."""

from pathlib import Path

import cv2
import jax
import numpy as np
import pytest

from odfs_jax.conversion.poisson import SMALL, clone

DATA = Path(__file__).parents[1] / "extraction" / "data"
cloned = jax.jit(clone)


def random_pair(side: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 196, (2, 7, 7, 3)).astype(np.uint8)
    fine = [cv2.resize(p, (side, side), interpolation=cv2.INTER_CUBIC) for p in coarse]
    return tuple(np.clip(p + rng.integers(-5, 6, p.shape), 0, 255).astype(np.uint8) for p in fine)


def ellipse(side: int, height: float, turn: float) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    axes = (int(0.7 * height), int(height))
    cv2.ellipse(mask, (side // 2 - 3, side // 2 + 2), axes, turn, 0, 360, 255, -1)
    return mask


def opencv(region: np.ndarray, face: np.ndarray, mask: np.ndarray) -> np.ndarray:
    x, y, width, height = cv2.boundingRect(mask)
    middle = (x + width // 2, y + height // 2)
    return cv2.seamlessClone(face, region, mask.copy(), middle, cv2.NORMAL_CLONE)


def assert_equal(regions, faces, masks) -> None:
    """The bounds of issue 5; half a step is OpenCV's cutting off of decimals."""
    ours = cloned(regions / np.float32(255), faces / np.float32(255), masks > 0)
    for region, face, mask, result in zip(regions, faces, masks, ours, strict=True):
        away = np.abs(np.clip(np.asarray(result) * 255, 0, 255) - opencv(region, face, mask))
        away = away[mask > 0]
        assert away.mean() < 1 and np.percentile(away, 99.9) < 3


@pytest.mark.parametrize("side", [96, SMALL + 64])
def test_equals_seamless_clone_on_random_pictures(side):
    pairs = [random_pair(side, seed) for seed in range(3)]
    masks = [ellipse(side, side * share, turn) for share, turn in ((0.2, 0), (0.35, 20), (0.45, 5))]
    regions, faces = (np.stack(p) for p in zip(*pairs, strict=True))
    assert_equal(regions, faces, np.stack(masks))


def test_equals_seamless_clone_on_the_actors():
    files = sorted(DATA.glob("*.png")) or sorted(DATA.glob("*.jpg"))
    pictures = [cv2.resize(cv2.imread(str(f)), (160, 160)) for f in (files[0], files[-1])]
    regions, faces = np.stack(pictures), np.stack(pictures[::-1])
    assert_equal(regions, faces, np.stack([ellipse(160, 60, 0), ellipse(160, 45, 12)]))


def test_an_empty_mask_changes_nothing():
    region, face = random_pair(96, 0)
    masks = np.zeros((1, 96, 96), bool)
    result = cloned(region[None] / np.float32(255), face[None] / np.float32(255), masks)
    np.testing.assert_array_equal(result[0], region / np.float32(255))
