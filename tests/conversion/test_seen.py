"""What lies before the face stays: merge.mask=dst and both with stored masks, stored, network."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from test_pipeline import HEIGHT, WIDTH, Clip, clip_frames, source_of, swapped  # noqa: F401

from odfs_jax.config import MergeConfig
from odfs_jax.conversion.merge import build_merge, build_seeing
from odfs_jax.conversion.pipeline import FaceMerger
from odfs_jax.conversion.target_faces import TargetFaces, find_target_faces
from odfs_jax.data.aligned_png import FaceData, Pose, Source, write_face
from odfs_jax.data.stored_masks import encode_mask
from odfs_jax.errors import UserError
from odfs_jax.faces.affine import transform
from odfs_jax.faces.align import alignment_matrix
from odfs_jax.faces.spec import FaceSpec
from odfs_jax.faces.types import FaceType
from odfs_jax.inference import Masker

SIZE = 48  # of the aligned picture


@pytest.fixture(scope="module")
def merge_with(identity_swapper):
    """merged(mask, frame, source, stored, see): the frame, its face in inverted colors."""

    def merged(mask, frame, source, stored=None, see=None):
        swapper = identity_swapper(32, lambda faces: 1 - faces)
        merge = build_merge(swapper, MergeConfig(mode="overlay", mask=mask, erode=10, blur=50))
        merger = FaceMerger(swapper, merge, 2, see=see and see(swapper))
        path = Path("0.png")
        masked = {} if stored is None else {path: face_of(source, stored)}
        targets = TargetFaces({0: [(path, source)]}, masked=masked)
        (result,) = merger.frames((one for one in [frame]), targets)
        return result

    return merged


def face_of(source: Source, mask: np.ndarray) -> FaceData:
    """The aligned face of `source`, its mask stored."""
    matrix = alignment_matrix(source.landmarks, FaceType.FULL, SIZE)
    points, pose = transform(matrix, source.landmarks), Pose(0.0, 0.0, 0.0)
    return FaceData(
        FaceType.FULL, SIZE, points, source, pose, "a", "b", 1.0, mask=encode_mask(mask)
    )


def right_half() -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[:, SIZE // 2 :] = 255
    return mask


@pytest.mark.parametrize("mask", ["dst", "both", "stored", "stored_predicted"])
def test_a_stored_mask_keeps_what_lies_before_the_face(merge_with, source_of, mask):  # noqa: F811
    frame, source = clip_frames(1)[0], source_of(0)
    whole = merge_with(mask, frame, source)
    result = merge_with(mask, frame, source, right_half())
    assert whole.weights[75, 80] > 200 and whole.weights[75, 120] > 200
    # An edge as sharp as the mask's, which neither erosion nor blur has moved.
    assert result.weights[75, :96].max() == 0 and result.weights[75, 104:115].min() > 200
    np.testing.assert_array_equal(result.image[:, :96], frame.image[:, :96])
    if mask in ("dst", "both"):  # without one, the hull stands for it in the others
        np.testing.assert_array_equal(result.weights[:, 106:], whole.weights[:, 106:])


def test_a_mask_that_was_not_asked_for_is_not_used(merge_with, source_of):  # noqa: F811
    frame, source = clip_frames(1)[0], source_of(0)
    for mask in ("predicted", "hull"):
        whole = merge_with(mask, frame, source)
        result = merge_with(mask, frame, source, right_half())
        np.testing.assert_array_equal(result.weights, whole.weights)


@pytest.mark.parametrize("mask", ["network", "network_predicted", "network_both"])
def test_a_mask_network_sees_the_frame_itself(merge_with, source_of, mask):  # noqa: F811
    image = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    image[:, :100] = 20
    frame = clip_frames(1, image)[0]

    def see(swapper):
        def predict(params, faces):
            return (faces.mean(-1, keepdims=True) > 0.5).astype(jnp.float32)

        masker = Masker(predict, {}, FaceSpec(FaceType.FULL, 64))
        found = build_seeing(masker, swapper.output_spec)
        return lambda regions, matrices: found({}, regions, matrices)

    result = merge_with(mask, frame, source_of(0), right_half() * 0, see)
    assert result.weights[75, :96].max() == 0 and result.weights[75, 104:112].min() > 200


def test_networks_that_cut_faces_otherwise_are_refused():
    masker = Masker(lambda params, faces: faces, {}, FaceSpec(FaceType.DFL_WHOLE, 64))
    with pytest.raises(UserError, match=r"merge\.mask=network: the mask network takes dfl_whole"):
        build_seeing(masker, FaceSpec(FaceType.FULL, 64))


def test_masks_are_read_with_the_faces_and_count_in_the_digest(tmp_path, source_of):  # noqa: F811
    source, picture = source_of(0), np.zeros((SIZE, SIZE, 3), np.uint8)
    digests = set()
    for mask in (right_half(), 255 - right_half(), None):
        face = face_of(source, right_half())
        face = dataclasses.replace(face, mask=None if mask is None else encode_mask(mask))
        write_face(tmp_path / "a.png", picture, face)
        targets = find_target_faces(tmp_path, Clip())
        assert len(targets.masked) == (mask is not None)
        digests.add(targets.digest())
    assert len(digests) == 3
    (region,) = targets.pop_regions(clip_frames(1)[0], FaceType.FULL, 32)
    assert region.seen is None
