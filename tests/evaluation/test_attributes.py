"""The figures without truth, on faces whose answer is known."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from odfs_jax.evaluation.attributes import (
    Attributes,
    FaceView,
    changed_pixels,
    identity_figures,
    motion_between,
    motion_error,
    visible_face,
)
from odfs_jax.evaluation.truth import Truth, flat_face, frames_at, load_truth
from odfs_jax.faces.hull import face_mask
from odfs_jax.faces.identity import embedding

DEMO = Path(__file__).parents[2] / "assets" / "demo"


@pytest.fixture(scope="module")
def truth() -> list[Truth]:
    return load_truth(DEMO)


@pytest.fixture(scope="module")
def dst(truth) -> list[FaceView]:
    """Dst's frames at the truth's, with points that are the truth's: what matters is that they
    move as a face does."""
    frames = frames_at(DEMO / "dst.mp4", [t.frame for t in truth])
    return [FaceView(f, t.landmarks) for f, t in zip(frames, truth, strict=True)]


def measured(dst: list[FaceView], swap: list[FaceView]) -> dict[str, float | None]:
    attributes = Attributes()
    motion = None
    for i, pair in enumerate(zip(dst, swap, strict=True)):
        if i:
            motion = motion_between(dst[i - 1], dst[i])
        attributes.add(*pair, visible(pair[0]), motion)
    return attributes.figures()


def test_untouched_dst_keeps_everything(dst):
    figures = measured(dst, dst)
    assert figures["spill"] is figures["seam"] is None  # nothing has changed
    assert figures["eyes_follow"] == pytest.approx(1) and figures["mouth_follows"] == pytest.approx(
        1
    )
    assert figures["pose"] == pytest.approx(0, abs=1e-4) == figures["landmarks"]
    assert figures["flicker"] == figures["jitter"] == 1
    assert figures["outside_changed"] == figures["outside_error"] == 0


def test_a_swap_inside_the_hull_does_not_spill(dst):
    flat = [FaceView(flat_face(v.image, inside(v)), v.landmarks) for v in dst[:4]]
    figures = measured(dst[:4], flat)
    assert figures["spill"] == figures["outside_changed"] == figures["outside_error"] == 0
    assert figures["seam"] > 1  # its edge is hard


def test_spill_is_the_share_beyond_the_visible_face(dst):
    view = dst[0]
    swap = view.image.copy()
    swap[300:340, 20:60] = 255 - swap[300:340, 20:60]
    only_outside = measured([view], [FaceView(swap, view.landmarks)])
    assert only_outside["spill"] == 1
    swap[inside(view)] = 0
    both = measured([view], [FaceView(swap, view.landmarks)])
    outside = changed_pixels(view.image, swap) & ~visible(view)
    assert both["spill"] == pytest.approx(outside.sum() / changed_pixels(view.image, swap).sum())
    assert 0.02 < both["spill"] < 0.2


def test_noise_of_a_codec_is_no_change(dst):
    image = dst[0].image
    _, packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    assert not changed_pixels(image, cv2.imdecode(packed, cv2.IMREAD_COLOR)).any()
    brighter = np.clip(image.astype(int) + 12, 0, 255).astype(np.uint8)
    assert changed_pixels(image, brighter).mean() > 0.9


def test_noise_flickers_and_shaking_points_jitter(dst):
    rng = np.random.default_rng(0)
    noisy = [
        FaceView(
            np.clip(v.image + rng.normal(0, 20, v.image.shape), 0, 255).astype(np.uint8),
            v.landmarks + rng.normal(0, 3, (68, 2)),
        )
        for v in dst[:8]
    ]
    figures = measured(dst[:8], noisy)
    assert figures["flicker"] > 1.5
    assert figures["jitter"] > 1.5
    assert figures["landmarks"] > 0.02


def test_motion_is_that_of_the_face(dst):
    """A picture moved by whole pixels is explained by its motion; another picture is not."""
    view = dst[3]
    matrix = np.array([[1, 0, 4], [0, 1, -3]], np.float64)
    moved = cv2.warpAffine(view.image, matrix, view.image.shape[1::-1])
    after = FaceView(moved, view.landmarks + np.array([4, -3]))
    motion = motion_between(view, after)
    assert motion.visible.mean() > 0.2
    still = motion._replace(origin=motion.origin * 0 + grid(motion))
    explained = motion_error(view.image, moved, motion)
    assert explained < 0.1 * motion_error(view.image, moved, still)


def test_a_constant_turn_of_all_heads_is_no_pose_error(dst, truth):
    """Ada's and ben's heads are fitted with other rotations; a swap that does not move is wrong."""
    still = [FaceView(v.image, dst[0].landmarks) for v in dst]
    assert measured(dst, still)["pose"] > 5
    assert measured(dst, still)["mouth_follows"] == 0
    exact = np.load(DEMO / "truth.npz")["landmarks"]
    scaled = exact * [1.0, 0.85]  # a shorter face, always
    figures = measured(dst, [FaceView(v.image, p) for v, p in zip(dst, scaled, strict=True)])
    assert figures["pose"] < 5
    assert figures["mouth_follows"] > 0.98


def test_a_shot_ends_what_is_compared_over_time(dst):
    attributes = Attributes()
    for view in dst[:4]:
        attributes.add(view, view, visible(view), None)
    figures = attributes.figures()
    assert figures["flicker"] is figures["jitter"] is None
    assert Attributes().figures() == {}


def test_identity_tells_src_from_dst(dst, truth):
    """The truth is src's face, so it is nearer to src than dst is."""
    embedded = [embedding(t.image, t.landmarks) for t in truth[::3]]
    src, true = embedded[::2], embedded[1::2]
    own = [embedding(v.image, v.landmarks) for v in dst[::6]]
    perfect, untouched = identity_figures(true, src, own), identity_figures(own, src, own)
    assert perfect["identity"] == 1 and untouched["identity"] == 0
    assert perfect["to_src"] < perfect["to_dst"] and untouched["to_dst"] < untouched["to_src"]


def inside(view: FaceView) -> np.ndarray:
    return face_mask(view.landmarks, *view.image.shape[:2]) > 0


def visible(view: FaceView) -> np.ndarray:
    return visible_face(view.landmarks, *view.image.shape[:2])


def grid(motion) -> np.ndarray:
    width, height = motion.size
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
