"""Masks of aligned pictures: polygons, pictures, and which of them counts."""

import cv2
import numpy as np
import pytest
from face_files import SIZE, usual_face

from odfs_jax.data.aligned_png import MAX_MASK, Polygon
from odfs_jax.data.media import png
from odfs_jax.data.stored_masks import encode_mask, stored_mask
from odfs_jax.faces.hull import face_mask

LEFT = np.array([[-1.0, -1.0], [11.5, -1.0], [11.5, 24.0], [-1.0, 24.0]])  # half of 24 pixels
TOP = np.array([[-1.0, -1.0], [24.0, -1.0], [24.0, 11.5], [-1.0, 11.5]])


def test_a_face_without_either_has_none():
    assert stored_mask(usual_face()) is None


def test_what_is_drawn_counts_before_what_was_found():
    white = encode_mask(np.full((8, 8), 255, np.uint8))
    mask = stored_mask(usual_face(mask=white, polygons=(Polygon(True, LEFT), Polygon(False, TOP))))
    assert mask.shape == (SIZE, SIZE)
    assert mask[13:, :10].min() == 255 and mask[:10].max() == 0 and mask[:, 14:].max() == 0


def test_polygons_that_only_exclude_are_taken_off_the_mask_or_the_hull():
    white = encode_mask(np.full((8, 8), 255, np.uint8))
    mask = stored_mask(usual_face(mask=white, polygons=(Polygon(False, TOP),)))
    assert mask[:10].max() == 0 and mask[14:].min() == 255
    rng = np.random.default_rng(0)
    face = usual_face(polygons=(Polygon(False, TOP),), landmarks=rng.uniform(2, 22, (68, 2)))
    hull = face_mask(face.landmarks, SIZE, SIZE, brows=True)
    mask = stored_mask(face)
    assert mask[:10].max() == 0
    np.testing.assert_array_equal(mask[14:], hull[14:])


@pytest.mark.parametrize("size", [6, 24, 96])
def test_a_mask_of_any_size_covers_the_whole_picture(size):
    drawn = np.zeros((size, size), np.uint8)
    drawn[:, : size // 2] = 255
    mask = stored_mask(usual_face(mask=encode_mask(drawn)))
    assert mask.shape == (SIZE, SIZE) and mask.dtype == np.uint8
    assert abs(mask.mean() - 127.5) < 2 and mask[:, 8].min() > 200 and mask[:, 15].max() < 55


def test_a_large_mask_is_averaged_down():
    content = encode_mask(np.full((2 * MAX_MASK, 2 * MAX_MASK), 7, np.uint8))
    assert png.image_size(content) == (MAX_MASK, MAX_MASK)
    assert (cv2.imdecode(np.frombuffer(content, np.uint8), 0) == 7).all()


def test_a_mask_whose_pixels_are_damaged_is_a_value_error():
    content = encode_mask(np.full((8, 8), 255, np.uint8))
    broken = png.SIGNATURE + b"".join(
        png._pack(kind, b"\0" * len(data) if kind == b"IDAT" else data)
        for kind, data in png.chunks(content)
    )
    with pytest.raises(ValueError, match="cannot be decoded"):
        stored_mask(usual_face(mask=broken))
