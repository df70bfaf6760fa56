"""The square around a face: it holds the face, at any place, size and turn."""

import numpy as np
import pytest

from odfs_jax.conversion.face_region import SIDES, face_region, read_region, write_region
from odfs_jax.faces.affine import invert, transform
from odfs_jax.faces.align import alignment_matrix
from odfs_jax.faces.types import FaceType


@pytest.mark.parametrize("size", [6, 40, 137, 900, 2600])
@pytest.mark.parametrize("roll", [0, 30, -135])
@pytest.mark.parametrize("face_type", [FaceType.HALF, FaceType.FULL])
def test_a_region_holds_the_face_square(face_points, size, roll, face_type):
    points = face_points((310.7, 205.2), size, roll)
    region = face_region(points, face_type, 64)
    assert region.side in SIDES
    matrix = alignment_matrix(points, face_type, 64)
    corners = np.array([[-0.5, -0.5], [63.5, -0.5], [-0.5, 63.5], [63.5, 63.5]])
    inside = transform(invert(matrix), corners) - (region.left, region.top)
    assert inside.min() > 0.5 and inside.max() < region.side - 1.5
    np.testing.assert_allclose(transform(region.model_from_region, inside), corners, atol=0.01)
    assert region.face_side == pytest.approx(size / (1 - 2 * face_type.padding), rel=1e-3)


def test_a_widened_region_is_the_same_face(face_points):
    region = face_region(face_points((100, 80), 50, 20), FaceType.FULL, 64)
    wide = region.widened(SIDES[SIDES.index(region.side) + 1])
    moved = np.array([[region.left - wide.left, region.top - wide.top]])
    np.testing.assert_allclose(
        transform(wide.model_from_region, moved + np.array([10, 7])),
        transform(region.model_from_region, np.array([[10, 7]])),
        atol=1e-3,
    )


def test_beyond_the_frame_its_edge_is_repeated_and_nothing_is_written(face_points):
    frame = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    region = face_region(face_points((5, 57), 40), FaceType.FULL, 64)
    assert region.left < 0 and region.top + region.side > 60
    pixels = read_region(frame, region)
    rows = np.clip(np.arange(region.top, region.top + region.side), 0, 59)
    cols = np.clip(np.arange(region.left, region.left + region.side), 0, 79)
    np.testing.assert_array_equal(pixels, frame[rows[:, None], cols])
    written = frame.copy()
    write_region(written, region, pixels)
    np.testing.assert_array_equal(written, frame)
    write_region(written, region, 255 - pixels)
    assert (written != frame).any()


@pytest.mark.parametrize(
    ("centre", "touches"), [((-30, 20), True), ((-90, 20), False), ((40, 400), False)]
)
def test_touching_the_frame(face_points, centre, touches):
    assert face_region(face_points(centre, 40), FaceType.FULL, 64).touches(60, 80) is touches


def test_hostile_landmarks_are_refused(face_points):
    with pytest.raises(ValueError, match="coincide"):
        face_region(np.ones((68, 2)), FaceType.FULL, 64)
    with pytest.raises(ValueError, match="the largest is"):
        face_region(face_points((0, 0), 1e8), FaceType.FULL, 64)
