"""The FAN landmarker: its crops, its batches, and face-alignment's own decoding."""

import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from odfs_jax.extraction.detection import Detection
from odfs_jax.extraction.landmarkers import fan
from odfs_jax.faces import affine
from odfs_jax.nets.detectors import fan as nets

DATA = Path(__file__).parents[1] / "data"
TRUTH = json.loads((DATA / "truth.json").read_text())


@pytest.fixture(scope="module")
def landmarker():
    """FAN with one hourglass, random weights and crops of 64 pixels."""
    net, rng = nets.FanNet(stacks=1), np.random.default_rng(0)
    example = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    shapes = flatten_dict(jax.eval_shape(net.init, jax.random.key(0), example))
    variables = {
        path: rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        if path[-1] in ("scale", "var")
        else rng.normal(0, 0.05, leaf.shape).astype(np.float32)
        for path, leaf in shapes.items()
    }
    variables = unflatten_dict(variables)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nets, "FanNet", functools.partial(nets.FanNet, stacks=1))
        patch.setattr(nets, "INPUT", 64)
        patch.setattr(fan, "find_weights", lambda *_: None)
        patch.setattr(fan, "fan_variables", lambda _: variables)
        yield fan.FanLandmarker(fan.FanSettings(weights=None, flip=True, batch_size=2))


def face(name):
    points = np.array(TRUTH[name]["landmarks"])
    return Detection(np.concatenate([points.min(0), points.max(0)]), None, 1.0)


def test_points_do_not_depend_on_the_batch(frames, landmarker):
    names = sorted(TRUTH)[:3]
    empty = Detection(np.full(4, 9.0), None, 1.0)
    faces = [face(names[0]), empty, face(names[1]), face(names[2])]
    images = [frames[name] for name in (names[0], names[0], names[1], names[2])]
    together = landmarker(images, faces)
    assert np.isnan(together[1]).all() and together[0].shape == (68, 2)
    for image, one, points in zip(images, faces, together, strict=True):
        np.testing.assert_allclose(landmarker([image], [one])[0], points, atol=1e-3)


def test_the_mirrored_picture_gives_the_mirrored_points(frames, landmarker):
    crop = frames["ada_000.jpg"][160:224, 160:224][None]
    points, mirrored = (
        np.asarray(landmarker._run(landmarker.variables, picture, flip=True))
        for picture in (crop, np.ascontiguousarray(crop[:, :, ::-1]))
    )
    mirrored = mirrored[:, np.array(fan.MIRROR)] * (-1, 1) + (63, 0)
    assert np.median(np.abs(points - mirrored)) < 1e-2


def test_the_crop_holds_the_face_where_face_alignment_has_it():
    box = np.array([100.0, 50.0, 200.0, 170.0])  # 100 wide, 120 high
    matrix = fan.crop(Detection(box, None, 1.0))
    center = np.array([150.0, 110.0 - 0.12 * 120])
    np.testing.assert_allclose(affine.transform(matrix, center), (nets.INPUT - 1) / 2)
    side = 200 * (100 + 120) / 195
    corner = affine.transform(matrix, center + side / 2)
    np.testing.assert_allclose(corner, nets.INPUT - 0.5)


@pytest.mark.parametrize("turned", [90, 180, 270])
def test_the_crop_of_a_turned_face_stands_upright(turned):
    matrix = fan.crop(Detection(np.array([10.0, 10.0, 50.0, 50.0]), None, 1.0, turned=turned))
    # the picture has to be turned against the clock: what is on the right then was below (90)
    along = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[turned]
    moved = matrix[:, :2] @ np.array(along, np.float64)
    assert moved[0] > 0 and abs(moved[1]) < 1e-9
