"""IoU, boundary F-score and cross-entropy of masks against scipy and counts by hand."""

import jax.numpy as jnp
import numpy as np
from scipy import ndimage, special

from odfs_jax.training.objectives.segmentation import TOLERANCE, boundary_score, cross_entropy, iou


def blobs(seed, count=3, size=40):
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(count, size, size)), (0, 4, 4))
    return (noise > 0).astype(np.float32)[..., None]


def test_cross_entropy_is_that_of_the_sigmoid():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (2, 8, 8, 1)).astype(np.float32)
    masks = rng.random((2, 8, 8, 1)).astype(np.float32)
    share = special.expit(logits.astype(np.float64))
    expected = -(masks * np.log(share) + (1 - masks) * np.log1p(-share)).mean((1, 2, 3))
    np.testing.assert_allclose(cross_entropy(logits, masks), expected, rtol=1e-5)


def test_iou_counts_pixels():
    a, b = blobs(0), blobs(1)
    expected = (a * b).sum((1, 2, 3)) / np.maximum(a, b).sum((1, 2, 3))
    np.testing.assert_allclose(iou(a, b), expected, rtol=1e-6)
    empty = jnp.zeros((1, 8, 8, 1))
    assert iou(empty, empty)[0] == 1 and iou(empty, 1 - empty)[0] == 0


def test_boundary_score_is_that_of_outlines_within_the_tolerance():
    a, b = blobs(0), blobs(1)
    reach = max(1, round(TOLERANCE * 40 * 2**0.5))
    near = np.ones((2 * reach + 1, 2 * reach + 1))
    expected = []
    for one, other in zip(a[..., 0] > 0, b[..., 0] > 0, strict=True):
        edges = [
            area & ~ndimage.binary_erosion(area, np.ones((3, 3)), border_value=1)
            for area in (one, other)
        ]
        wide = [ndimage.binary_dilation(edge, near) for edge in edges]
        precision = (edges[0] & wide[1]).sum() / edges[0].sum()
        recall = (edges[1] & wide[0]).sum() / edges[1].sum()
        expected.append(2 * precision * recall / (precision + recall))
    np.testing.assert_allclose(boundary_score(a, b), expected, rtol=1e-5)
    np.testing.assert_allclose(boundary_score(a, a), 1.0, rtol=1e-6)
    empty = jnp.zeros((1, 8, 8, 1))
    assert boundary_score(empty, empty)[0] == 1
