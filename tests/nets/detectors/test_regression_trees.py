"""The cascade against dlib's own shape predictor, trained for the occasion on a few blobs."""

import dlib
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from odfs_jax.extraction.landmarkers.dlib_trees import parse
from odfs_jax.nets.detectors.regression_trees import placed, refine

SIDE = 64


def blob(rng):
    """A gray picture [SIDE,SIDE] of a tilted bright bar, the box around it, its ends and middle."""
    centre, angle = rng.uniform(26, 38, 2), rng.uniform(-0.5, 0.5)
    along = 14 * np.array([np.cos(angle), np.sin(angle)])
    y, x = np.mgrid[:SIDE, :SIDE]
    across = -(x - centre[0]) * np.sin(angle) + (y - centre[1]) * np.cos(angle)
    inside = np.abs((x - centre[0]) * along[0] + (y - centre[1]) * along[1]) < 14**2
    picture = 200 * np.exp(-(across**2) / 18) * inside + rng.uniform(0, 30, (SIDE, SIDE))
    low = np.rint(centre - 18).astype(int)
    points = np.rint(np.stack([centre - along, centre, centre + along])).astype(int)
    return picture.astype(np.uint8), low, points


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """dlib's predictor of three points, by path."""
    rng, pictures, shapes = np.random.default_rng(0), [], []
    for _ in range(30):
        picture, low, points = blob(rng)
        box = dlib.rectangle(*low.tolist(), *(low + 36).tolist())
        parts = [dlib.point(*point) for point in points.tolist()]
        pictures.append(picture), shapes.append([dlib.full_object_detection(box, parts)])
    options = dlib.shape_predictor_training_options()
    options.tree_depth, options.cascade_depth, options.num_trees_per_cascade_level = 3, 4, 20
    options.feature_pool_size, options.oversampling_amount = 60, 10
    path = tmp_path_factory.mktemp("trees") / "blobs.dat"
    dlib.train_shape_predictor(pictures, shapes, options).save(str(path))
    return path


def test_it_finds_what_dlib_finds(trained):
    mean, stages = parse(trained.read_bytes())
    assert mean.shape == (3, 2) and stages.leaves.shape == (4, 8 * 20, 6)
    reference, rng = dlib.shape_predictor(str(trained)), np.random.default_rng(1)
    found, expected = [], []
    for _ in range(8):
        pair = [blob(rng)[:2] for _ in range(2)]
        pictures, lows = (np.stack(part) for part in zip(*pair, strict=True))
        squares = np.concatenate([lows, np.full((2, 1), 36)], axis=1).T.astype(np.float32)
        start = jnp.broadcast_to(mean[..., None], (3, 2, 2))
        shapes = jax.jit(refine)(stages, mean, start, squares, pictures)
        found += list(np.asarray(placed(shapes, squares)))
        for picture, low in pair:
            parts = reference(picture, dlib.rectangle(*low.tolist(), *(low + 36).tolist())).parts()
            expected.append([(p.x, p.y) for p in parts])
    off = np.abs(np.array(found) - expected).max(axis=(1, 2))  # dlib's points are whole pixels
    assert np.median(off) < 0.51 and off.max() < 2


def test_what_lies_beyond_the_picture_is_black(trained):
    """As in dlib: a start whose square reaches over the edge still ends where dlib's does."""
    mean, stages = parse(trained.read_bytes())
    picture = np.full((SIDE, SIDE), 90, np.uint8)
    reference = dlib.shape_predictor(str(trained))
    for left, top in ((-20, 10), (50, 50), (-300, -300)):
        box = dlib.rectangle(left, top, left + 36, top + 36)
        expected = [(p.x, p.y) for p in reference(picture, box).parts()]
        squares = jnp.array([[left], [top], [36]], jnp.float32)
        start = jnp.asarray(mean)[..., None]
        shapes = jax.jit(refine)(stages, mean, start, squares, picture[None])
        np.testing.assert_allclose(placed(shapes, squares)[0], expected, atol=0.51)
