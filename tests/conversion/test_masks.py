"""Erosion, dilation and blur against OpenCV; the 2018 program's formulas; alpha without an edge."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from odfs_jax.conversion.masks import (
    MaskSettings,
    blend_mask,
    box_blur,
    dilate,
    erode,
    kernel_sizes,
    solid_side,
)

SIDE = 72
SIZES = np.array([0, 1, 2, 7, 16, 33], np.int32)
MAX_SIZE = 40
jitted_blend_mask = jax.jit(blend_mask, static_argnums=(2, 3))


def random_masks() -> np.ndarray:
    noise = np.random.default_rng(1).random((len(SIZES), SIDE, SIDE), np.float32)
    return np.stack([cv2.GaussianBlur(mask, (0, 0), 1.5) for mask in noise])


def face_masks() -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), np.float32)
    cv2.ellipse(mask, (33, 38), (20, 28), 17, 0, 360, 1.0, -1)
    return np.tile(cv2.GaussianBlur(mask, (0, 0), 0.8), (len(SIZES), 1, 1))


def ellipse(size: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))


@pytest.mark.parametrize("masks", [random_masks(), face_masks()], ids=["noise", "face"])
@pytest.mark.parametrize(("ours", "theirs"), [(erode, cv2.erode), (dilate, cv2.dilate)])
def test_morphology_equals_opencv(masks, ours, theirs):
    results = jax.jit(ours, static_argnums=2)(masks, SIZES, MAX_SIZE)
    for mask, size, result in zip(masks, SIZES, results, strict=True):
        zeros = {"borderType": cv2.BORDER_CONSTANT, "borderValue": 0.0}
        expected = theirs(mask, ellipse(int(size)), **zeros) if size else mask
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("masks", [random_masks(), face_masks()], ids=["noise", "face"])
def test_blur_equals_opencv(masks):
    results = jax.jit(box_blur, static_argnums=2)(masks, SIZES, MAX_SIZE)
    for mask, size, result in zip(masks, SIZES, results, strict=True):
        frame = cv2.copyMakeBorder(mask, *[MAX_SIZE] * 4, cv2.BORDER_CONSTANT, value=0.0)
        blurred = cv2.blur(frame, (int(size), int(size))) if size else frame
        expected = blurred[MAX_SIZE:-MAX_SIZE, MAX_SIZE:-MAX_SIZE]
        np.testing.assert_allclose(result, expected, atol=2e-5)


def test_solid_side_is_the_shorter_side_of_the_bounding_box():
    masks = np.zeros((3, 40, 40), np.float32)
    masks[0, 5:21, 7:31] = 0.95
    masks[1, 3:30, 20:28] = 1.0
    masks[1, 0:40, 0:40] += 0.1 * (masks[1] == 0)
    masks[2] = 0.9  # not above
    assert solid_side(jnp.array(masks)).tolist() == [15, 7, 0]


@pytest.mark.parametrize(("erosion", "blur"), [(130, 100), (30, 0), (-70, 200), (0, -50)])
def test_kernel_sizes_follow_the_2018_program(erosion, blur):
    sides = np.array([0, 60, 155, 500, 1200])
    settings = MaskSettings(erode=erosion, blur=blur, border=0.0, smooth=False)
    eroded, blurred = kernel_sizes(jnp.array(sides), settings.kernels)
    for side, e, b in zip(sides, eroded, blurred, strict=True):
        assert abs(int(e) - int(side * (0.126 - side * 0.00004551365) * 0.01 * abs(erosion))) <= 1
        assert abs(int(b) - int(side * 0.10 * 0.01 * max(blur, 0))) <= 1
        assert e <= settings.max_erode(int(side) + 1)
        assert b <= settings.max_blur(int(side) + 1)


def upright(resolution: int, face: float, offset: float) -> np.ndarray:
    """A matrix [1, 2, 3] for a face square of `face` pixels whose edge is `offset` pixels in."""
    scale = resolution / face
    shift = -(offset - 0.5) * scale - 0.5
    return np.array([[[scale, 0, shift], [0, scale, shift]]], np.float32)


def test_alpha_is_the_eroded_and_blurred_mask_away_from_the_square():
    mask = np.zeros((1, 128, 128), np.float32)
    cv2.ellipse(mask[0], (64, 64), (30, 40), 0, 0, 360, 1.0, -1)
    settings = MaskSettings(erode=100, blur=100, border=0.0, smooth=False)
    mask_of_blend = jitted_blend_mask(jnp.array(mask), upright(64, 110, 9), 64, settings)
    length = float(mask_of_blend.side[0])
    erosion, blur = int(length * (0.126 - length * 0.00004551365)), int(length * 0.1)
    assert (length, erosion, blur) == (60, 7, 6)
    expected = cv2.blur(cv2.erode(mask[0], ellipse(erosion)), (blur, blur))
    np.testing.assert_allclose(mask_of_blend.alpha[0], expected, atol=2e-4)
    np.testing.assert_array_equal(mask_of_blend.solid[0], cv2.erode(mask[0], ellipse(erosion)))


@pytest.mark.parametrize(
    ("erosion", "blur", "border"),
    [(-100, 100, 0.0), (-100, 300, 0.046875), (100, 300, 0.0), (100, 100, 0.046875)],
)
def test_no_straight_edge_whatever_the_settings(erosion, blur, border):
    """A mask that fills the face square falls off towards the square's edge and is 0 beyond."""
    square = slice(20, 108)  # 88 pixels
    mask = np.zeros((1, 128, 128), np.float32)
    mask[0, square, square] = 1
    settings = MaskSettings(erosion, blur, border, smooth=False)
    alpha = np.asarray(
        jitted_blend_mask(jnp.array(mask), upright(64, 88, 20), 64, settings).alpha[0]
    )
    outside = np.ones_like(mask[0], bool)
    outside[square, square] = False
    assert (alpha[outside] == 0).all()
    assert alpha[64, 64] == pytest.approx(1, abs=1e-3)
    reaches = [pixels for pixels in (blur * 0.001 * 87 / 2, border * 88) if pixels]
    assert np.abs(np.diff(alpha[64])).max() <= 1.5 * sum(1 / pixels for pixels in reaches)


def test_faint_masks_are_dropped_and_no_solid_mask_means_no_face():
    masks = np.zeros((2, 64, 64), np.float32)
    masks[0, 16:48, 16:48] = 1.0
    masks[0, 50:56, 16:48] = 0.1  # at the floor
    masks[1, 16:48, 16:48] = 0.89
    plain = MaskSettings(erode=0, blur=0, border=0.0, smooth=False)
    matrices = np.tile(upright(64, 60, 2), (2, 1, 1))
    mask_of_blend = jitted_blend_mask(jnp.array(masks), matrices, 64, plain)
    alpha, side = mask_of_blend.alpha, mask_of_blend.side
    assert side.tolist() == [31, 0]
    assert (np.asarray(alpha[0, 50:56]) == 0).all()
    assert (np.asarray(alpha[1]) == 0).all()


@pytest.mark.parametrize(("erosion", "blur"), [(33, 65), (-100, 1), (64, 128)])
def test_a_program_for_larger_kernels_serves_smaller_ones(erosion, blur):
    settings = MaskSettings(erosion, blur, 0.0, smooth=False)
    rounded = settings.rounded()
    assert abs(erosion) <= abs(rounded.erode) < 2 * abs(erosion) and blur <= rounded.blur < 2 * blur
    inputs = jnp.array(face_masks()[:1]), upright(64, 68, 2), 64
    own = jitted_blend_mask(*inputs, settings)
    shared = jitted_blend_mask(*inputs, rounded, settings.kernels)
    np.testing.assert_array_equal(own.solid, shared.solid)
    np.testing.assert_allclose(own.alpha, shared.alpha, atol=1e-5)  # sums of another order


def test_a_smooth_feather_has_the_same_reach():
    mask = face_masks()[:1]
    matrix = upright(64, 68, 2)
    linear = jitted_blend_mask(
        jnp.array(mask), matrix, 64, MaskSettings(30, 100, 0.0, smooth=False)
    ).alpha
    smooth = jitted_blend_mask(
        jnp.array(mask), matrix, 64, MaskSettings(30, 100, 0.0, smooth=True)
    ).alpha
    np.testing.assert_array_equal(np.asarray(linear) > 1e-3, np.asarray(smooth) > 3e-6)
    np.testing.assert_allclose(smooth, linear**2 * (3 - 2 * linear), atol=1e-6)
