"""A faceset in memory: how large, where the model's pixels lie in it, and which files are left."""

import dataclasses
import logging
from pathlib import Path

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from odfs_jax.data.aligned_png import Pose, read_image_and_face, rewrite_data, write_face
from odfs_jax.data.faceset import load_faceset, stored_size
from odfs_jax.errors import UserError
from odfs_jax.faces.affine import transform
from odfs_jax.faces.align import alignment_matrix
from odfs_jax.faces.crop import crop_face
from odfs_jax.faces.hull import eyes_mouth_mask, face_mask
from odfs_jax.faces.spec import FaceSpec
from odfs_jax.faces.types import FaceType
from odfs_jax.faces.warp import warp_affine

FRAMES = Path(__file__).parents[1] / "extraction" / "data"
HALF, FULL, HEAD = FaceType.HALF, FaceType.FULL, FaceType.HEAD


@pytest.mark.parametrize(
    ("files", "size", "model", "resolution", "expected"),
    [
        (HALF, 256, HALF, 32, 64),  # twice the model's pixels
        (FULL, 256, FULL, 64, 128),
        (FULL, 256, HALF, 64, 205),  # a half face is 5/8 of a full one
        (HEAD, 1024, HALF, 64, 512),
        (HALF, 64, HALF, 64, 64),  # never enlarged
    ],
)
def test_faces_are_kept_at_twice_the_models_size(
    tmp_path, write_faceset, files, size, model, resolution, expected
):
    write_faceset(tmp_path, 2, size, files)
    _, face = read_image_and_face(tmp_path / "00000_0.png")
    assert stored_size(face, [FaceSpec(model, resolution)]) == expected
    faceset = load_faceset(tmp_path, "src", FaceSpec(model, resolution))
    assert len(faceset) == 2
    assert faceset.images.shape == (2, expected, expected, 4) and faceset.images.dtype == np.uint8
    assert (
        faceset.store_from_model.shape == (2, 2, 3) and faceset.store_from_model.dtype == np.float32
    )


def test_the_finest_of_several_views_counts(tmp_path, write_faceset):
    """AVATAR: a half face of 64 pixels goes in, a full one of 256 comes out."""
    write_faceset(tmp_path, 1, 600, FULL)
    _, face = read_image_and_face(tmp_path / "00000_0.png")
    small, large = FaceSpec(HALF, 64, gray=True), FaceSpec(FULL, 256)
    assert stored_size(face, [small]) == 205 and stored_size(face, [small, large]) == 512
    faceset = load_faceset(tmp_path, "src", small, [large])
    assert faceset.images.shape == (1, 512, 512, 4) and faceset.input_spec == small
    cut = faceset.store_from_model[0].astype(np.float64)
    alone = load_faceset(tmp_path, "src", small).store_from_model[0]
    np.testing.assert_allclose(cut[:, :2] / alone[:, :2], 512 / 205, rtol=0.01)


def test_yaws_are_what_the_files_say(tmp_path, write_faceset):
    write_faceset(tmp_path, 3)
    for index, yaw in enumerate((-30.5, 0.0, 12.25)):
        path = tmp_path / f"{index:05d}_0.png"
        _, face = read_image_and_face(path)
        rewrite_data(path, dataclasses.replace(face, pose=Pose(yaw, 0.0, 0.0)))
    faceset = load_faceset(tmp_path, "src", FaceSpec(HALF, 32))
    np.testing.assert_array_equal(faceset.yaws, np.array([-30.5, 0.0, 12.25], np.float32))


@pytest.mark.parametrize(
    ("files", "model", "size", "resolution"),
    [(FULL, HALF, 256, 64), (FULL, FULL, 200, 64), (HEAD, HALF, 96, 64), (HALF, HALF, 64, 32)],
)
def test_a_spot_is_found_where_the_model_should_see_it(
    tmp_path, write_faceset, files, model, size, resolution
):
    """Alignment puts the mean face's unit square into the middle of both pictures."""
    write_faceset(tmp_path, 1, size, files)
    path = tmp_path / "00000_0.png"
    _, face = read_image_and_face(path)
    spot = np.array([0.3, 0.6])  # in the mean face's unit square
    shown, wanted = (
        (spot * (1 - 2 * kind.padding) + kind.padding) * side
        for kind, side in ((files, size), (model, resolution))
    )
    y, x = np.mgrid[:size, :size]
    width = 0.05 * size * (1 - 2 * files.padding)
    bump = np.exp(-((x - shown[0]) ** 2 + (y - shown[1]) ** 2) / (2 * width**2))
    write_face(path, np.repeat(np.rint(255 * bump)[..., None], 3, -1).astype(np.uint8), face)

    faceset = load_faceset(tmp_path, "src", FaceSpec(model, resolution))
    image, cut = jnp.asarray(faceset.images[0]), jnp.asarray(faceset.store_from_model[0])
    seen = np.asarray(warp_affine(image.astype(jnp.float32), cut, resolution, resolution))[..., 0]
    y, x = np.mgrid[:resolution, :resolution]
    found = (seen * x).sum() / seen.sum(), (seen * y).sum() / seen.sum()
    np.testing.assert_allclose(found, wanted, atol=0.1)


def test_the_fourth_channel_is_the_hull(tmp_path, write_faceset):
    write_faceset(tmp_path, 1, 128, FULL)
    picture, face = read_image_and_face(tmp_path / "00000_0.png")
    whole = load_faceset(tmp_path, "src", FaceSpec(FULL, 64)).images[0]
    np.testing.assert_array_equal(whole[..., :3], picture)
    np.testing.assert_array_equal(whole[..., 3], face_mask(face.landmarks, 128, 128))
    small = load_faceset(tmp_path, "src", FaceSpec(FULL, 32)).images[0]
    np.testing.assert_array_equal(small, cv2.resize(whole, (64, 64), interpolation=cv2.INTER_AREA))


def test_files_of_several_sizes_are_brought_to_one(tmp_path, write_faceset):
    write_faceset(tmp_path, 1, 48)
    write_faceset(tmp_path / "more", 1, 64)
    (tmp_path / "more" / "00000_0.png").rename(tmp_path / "00001_0.png")
    faceset = load_faceset(tmp_path, "src", FaceSpec(HALF, 32))
    assert faceset.images.shape == (2, 64, 64, 4)
    np.testing.assert_allclose(faceset.store_from_model[0], faceset.store_from_model[1], atol=0.3)


@pytest.mark.parametrize("views", [[FaceSpec(FULL, 32)], [FaceSpec(HALF, 32), FaceSpec(FULL, 64)]])
def test_a_face_type_that_shows_too_little_is_named_with_the_remedy(tmp_path, write_faceset, views):
    write_faceset(tmp_path, 1, 64, HALF)
    message = r"00000_0\.png: a half face, the model needs full; .*face_type=full"
    with pytest.raises(UserError, match=message):
        load_faceset(tmp_path, "src", *views[:1], views[1:])


@pytest.fixture
def bad_files(tmp_path):
    """Four PNGs that no face can be read from; returns their names."""
    (tmp_path / "letter.png").write_text("no picture at all")
    (tmp_path / "empty.png").write_bytes(b"")
    plain = np.zeros((64, 64, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "plain.png"), plain)
    whole = cv2.imencode(".png", plain)[1].tobytes()
    (tmp_path / "truncated.png").write_bytes(whole[: len(whole) // 2])
    return ["empty.png", "letter.png", "plain.png", "truncated.png"]


def test_bad_files_are_named_skipped_and_counted(tmp_path, write_faceset, bad_files, caplog):
    write_faceset(tmp_path, 2)
    _, face = read_image_and_face(tmp_path / "00000_0.png")
    nowhere = dataclasses.replace(face, landmarks=np.ones((68, 2)))  # no scale can be found
    write_face(tmp_path / "nowhere.png", np.zeros((64, 64, 3), np.uint8), nowhere)
    with caplog.at_level(logging.WARNING):
        faceset = load_faceset(tmp_path, "src", FaceSpec(HALF, 32))
    assert len(faceset) == 2
    for name in (*bad_files, "nowhere.png"):
        assert sum(f"skipped {tmp_path / name}: " in line for line in caplog.messages) == 1
    assert f"{tmp_path}: 5 of 7 files skipped" in caplog.messages


def test_no_face_left_is_an_error(tmp_path, bad_files):
    with pytest.raises(UserError, match="none of the 4 PNG files is a usable aligned face"):
        load_faceset(tmp_path, "src", FaceSpec(HALF, 32))


@pytest.mark.parametrize(("make", "message"), [(False, "no such folder"), (True, "no aligned PNG")])
def test_missing_and_empty_folders_name_the_command(tmp_path, make, message):
    folder = tmp_path / "src" / "aligned"
    if make:
        folder.mkdir(parents=True)
    with pytest.raises(UserError, match=rf"{message}.*python extract\.py data=src"):
        load_faceset(folder, "src", FaceSpec(HALF, 32))


def test_eyes_and_mouth_are_a_fifth_channel_on_request(tmp_path, write_faceset):
    write_faceset(tmp_path, 2, 64, HALF)
    plain = load_faceset(tmp_path, "src", FaceSpec(HALF, 32))
    faceset = load_faceset(tmp_path, "src", FaceSpec(HALF, 32), masks=("mask", "eyes_mouth"))
    assert plain.images.shape == (2, 64, 64, 4)
    np.testing.assert_array_equal(faceset.images[..., :4], plain.images)
    _, face = read_image_and_face(tmp_path / "00000_0.png")
    expected = eyes_mouth_mask(face.landmarks, 64, 64)
    assert 100 < (expected > 0).sum() < 0.5 * (plain.images[0, ..., 3] > 0).sum()
    np.testing.assert_array_equal(faceset.images[0, ..., 4], expected)
    smaller = load_faceset(
        tmp_path, "src", FaceSpec(HALF, 20), masks=("mask", "eyes_mouth")
    )  # 64 to 40 pixels
    assert smaller.images.shape == (2, 40, 40, 5)


@pytest.mark.parametrize("kind", ["avatar", "mark_only", "whole"])
def test_faces_of_every_type_give_what_a_model_sees(tmp_path, actor_faces, kind):
    """Whatever the folder's type shows of a face, the model's cut out of it is the same."""
    frame = cv2.imread(str(FRAMES / "ben_010.jpg"))[..., ::-1]
    _, face = actor_faces["ben_010"]
    for name in ("full", kind):
        matrix = alignment_matrix(face.source.landmarks, FaceType(name), 512)
        whole = name == "mark_only"
        picture = frame if whole else crop_face(frame, matrix, 512)
        changes = {"face_type": FaceType(name), "size": 384 if whole else 512}
        changes["landmarks"] = transform(matrix, face.source.landmarks)
        write_face(tmp_path / name / "a.png", picture, dataclasses.replace(face, **changes))
    seen = []
    for name in ("full", kind):
        faceset = load_faceset(tmp_path / name, "src", FaceSpec(HALF, 64))
        image = jnp.asarray(faceset.images[0], jnp.float32)
        seen.append(warp_affine(image, jnp.asarray(faceset.store_from_model[0]), 64, 64))
    difference = np.abs(np.asarray(seen[0] - seen[1]))
    assert difference[..., :3].mean() < 2 and (difference[..., 3] > 128).mean() < 0.02
