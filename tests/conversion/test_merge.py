"""The whole merge: a perfect network changes nothing, no pixel outside the mask moves."""

from dataclasses import replace
from functools import partial

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from odfs_jax.config import DegradeConfig, MergeConfig
from odfs_jax.conversion.face_region import face_region, read_region, write_region
from odfs_jax.conversion.masks import outline_masks
from odfs_jax.conversion.merge import (
    Merged,
    Pasting,
    Placement,
    build_merge,
    mask_settings,
    program_key,
)
from odfs_jax.conversion.modes import MODES, Mode, build_mode
from odfs_jax.errors import UserError
from odfs_jax.faces.affine import enlarged, invert, transform
from odfs_jax.faces.colors import TRANSFERS
from odfs_jax.faces.hull import face_mask
from odfs_jax.faces.spec import FaceSpec
from odfs_jax.faces.types import FaceType
from odfs_jax.faces.warp import warp_affine
from odfs_jax.inference import Swapper

RESOLUTION = 64


def settings(mode: str = "overlay", **changes) -> MergeConfig:
    return MergeConfig(mode=mode, args=changes.pop("args", {}), **changes)


def merged(swapper, config, frame, points) -> np.ndarray:
    region = face_region(points, FaceType.FULL, RESOLUTION)
    new = merged_region(build_merge(swapper, config), read_region(frame, region), region)
    assert int(new.side[0]) > 0
    result = frame.copy()
    write_region(result, region, np.asarray(new.pixels[0]))
    return result


def merged_region(merge, pixels, region) -> Merged:
    """One region through both calls of `merge`."""
    outlines = outline_masks(region.points, RESOLUTION, tuple(merge.config.keep))[None]
    placement = Placement(
        region.model_from_region[None], None, outlines if merge.needs_outlines else None
    )
    prediction = merge.predict({}, pixels[None], placement)
    return merge.composite(pixels[None], placement, prediction)


def test_values_that_change_compile_nothing(identity_swapper, face_points, smooth_picture):
    """Programs of one key are shared by merges of other amounts, and give what their own give."""
    frame, points = smooth_picture(220, 260), face_points((140, 105), 75, 25)
    swapper = identity_swapper(RESOLUTION, erode_modifier=30.0, border=0.046875)
    first = settings(erode=5, blur=70, opacity=60, sharpen=10)
    other = settings(erode=33, blur=128, opacity=100, sharpen=90)
    near, far = (enlarged(np.eye(2, 3), factor, [20, 10]) for factor in (0.97, 0.95))
    assert program_key(swapper, first, near) == program_key(swapper, other, far)
    assert program_key(swapper, other, None) != program_key(swapper, other, far)
    for change in ({"blur": 129}, {"erode": -36}, {"sharpen": 0}, {"mode": "raw"}):
        changed = replace(other, **change)
        assert program_key(swapper, changed, far) != program_key(swapper, other, far)
    merges = [build_merge(swapper, first, near)]
    merges += [build_merge(swapper, other, far, programs=merges[0].programs)]
    merges += [build_merge(swapper, other, far)]
    region = face_region(points, FaceType.FULL, RESOLUTION, merges[0].region_scale)
    pixels = read_region(frame, region)
    unlike, shared, own = (merged_region(merge, pixels, region) for merge in merges)
    assert merges[0].programs.composite._cache_size() == 1
    np.testing.assert_array_equal(shared.pixels, own.pixels)
    np.testing.assert_array_equal(shared.alpha, own.alpha)
    assert (np.asarray(unlike.alpha) != np.asarray(own.alpha)).any()


def test_merges_in_parts_share_what_modes_and_amounts_do_not_change(
    identity_swapper, face_points, smooth_picture
):
    """And give the pictures of whole ones."""
    frame, points = smooth_picture(220, 260), face_points((140, 105), 75, 25)
    swapper = identity_swapper(RESOLUTION, lambda faces: 1 - faces, erode_modifier=30.0)
    region = face_region(points, FaceType.FULL, RESOLUTION)
    pixels = read_region(frame, region)
    before = Pasting.paste._cache_size()
    for config in (
        settings(erode=5, blur=70, color="tone", sharpen=10),
        settings("hist_match", erode=90, blur=180, sharpen=90),
        settings("seamless_hist_match", erode=20, blur=110, opacity=80, sharpen=10),
    ):
        whole, parts = (build_merge(swapper, config, whole=kind) for kind in (True, False))
        expected, shared = (merged_region(merge, pixels, region) for merge in (whole, parts))
        for ours, theirs in zip(shared, expected, strict=True):
            assert np.abs(np.asarray(ours, int) - np.asarray(theirs, int)).max() <= 1
        assert np.abs(np.asarray(expected.pixels[0], int) - pixels).max() > 20
    assert Pasting.paste._cache_size() == before + 1


@pytest.mark.parametrize("mode", sorted(MODES.keys() - {"hist_match_bw"}))
@pytest.mark.parametrize(("size", "roll"), [(30, 0), (75, 25)])
def test_a_perfect_network_changes_nothing(
    mode, size, roll, identity_swapper, face_points, smooth_picture
):
    frame = smooth_picture(220, 260)
    points = face_points((140, 105), size, roll)
    swapper = identity_swapper(RESOLUTION, erode_modifier=30.0, border=0.046875)
    result = merged(swapper, settings(mode, blur=50), frame, points)
    difference = np.abs(result.astype(int) - frame)
    assert difference.max() <= 2
    assert difference.mean() < 0.1


@pytest.mark.parametrize("mode", sorted(MODES.keys() - {"raw_predict"}))
def test_pixels_outside_the_mask_are_untouched(mode, identity_swapper, face_points):
    frame = np.random.default_rng(0).integers(0, 256, (220, 260, 3), np.uint8)
    points = face_points((140, 105), 60, 10)
    result = merged(
        identity_swapper(RESOLUTION, lambda faces: 1 - faces), settings(mode), frame, points
    )
    changed = (result != frame).any(-1)
    y, x = np.mgrid[:220, :260]
    face_side = 60 / (1 - 2 * FaceType.FULL.padding)
    distance = np.hypot(x - 140, y - 105) / face_side  # of the disc's radius, 0.4
    assert not changed[distance > 0.43].any()
    assert changed[distance < 0.37].mean() > 0.9


def test_the_color_of_the_prediction_is_taken_over_by_overlay_only(
    identity_swapper, face_points, smooth_picture
):
    frame = smooth_picture(200, 200)
    points = face_points((100, 100), 60)
    swapper = identity_swapper(RESOLUTION, lambda faces: 0.5 * faces + 0.1)
    overlaid = merged(swapper, settings("overlay"), frame, points)[100, 100]
    expected = 0.5 * frame[100, 100] + 0.1 * 255
    np.testing.assert_allclose(overlaid, expected, atol=2)
    matched = merged(swapper, settings("hist_match", args={"masked": True}), frame, points)
    np.testing.assert_allclose(matched[100, 100].astype(int), frame[100, 100], atol=3)


def test_a_transfer_gives_dsts_colors_before_the_mode(
    identity_swapper, face_points, smooth_picture
):
    frame = smooth_picture(200, 200)
    points = face_points((100, 100), 60)
    swapper = identity_swapper(RESOLUTION, lambda faces: 0.5 * faces + 0.1)
    away = {
        color: np.abs(merged(swapper, settings(color=color), frame, points).astype(int) - frame)
        for color in ("none", "rct", "light")
    }
    assert away["rct"].mean() < 0.1 * away["none"].mean()
    assert away["light"].mean() < 0.2 * away["none"].mean()


def test_a_network_that_sees_less_than_it_makes(face_points, smooth_picture):
    """A small half face goes in, a full one comes out: what it saw has to lie where it was."""
    seen, made = FaceSpec(FaceType.HALF, 32), FaceSpec(FaceType.FULL, RESOLUTION)
    y, x = np.mgrid[:RESOLUTION, :RESOLUTION] - (RESOLUTION - 1) / 2
    mask = (np.hypot(x, y) < 0.25 * RESOLUTION).astype(np.float32)[..., None]

    def predict(_params, faces):
        assert faces.shape[1:] == (32, 32, 3)
        enlarge = partial(
            warp_affine, input_from_output=seen.matrix_from(made), height=64, width=64
        )
        masks = jnp.broadcast_to(jnp.asarray(mask)[None], (len(faces), RESOLUTION, RESOLUTION, 1))
        return jax.vmap(enlarge)(faces), masks, None

    frame, points = smooth_picture(220, 260), face_points((140, 105), 60, 20)
    result = merged(Swapper(predict, {}, seen, made), settings(), frame, points)
    difference = np.abs(result.astype(int) - frame)
    assert difference.max() <= 3
    changed = merged(
        Swapper(lambda p, f: (1 - predict(p, f)[0], *predict(p, f)[1:]), {}, seen, made),
        settings("hist_match"),
        frame,
        points,
    )
    assert 0.02 < (changed != frame).any(-1).mean() < 0.04  # the disc is 3.2 % of the frame


def test_the_users_modifiers_are_added_to_the_models(identity_swapper):
    swapper = identity_swapper(RESOLUTION, erode_modifier=30.0, blur_modifier=5.0, border=0.04)
    mask = mask_settings(swapper, settings(erode=-50, blur=20, feather="smooth"))
    assert (mask.erode, mask.blur, mask.border, mask.smooth) == (-20, 25, 0.04, True)


def test_statistics_go_by_name(identity_swapper, face_points, smooth_picture, monkeypatch):
    """A mode may apply its statistics in another order than it measured them, and not all of them.

    Each of the two has another target, so an exchange would show.
    """
    hist = TRANSFERS["hist"]

    def measure(faces, masks, dst, _paste):
        everywhere = jnp.ones_like(masks, bool)
        names = {"unused": 0 * dst, "dark": 0.25 * dst, "dst": dst}
        return {name: hist.measure(faces, target, everywhere) for name, target in names.items()}

    def mode(first: str, second: str) -> Mode:
        def recolor(faces, stats):
            both = (hist.apply(faces, stats[name]) for name in (first, second))
            return sum(share * picture for share, picture in zip((0.75, 0.25), both, strict=True))

        return Mode(measure=measure, recolor=recolor)

    frame, points = smooth_picture(200, 200), face_points((100, 100), 60)
    middle = {}
    for names in (("dst", "dark"), ("dark", "dst")):
        monkeypatch.setitem(MODES, "overlay", lambda names=names: mode(*names))
        result = merged(identity_swapper(RESOLUTION), settings(color="rct"), frame, points)
        middle[names] = result[100, 100] / frame[100, 100]
    np.testing.assert_allclose(middle["dst", "dark"], 0.75 + 0.25 * 0.25, atol=0.02)
    np.testing.assert_allclose(middle["dark", "dst"], 0.75 * 0.25 + 0.25, atol=0.02)


def test_a_mode_that_did_not_measure_what_it_applies_fails(
    identity_swapper, face_points, smooth_picture, monkeypatch
):
    forgetful = Mode(recolor=lambda faces, stats: TRANSFERS["hist"].apply(faces, stats["hist"]))
    monkeypatch.setitem(MODES, "overlay", lambda: forgetful)
    with pytest.raises(KeyError, match="hist"):
        merged(
            identity_swapper(RESOLUTION),
            settings(),
            smooth_picture(200, 200),
            face_points((100, 100), 60),
        )


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("asked", [None, True, False])
def test_what_the_histogram_counts_is_the_models_choice_unless_the_user_asks(own, asked):
    """Bright outside the mask, dark inside: the whole square's histogram brightens the face."""
    masks = jnp.zeros((1, 16, 16, 1)).at[:, 4:12, 4:12].set(1.0)
    faces = jnp.full((1, 16, 16, 3), 0.4)  # 102 of 255: not between two bins
    dst = jnp.where(masks > 0, 0.2, 0.9) * jnp.ones((1, 1, 1, 3))
    mode = build_mode(settings("hist_match", args={"masked": asked}), {"masked": own})
    stats = mode.measure(faces, masks, dst, None)
    middle = float(mode.recolor(faces, stats)[0, 8, 8, 0])
    counts_the_face_only = own if asked is None else asked
    assert middle == pytest.approx(0.2 if counts_the_face_only else 0.9, abs=0.01)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (settings("poisson"), "merge.mode=poisson: not one of hist_match, hist_match_bw, overlay"),
        (settings(color="sepia"), "merge.color=sepia: expected one of auto, none, rct, lct, mkl"),
        (
            settings(mask="face"),
            "merge.mask=face: expected one of auto, dst, both, predicted, hull",
        ),
        (settings(keep=["nose"]), "merge.keep=nose: expected some of eyes, mouth"),
        (settings(scale=-51), "merge.scale=-51: expected -50..50"),
        (settings(degrade=DegradeConfig(jpeg=101)), "merge.degrade.jpeg=101: expected 0..100"),
        (settings(erode=101), "merge.erode=101: expected -100..100"),
        (settings(blur=float("nan")), "merge.blur=nan: expected -100..200"),
        (settings(feather="soft"), "merge.feather=soft: expected one of linear, smooth"),
        (settings(args={"masked": True}), "merge.args.masked: overlay has no such option"),
        (settings("hist_match", args={"masked": 3}), "merge.args.masked=3: expected a bool"),
    ],
)
def test_what_a_merge_cannot_do_is_said(identity_swapper, config, message):
    with pytest.raises(UserError) as error:
        build_merge(identity_swapper(RESOLUTION), config)
    assert str(error.value).startswith(message)


def test_a_face_without_a_solid_mask_is_left_alone(identity_swapper, smooth_picture, face_points):
    swapper = identity_swapper(RESOLUTION, lambda faces: 1 - faces)
    faint = type(swapper)(
        lambda params, faces: (faces, 0.8 * swapper.predict(params, faces)[1], None),
        **{k: getattr(swapper, k) for k in ("params", "input_spec", "output_spec")},
    )
    frame = smooth_picture(120, 120)
    region = face_region(face_points((60, 60), 40), FaceType.FULL, RESOLUTION)
    pixels = read_region(frame, region)
    new = merged_region(build_merge(faint, settings()), pixels, region)
    assert int(new.side[0]) == 0
    np.testing.assert_array_equal(new.pixels[0], pixels)


def test_an_anchor_puts_the_new_face_elsewhere(identity_swapper, face_points, smooth_picture):
    frame = smooth_picture(200, 200)
    region = face_region(face_points((100, 100), 40), FaceType.FULL, RESOLUTION)
    assert region.face_side == pytest.approx(RESOLUTION, rel=0.02)  # a face pixel a frame pixel
    right = np.array([[1.0, 0, 4], [0, 1.0, 0]])
    pixels = read_region(frame, region)
    moved = merged_region(
        build_merge(identity_swapper(RESOLUTION), settings(), right), pixels, region
    ).pixels
    middle = slice(region.side // 2 - 8, region.side // 2 + 8)
    expected = np.roll(pixels, 4, axis=1)[middle, middle].astype(int)
    assert np.abs(expected - np.asarray(moved[0])[middle, middle]).max() <= 3
    assert np.abs(expected - pixels[middle, middle]).max() > 3


@pytest.mark.parametrize("has_dst_mask", [True, False])
def test_both_stays_inside_dsts_own_mask(has_dst_mask, face_points, smooth_picture):
    """The network's own mask of dst cuts the new face off; without one the hull of the points."""
    frame, points = smooth_picture(220, 260), face_points((140, 105), 60, 20)
    view = FaceSpec(FaceType.FULL, RESOLUTION)
    left = (np.arange(RESOLUTION) < RESOLUTION / 2).astype(np.float32)[None, None, :, None]

    def predict(_params, faces):
        whole = jnp.ones((*faces.shape[:3], 1))
        return 1 - faces, whole, whole * left if has_dst_mask else None

    swapper = Swapper(predict, {}, view, view, has_dst_mask=has_dst_mask)
    changed = (merged(swapper, settings(mask="both"), frame, points) != frame).any(-1)
    whole = (merged(swapper, settings(mask="predicted"), frame, points) != frame).any(-1)
    if has_dst_mask:
        allowed = whole
        assert 0.4 < changed.sum() / whole.sum() < 0.6
    else:
        allowed = cv2.dilate(face_mask(points, 220, 260), np.ones((7, 7))) > 0
    assert changed.any() and not changed[~allowed].any()


def test_dst_fades_out_towards_the_squares_edge(identity_swapper):
    """More than the model's own border, which stays with other masks."""
    swapper = identity_swapper(RESOLUTION)
    narrow, wide = replace(swapper, border=0.05), replace(swapper, border=0.3)
    assert [mask_settings(narrow, settings(mask=m)).border for m in ("both", "dst")] == [0.05, 0.12]
    assert mask_settings(wide, settings(mask="dst")).border == 0.3


def test_dst_replaces_all_of_dsts_own_face(face_points, smooth_picture):
    """Its mask alone decides, whatever the swap's own."""
    frame, points = smooth_picture(220, 260), face_points((140, 105), 60, 20)
    view = FaceSpec(FaceType.FULL, RESOLUTION)
    left = (np.arange(RESOLUTION) < RESOLUTION / 2).astype(np.float32)[None, None, :, None]

    def predict(_params, faces):
        whole = jnp.ones((*faces.shape[:3], 1))
        return 1 - faces, whole * (1 - left), whole * left

    swapper = Swapper(predict, {}, view, view, has_dst_mask=True)
    changed = (merged(swapper, settings(mask="dst"), frame, points) != frame).any(-1)
    predicted = (merged(swapper, settings(mask="predicted"), frame, points) != frame).any(-1)
    middles = [where.nonzero()[1].mean() for where in (changed, predicted)]
    assert middles[0] < 140 - 20 and middles[1] > 140 + 20


def test_dst_covers_a_mouth_at_the_outline(face_points):
    """A blurred edge would let dst's lips through; beside them it stays blurred."""
    points = face_points((110, 105), 90)
    view = FaceSpec(FaceType.FULL, RESOLUTION)
    region = face_region(points, FaceType.FULL, RESOLUTION)
    left, right = region.points[[48, 54]]
    edge = round(0.7 * left[0] + 0.3 * right[0])  # through the mouth
    own = jnp.asarray(np.arange(RESOLUTION) >= edge, jnp.float32)[None, None, :, None]

    def predict(_params, faces):
        whole = jnp.ones((*faces.shape[:3], 1))
        return jnp.ones_like(faces), whole, whole * own

    swapper = Swapper(predict, {}, view, view, has_dst_mask=True)
    frame = np.zeros((220, 220, 3), np.uint8)
    config = settings(mask="dst", blur=200, color="none")
    found = merged(swapper, config, frame, points)[..., 0] / 255
    frame_from_face = invert(region.model_from_region)
    (x, y), (_, cheek) = (
        transform(frame_from_face, np.float32([[edge + 2, at]]))[0] + (region.left, region.top)
        for at in (left[1], (left[1] + region.points[39, 1]) / 2)
    )
    assert found[round(y), round(x)] > 0.95
    assert 0.05 < found[round(cheek), round(x)] < 0.85
