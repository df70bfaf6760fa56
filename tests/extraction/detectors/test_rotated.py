"""Faces in turned frames."""

import numpy as np
import pytest

from odfs_jax.data.media.frames import Frame
from odfs_jax.errors import UserError
from odfs_jax.extraction.detection import Detection, Detector
from odfs_jax.extraction.detectors import build_detector
from odfs_jax.extraction.detectors.rotated import RotatedDetector, turn, turned_from_frame
from odfs_jax.faces import affine


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_points_follow_the_turned_picture(degrees):
    image = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    turned = turn(Frame("x", 0, None, image), degrees).image
    matrix = turned_from_frame(degrees, 5, 7)
    for x in range(7):
        for y in range(5):
            to_x, to_y = affine.transform(matrix, np.array([x, y], np.float64)).astype(int)
            np.testing.assert_array_equal(turned[to_y, to_x], image[y, x])


@pytest.mark.slow
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_lying_face_is_found_with_its_points(frames, detector, landmarker, degrees):
    image = frames["ada_070.jpg"]
    lying = np.ascontiguousarray(np.rot90(image, -degrees // 90))
    upright = Frame("x", 0, None, image)
    ((expected,),) = detector([upright])
    (faces,) = RotatedDetector(detector, (90, 180, 270))([Frame("x", 0, None, lying)])
    assert len(faces) == 1 and faces[0].turned == degrees
    back = affine.invert(turned_from_frame(degrees, *lying.shape[:2]))
    np.testing.assert_allclose(faces[0].points, affine.transform(back, expected.points), atol=0.1)
    found, straight = landmarker([lying, image], [faces[0], expected])
    error = np.linalg.norm(found - affine.transform(back, straight), axis=1)
    assert error.mean() < 1.5  # pixels; the face is 230 high


def test_an_upright_face_is_found_once(frames, detector):
    (faces,) = RotatedDetector(detector, (90, 180, 270))(
        [Frame("x", 0, None, frames["two_faces.jpg"])]
    )
    plain = detector([Frame("x", 0, None, frames["two_faces.jpg"])])[0]
    assert [f.turned for f in faces] == [0] * len(plain)
    for one, other in zip(faces, plain, strict=True):
        np.testing.assert_array_equal(one.box, other.box)


class Corner(Detector):
    """Finds one face, in the upper left corner of frames that are higher than wide."""

    name = "corner"

    def __call__(self, frames):
        box = np.array([0.0, 0.0, 4.0, 2.0], np.float32)
        tall = [frame.image.shape[0] > frame.image.shape[1] for frame in frames]
        return [[Detection(box, None, 1.0)] if high else [] for high in tall]


@pytest.mark.parametrize(
    ("degrees", "box"), [((90,), (17, 0, 19, 4)), ((180,), None), ((270,), (0, 5, 2, 9))]
)
def test_boxes_of_wide_frames_come_back(degrees, box):
    wide = Frame("x", 0, None, np.zeros((10, 20, 3), np.uint8))
    (faces,) = RotatedDetector(Corner(), degrees)([wide])
    assert [face.turned for face in faces] == ([] if box is None else list(degrees))
    for face in faces:
        np.testing.assert_array_equal(face.box, box)


@pytest.mark.parametrize("value", ["[45]", "[90,90]", "[0]"])
def test_other_angles_are_refused(configure, value):
    with pytest.raises(UserError, match=r"detector\.rotations=.*expected some of 90, 180, 270"):
        build_detector(configure(f"detector.rotations={value}").detector)
