"""The face's outline, its eyes and its mouth."""

import cv2
import numpy as np
from scipy.spatial import ConvexHull, Delaunay, distance

from odfs_jax.faces import pose
from odfs_jax.faces.align import MEAN_FACE
from odfs_jax.faces.hull import EYES_MOUTH, HULLS, eyes_mask, eyes_mouth_mask, face_mask
from odfs_jax.faces.landmarks68 import MEAN_HEAD


def landmarks(size=128):
    """A face that looks a little aside, in a square picture."""
    head = MEAN_HEAD @ pose.rotation_from(20, -5, 5).T
    return head[:, :2] * (size / 2.4, -size / 2.4) + (size / 2, size * 0.45)


def test_equals_the_union_of_scipys_hulls_up_to_the_outline():
    points = np.rint(landmarks())
    y, x = np.mgrid[:128, :128]
    pixels = np.stack([x, y], -1).reshape(-1, 2)
    expected = np.zeros(len(pixels), bool)
    for hull in HULLS:
        expected |= Delaunay(points[list(hull)]).find_simplex(pixels) >= 0
    found = face_mask(points, 128, 128) > 0
    different = (found.ravel() != expected).sum()
    outline = sum(ConvexHull(points[list(hull)]).area for hull in HULLS)  # a length, in 2-D
    assert different < 0.25 * outline and found.sum() > 2000


def test_is_zero_or_255_and_has_the_asked_size():
    mask = face_mask(landmarks(), 100, 140)
    assert mask.shape == (100, 140) and mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 255}


def test_points_outside_the_picture_are_cut_off():
    mask = face_mask(landmarks() + np.array([100, 0]), 128, 128)
    assert mask[:, -1].any() and not mask[:, :40].any()
    assert not face_mask(landmarks() + 10_000, 128, 128).any()


def test_the_mean_face_of_the_alignment_lies_inside():
    points = np.concatenate([landmarks()[:17], MEAN_FACE * 50 + np.array([44, 34])])
    mask = face_mask(points, 128, 128)
    inner = np.rint(points[17:]).astype(int)
    assert (mask[inner[:, 1], inner[:, 0]] == 255).all()


def test_eyes_and_mouth_are_scipys_hulls_and_what_is_near_them():
    points = np.rint(landmarks())
    margin = 0.08 * np.linalg.norm(points[36] - points[45])
    assert margin > 3
    mask = eyes_mouth_mask(points, 128, 128) > 0
    y, x = np.mgrid[:128, :128]
    pixels = np.stack([x, y], -1).reshape(-1, 2)
    near = np.full(len(pixels), np.inf)
    for hull in EYES_MOUTH:
        inside = pixels[Delaunay(points[list(hull)]).find_simplex(pixels) >= 0]
        near = np.minimum(near, distance.cdist(pixels, inside).min(1))
    near, face = near.reshape(128, 128), face_mask(points, 128, 128) > 0
    assert mask[face & (near <= margin - 2)].all()
    assert not mask[near > margin + 1].any() and not mask[~face].any()
    nose = np.rint(points[27:36]).astype(int)
    assert not mask[nose[:4, 1], nose[:4, 0]].any()


def test_eyes_are_two_patches_that_hold_their_points():
    points = landmarks(256)
    mask = eyes_mask(points, 256, 256)
    seen = np.rint(points).astype(int)
    assert (mask[seen[36:48, 1], seen[36:48, 0]] == 255).all()
    count, labels = cv2.connectedComponents(mask)
    assert count == 3 and not mask[seen[27:36, 1], seen[27:36, 0]].any()
    for number, eye in ((1, range(36, 42)), (2, range(42, 48))):
        area = ConvexHull(points[list(eye)]).volume  # an area, in 2-D
        outline = ConvexHull(points[list(eye)]).area
        assert area < (labels == number).sum() < area + outline


def test_with_brows_the_face_reaches_over_them_and_no_further():
    """Up to half the way from the eye to the brow beyond the brow's points; elsewhere as before."""
    points = landmarks(256)
    plain, over = (face_mask(points, 256, 256, brows=brows) > 0 for brows in (False, True))
    assert over[plain].all()
    added = np.argwhere(over & ~plain)[:, ::-1]
    brows, eyes = points[17:27], points[36:48]
    assert len(added) > 0.03 * plain.sum()
    assert added[:, 1].max() < eyes[:, 1].min()
    assert brows[:, 1].min() - added[:, 1].min() < 0.6 * (eyes[:, 1].max() - brows[:, 1].min())
    np.testing.assert_array_equal(points, landmarks(256))
