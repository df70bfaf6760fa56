"""The debug picture: every mark lies where the thing is, in its color."""

import cv2
import numpy as np

from odfs_jax.data.media.frames import Frame
from odfs_jax.extraction.detection import Detection
from odfs_jax.extraction.journal import Dropped
from odfs_jax.extraction.writing import (
    BOX_COLOR,
    DROPPED_COLOR,
    MAX_SIDE,
    POINTS_COLOR,
    SQUARE_COLOR,
    debug_folder,
    debug_picture,
    write_debug_picture,
)
from odfs_jax.faces import affine, align
from odfs_jax.faces.landmarks68 import MEAN_HEAD
from odfs_jax.faces.types import FaceType

GRAY = np.full((400, 600, 3), 90, np.uint8)
LANDMARKS = MEAN_HEAD[:, :2] * (60, -60) + (400, 200)
FACE = Detection(np.array([300.0, 90, 500, 330]), None, 0.87, LANDMARKS, "dlib68")
DROPPED = Dropped("score 0.30, below 0.6", (40.0, 150.0, 140.0, 260.0), 0.3)


def near(picture, point, color):
    """True when a pixel of about `color` lies within two of `point`."""
    x, y = np.rint(point).astype(int)
    patch = picture[y - 2 : y + 3, x - 2 : x + 3].astype(int)
    return bool((np.abs(patch - color).max(-1) < 60).any())


def test_box_points_square_and_what_was_left_out():
    picture = debug_picture(GRAY, [FACE], [DROPPED], FaceType.FULL)
    assert picture.shape == GRAY.shape and (GRAY == 90).all()
    assert all(near(picture, point, POINTS_COLOR) for point in LANDMARKS)
    assert near(picture, (300, 320), BOX_COLOR) and near(picture, (500, 320), BOX_COLOR)
    back = affine.invert(align.alignment_matrix(LANDMARKS, FaceType.FULL, 1))
    corners = affine.transform(back, np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]))
    edges = [*((corners + np.roll(corners, 1, 0)) / 2), *corners]
    inside = [c for c in edges if (c > 3).all() and (c < (596, 396)).all()]
    assert len(inside) >= 3 and all(near(picture, corner, SQUARE_COLOR) for corner in inside)
    assert near(picture, (40, 200), DROPPED_COLOR) and near(picture, (140, 200), DROPPED_COLOR)
    bare = debug_picture(GRAY, [], [], FaceType.FULL)
    assert (bare == GRAY).all()
    label = debug_picture(GRAY, [], [DROPPED], FaceType.FULL)[120:150, 40:300]
    assert (
        np.abs(label.astype(int) - DROPPED_COLOR).max(-1) < 60
    ).sum() > 100  # the reason is written


def test_no_square_where_no_face_is_cut():
    picture = debug_picture(GRAY, [FACE], [], FaceType.MARK_ONLY)
    assert not (np.abs(picture.astype(int) - SQUARE_COLOR).max(-1) < 40).any()


def test_large_frames_are_reduced_and_the_marks_with_them(tmp_path):
    image = np.full((2400, 3840, 3), 90, np.uint8)
    points = LANDMARKS * 6
    face = Detection(FACE.box * 6, None, 0.9, points, "dlib68")
    folder = debug_folder(tmp_path / "aligned")
    write_debug_picture(folder, Frame("a.mp4", 7, 0, image), [face], [], FaceType.FULL)
    written = cv2.imread(str(tmp_path / "aligned_debug" / "00007.jpg"))[..., ::-1]
    assert written.shape == (1200, MAX_SIDE, 3)
    assert all(near(written, point / 2, POINTS_COLOR) for point in points[17:])
