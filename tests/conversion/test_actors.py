"""Every merge on the actors: ada's true face, as of a perfect network, put into ben's frames."""

from itertools import product
from pathlib import Path
from typing import NamedTuple

import cv2
import jax
import numpy as np
import pytest
from skimage.exposure import match_histograms

from odfs_jax.config import MergeConfig
from odfs_jax.conversion.face_region import SIDES, face_region, read_region
from odfs_jax.conversion.masks import OWN_MASKS, box_blur, dilate, erode, outline_masks
from odfs_jax.conversion.merge import Placement, build_merge
from odfs_jax.conversion.modes import MODES
from odfs_jax.conversion.poisson import clone
from odfs_jax.evaluation.truth import LUMA, Truth, frames_at, load_truth, ssim_map
from odfs_jax.faces.affine import transform
from odfs_jax.faces.align import alignment_matrix
from odfs_jax.faces.colors import TRANSFERS
from odfs_jax.faces.crop import crop_face
from odfs_jax.faces.hull import face_mask
from odfs_jax.faces.spec import FaceSpec
from odfs_jax.faces.types import FaceType
from odfs_jax.faces.warp import paste_faces
from odfs_jax.inference import Swapper

DEMO = Path(__file__).parents[2] / "assets" / "demo"
FACE = FaceType.FULL
# Each mode, each transfer and each mask at least once; the slow test runs all of all.
SOME = [
    ("overlay", "none", "predicted"),
    ("overlay", "rct", "hull"),
    ("hist_match", "lct", "product"),
    ("hist_match_bw", "mkl", "sum"),
    ("seamless", "idt", "predicted"),
    ("seamless_hist_match", "sot", "hull"),
    ("raw", "hist", "product"),
    ("raw_predict", "light", "sum"),
]
ALL = sorted(set(product(MODES, TRANSFERS, OWN_MASKS)) - set(SOME))


class Scenes(NamedTuple):
    """A batch of dst's frames, what a perfect network makes of them, and the truth."""

    truth: list[Truth]
    regions: np.ndarray  # uint8 [N, S, S, 3] of dst
    placement: Placement
    faces: np.ndarray  # float32 [N, R, R, 3] of the truth
    masks: np.ndarray  # float32 [N, R, R, 1]

    def true_regions(self) -> np.ndarray:
        regions = [face_region(t.landmarks, FACE, self.faces.shape[1]) for t in self.truth]
        side = self.regions.shape[1]
        return np.stack(
            [
                read_region(t.image, r.widened(side))
                for t, r in zip(self.truth, regions, strict=True)
            ]
        )


def scenes(resolution: int, count: int) -> Scenes:
    """`count` frames of the clip; the network has `resolution` pixels."""
    truth = load_truth(DEMO)[:: 30 // count][:count]
    frames = frames_at(DEMO / "dst.mp4", [t.frame for t in truth])
    faces, masks = [], []
    for t in truth:
        matrix = alignment_matrix(t.landmarks, FACE, resolution)
        points = transform(matrix, t.landmarks)
        faces.append(crop_face(t.image, matrix, resolution) / np.float32(255))
        masks.append(face_mask(points, resolution, resolution)[..., None] / np.float32(255))
    regions = [face_region(t.landmarks, FACE, resolution) for t in truth]
    side = max(r.side for r in regions)
    regions = [r.widened(side) for r in regions]
    placement = Placement(
        np.stack([r.model_from_region for r in regions]),
        None,
        np.stack([outline_masks(r.points, resolution, ("eyes",)) for r in regions]),
    )
    pixels = np.stack([read_region(f, r) for f, r in zip(frames, regions, strict=True)])
    return Scenes(truth, pixels, placement, np.stack(faces), np.stack(masks))


def truth_swapper(resolution: int) -> Swapper:
    """Its "parameters" are the faces and masks that it gives."""
    view = FaceSpec(FACE, resolution)
    return Swapper(lambda known, _faces: known, {}, view, view)


def merged(batch: Scenes, config: MergeConfig):
    merge = build_merge(truth_swapper(batch.faces.shape[1]), config)
    known = (batch.faces, batch.masks, None)
    prediction = merge.predict(known, batch.regions, batch.placement)
    return jax.device_get(merge.composite(batch.regions, batch.placement, prediction))


def test_a_perfect_face_is_the_truth_inside_the_mask():
    """The network's part is perfect: all that is lost, cutting, placing and blending have lost."""
    batch = scenes(256, 6)
    result = merged(batch, MergeConfig(mode="overlay"))
    for new, alpha, wanted in zip(result.pixels, result.alpha, batch.true_regions(), strict=True):
        inside = alpha == 255
        assert inside.mean() > 0.1
        likeness = ssim_map(new / 255 @ LUMA, wanted / 255 @ LUMA)
        assert likeness[inside].mean() >= 0.97
        assert np.abs(new.astype(int) - wanted)[inside].mean() < 2


@pytest.fixture(scope="module")
def small() -> Scenes:
    return scenes(48, 2)


@pytest.fixture(scope="module")
def pasted_masks() -> tuple[Scenes, np.ndarray]:
    """(scenes, their masks [N, S, S] pasted into the regions) in real size."""
    batch = scenes(160, 3)
    side = batch.regions.shape[1]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    masks = [
        cv2.warpAffine(mask, matrix, (side, side), flags=flags)
        for mask, matrix in zip(batch.masks, batch.placement.model_from_region, strict=True)
    ]
    return batch, np.stack(masks)


def test_paste_equals_opencv(pasted_masks):
    batch, _ = pasted_masks
    side = batch.regions.shape[1]
    pasted = jax.jit(paste_faces, static_argnums=(2, 3))(
        batch.faces, batch.placement.model_from_region, side, side
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for face, matrix, picture in zip(
        batch.faces, batch.placement.model_from_region, pasted, strict=True
    ):
        size = (side, side)
        expected = cv2.warpAffine(face, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        away = np.abs(picture - expected)
        assert away.mean() < 0.5 / 255 and away.max() < 6 / 255  # OpenCV rounds to 1/32 pixel


def test_seamless_equals_opencv(pasted_masks):
    """The bounds of 1 and 3 steps; OpenCV cuts decimals off, which is half a step by itself."""
    batch, masks = pasted_masks
    faces, inside = batch.true_regions(), masks > 0.9
    clones = jax.jit(clone)(batch.regions / np.float32(255), faces / np.float32(255), inside)
    for region, face, where, result in zip(batch.regions, faces, inside, clones, strict=True):
        solid = where.astype(np.uint8) * 255
        x, y, width, height = cv2.boundingRect(solid)
        middle = (x + width // 2, y + height // 2)
        expected = cv2.seamlessClone(face, region, solid, middle, cv2.NORMAL_CLONE)
        away = np.abs(np.clip(np.asarray(result) * 255, 0, 255) - expected)[where]
        assert away.mean() < 1 and np.percentile(away, 99.9) < 3


def test_histograms_equal_scikit_image(pasted_masks):
    batch, masks = pasted_masks
    faces, dst, where = batch.true_regions(), batch.regions, masks[..., None] > 0.9
    scaled = (faces / np.float32(255), dst / np.float32(255))
    hist = TRANSFERS["hist"]
    stats = jax.jit(hist.measure)(*scaled, where)
    result = np.asarray(hist.apply(scaled[0], stats)) * 255
    for i, channel in product(range(len(faces)), range(3)):
        inside = where[i, ..., 0]
        expected = match_histograms(faces[i, ..., channel][inside], dst[i, ..., channel][inside])
        np.testing.assert_allclose(result[i, ..., channel][inside], expected, atol=0.05)


def test_masks_equal_opencv(pasted_masks):
    _, masks = pasted_masks
    sizes, most = np.array([3, 8, 21], np.int32), 24
    zeros = {"borderType": cv2.BORDER_CONSTANT, "borderValue": 0.0}
    results = [jax.jit(f, static_argnums=2)(masks, sizes, most) for f in (erode, dilate, box_blur)]
    for mask, size, eroded, dilated, blurred in zip(masks, sizes, *results, strict=True):
        ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (int(size), int(size)))
        np.testing.assert_array_equal(eroded, cv2.erode(mask, ellipse, **zeros))
        np.testing.assert_array_equal(dilated, cv2.dilate(mask, ellipse, **zeros))
        wide = cv2.copyMakeBorder(mask, *[most] * 4, cv2.BORDER_CONSTANT, value=0.0)
        expected = cv2.blur(wide, (int(size), int(size)))[most:-most, most:-most]
        np.testing.assert_allclose(blurred, expected, atol=2e-5)


@pytest.mark.parametrize(
    ("mode", "color", "mask"),
    [*SOME, *(pytest.param(*choice, marks=pytest.mark.slow) for choice in ALL)],
)
def test_every_merge_runs_on_the_actors(mode, color, mask, small):
    settings = MergeConfig(mode=mode, color=color, mask=mask, keep=["eyes"], blur=50)
    result = merged(small, settings)
    assert (result.side > 8).all()
    assert small.regions.shape[1] in SIDES
    changed = (result.pixels != small.regions).any(-1)
    assert not changed[result.alpha == 0].any()
    for new, alpha, old, wanted in zip(
        result.pixels, result.alpha, small.regions, small.true_regions(), strict=True
    ):
        assert 0.1 < (alpha > 0).mean() < 0.9
        edge = np.concatenate([alpha[[0, -1]], alpha[:, [0, -1]].T])
        assert not edge.any()
        inside = alpha > 250
        away = np.abs(new.astype(int) - wanted)[inside].mean()
        assert away < 1.3 * np.abs(old.astype(int) - wanted)[inside].mean() + 4
