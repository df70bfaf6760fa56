"""Face Mesh: the network beside LiteRT's run of the original file, and where its points lie.

`data/face_mesh.npz` holds what LiteRT 2.3.0 gives for face_landmark.tflite of mediapipe 0.10.21, on
two of the pictures resized to 192 pixels.
"""

from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odfs_jax.extraction.detection import Detection
from odfs_jax.extraction.landmarkers.face_mesh import (
    landmarks_of,
    to_rim,
)
from odfs_jax.extraction.weights import face_mesh_variables
from odfs_jax.faces import pose
from odfs_jax.nets.detectors.face_mesh import INPUT, FaceMesh
from tests.extraction.landmarkers.test_dlib68 import TRUTH, detection, off_when_turned

DATA = Path(__file__).parents[1] / "data"


def test_the_network_gives_what_the_original_file_gives(frames):
    names = "ada_070", "ben_010"
    crops = [cv2.resize(frames[f"{name}.jpg"], (INPUT, INPUT)) for name in names]
    points, logits = jax.jit(FaceMesh().apply)(
        face_mesh_variables(), np.stack(crops).astype(np.float32) / 255
    )
    with np.load(DATA / "face_mesh.npz") as reference:
        for name, mesh, logit in zip(names, np.asarray(points), np.asarray(logits), strict=True):
            np.testing.assert_allclose(mesh, reference[f"{name}_points"], atol=2e-3)  # pixels
            np.testing.assert_allclose(logit, reference[f"{name}_face"], atol=1e-3)


@pytest.mark.parametrize("name", sorted(TRUTH))
def test_points_are_where_the_renderer_put_them(frames, landmarker, name):
    exact = np.array(TRUTH[name]["landmarks"])
    alone = Detection(detection(name).box, None, 1.0)
    again = Detection(detection(name).box, None, 1.0, landmarks=exact)
    for face in (detection(name), alone, again):
        (found,) = landmarker([frames[name]], [face])
        assert found.shape == (68, 2) and found.dtype == np.float64
        error = np.linalg.norm(found - exact, axis=1) / np.linalg.norm(exact[30] - exact[8])
        assert error[27:].mean() < 0.08  # brows are drawn higher by the mesh than by the renderer
        angles = np.array(pose.angles_of(pose.rotation_of(found)))
        assert (np.abs(angles - TRUTH[name]["pose"]) < (9, 12, 7)).all()


def test_points_turn_with_the_picture(frames, landmarker):
    assert max(off_when_turned(landmarker, frames)) < 2  # pixels; the face is 230 high


def test_a_batch_gives_what_single_faces_give(frames, landmarker):
    names = sorted(TRUTH) * 2  # more than fit in the smaller calls
    together = landmarker([frames[n] for n in names], [detection(n) for n in names])
    for name, points in zip(names, together, strict=True):
        (alone,) = landmarker([frames[name]], [detection(name)])
        np.testing.assert_allclose(points, alone, atol=0.02)


def test_the_outline_lies_on_the_edge_of_the_mesh():
    with np.load(DATA / "face_mesh.npz") as reference:
        mesh = reference["ada_070_points"][:, :2].astype(np.float64)
    rim = cv2.convexHull(mesh.astype(np.float32))
    for point in landmarks_of(mesh)[:17]:
        assert abs(cv2.pointPolygonTest(rim, tuple(map(float, point)), True)) < 1e-2


@given(st.lists(st.floats(-3, 3), min_size=5, max_size=5), st.floats(0.1, 9))
def test_rays_end_on_the_rim(angles, scale):
    square = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    rays = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    ends = to_rim(scale * rays + 7, square + 7) - 7
    np.testing.assert_allclose(np.abs(ends).max(axis=1), 1, atol=1e-9)
    np.testing.assert_allclose(ends / np.linalg.norm(ends, axis=1)[:, None], rays, atol=1e-9)
