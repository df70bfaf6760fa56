"""The score against scikit-image and against the published figures of the demo's truth."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from odfs_jax.errors import UserError
from odfs_jax.evaluation import (
    Truth,
    flat_face,
    frames_at,
    load_truth,
    score,
    side_by_side,
    ssim_map,
)

DEMO = Path(__file__).parent.parent / "assets" / "demo"


@pytest.fixture(scope="module")
def truth() -> list[Truth]:
    return load_truth(DEMO)


def test_ssim_map_is_that_of_scikit_image():
    x, y = np.random.default_rng(0).random((2, 40, 60))
    y = (x + y) / 2
    _, reference = structural_similarity(
        x, y, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    np.testing.assert_allclose(ssim_map(x, y), reference, atol=1e-10)


def test_the_truth_scores_full_and_a_shift_of_tone_keeps_its_structure(truth):
    perfect = score(truth[3].image, truth[3])
    assert perfect.ssim == pytest.approx(1)
    assert perfect.correlation == pytest.approx(1)
    assert perfect.error == perfect.error_matched == 0
    brighter = np.clip(truth[3].image, 0, 235) + np.uint8(20)
    clipped = dataclasses.replace(truth[3], image=np.clip(truth[3].image, 0, 235))
    shifted = score(brighter, clipped)
    assert shifted.ssim == pytest.approx(1)
    assert shifted.error == pytest.approx(20 / 255)
    assert shifted.error_matched == pytest.approx(0, abs=1e-9)


def test_only_the_inside_of_the_hull_counts(truth):
    far = ~cv2.dilate(truth[0].inside.astype(np.uint8), np.ones((13, 13))).astype(bool)
    noise = np.random.default_rng(0).integers(0, 256, truth[0].image.shape, np.uint8)
    image = np.where(far[..., None], noise, truth[0].image)
    assert score(image, truth[0]).ssim == pytest.approx(1)


@pytest.mark.parametrize(("sigma", "expected"), [(1.5, 0.943), (3, 0.873), (5, 0.810)])
def test_blurred_truth_scores_as_published(truth, sigma, expected):
    blurred = [cv2.GaussianBlur(t.image, (0, 0), sigma) for t in truth]
    mean = np.mean([score(b, t).ssim for b, t in zip(blurred, truth, strict=True)])
    assert mean == pytest.approx(expected, abs=5e-4)


def test_untouched_dst_scores_as_published(truth):
    frames = frames_at(DEMO / "dst.mp4", [t.frame for t in truth])
    scores = [score(f, t) for f, t in zip(frames, truth, strict=True)]
    assert len(scores) == 30
    # Published with OpenCV's decoder (.6610), which takes this BT.709 clip for BT.601; ours: .6616.
    assert np.mean([s.ssim for s in scores]) == pytest.approx(0.661, abs=1e-3)
    assert np.mean([s.error_matched for s in scores]) == pytest.approx(0.061, abs=5e-4)


def test_correlation_sees_through_a_flat_face(truth):
    frames = frames_at(DEMO / "dst.mp4", [t.frame for t in truth])
    flat = [score(flat_face(f, t), t) for f, t in zip(frames, truth, strict=True)]
    untouched = [score(f, t) for f, t in zip(frames, truth, strict=True)]
    assert np.mean([s.ssim for s in flat]) > np.mean([s.ssim for s in untouched])
    assert all(s.correlation == 0 for s in flat)
    for seen, t, frame in zip(untouched, truth, frames, strict=True):
        luma = [(image / 255.0 @ [0.299, 0.587, 0.114])[t.inside] for image in (frame, t.image)]
        assert seen.correlation == pytest.approx(np.corrcoef(*luma)[0, 1])


def test_frames_are_matched_by_their_number(truth):
    with pytest.raises(UserError, match="frame 150 is missing"):
        frames_at(DEMO / "dst.mp4", [0, 150])
    with pytest.raises(UserError, match="frame 0 is"):
        score(truth[0].image[:-1], truth[0])


def test_the_comparison_shows_the_same_cut_in_each_column(truth):
    rows = [(t.image, 255 - t.image) for t in truth[:2]]
    picture = side_by_side(rows, truth[:2], 96)
    assert picture.shape == (192, 192, 3)
    assert np.abs(255 - picture[:, 96:].astype(int) - picture[:, :96]).max() <= 1
    centre = truth[0].landmarks[30].round().astype(int)  # the nose, near the middle of the cut
    box = 0.6 * np.ptp(truth[0].landmarks, 0).max()
    middle = (truth[0].landmarks.min(0) + truth[0].landmarks.max(0)) / 2
    x, y = ((truth[0].landmarks[30] - middle) / box * 48 + 48).round().astype(int)
    assert np.abs(picture[y, x].astype(int) - truth[0].image[centre[1], centre[0]]).max() < 20
