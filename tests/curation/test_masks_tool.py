"""scripts/masks.py: written into the PNGs, taken out, fetched, exported; stopped and run again."""

import dataclasses
import errno
from pathlib import Path

import av
import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from odfs_jax.config import compose
from odfs_jax.curation import masks as tool
from odfs_jax.data.aligned_png import Polygon, read_face, rewrite_data
from odfs_jax.data.lock import locked
from odfs_jax.data.stored_masks import BY_HAND, encode_mask, stored_mask
from odfs_jax.errors import UserError
from odfs_jax.faces.hull import face_mask
from odfs_jax.faces.spec import FaceSpec
from odfs_jax.faces.types import FaceType
from odfs_jax.inference import Masker
from odfs_jax.saved_model import find_model, load_model

SIDE = 64
FRAMES = 5
MAKER = "facemask 20"


def predict(params, faces):
    """Seen is what is brighter than a half: the mask of a face can be read off its picture."""
    return (faces.mean(-1, keepdims=True) > params).astype(jnp.float32)


MASKER = Masker(predict, 0.5, FaceSpec(FaceType.HALF, 32))


@pytest.fixture
def folder(tmp_path, write_faceset):
    """Faces of five frames of a clip; their names are not in time's order."""
    folder = tmp_path / "dst/aligned"
    write_faceset(folder, FRAMES, SIDE)
    for number, path in enumerate(files(folder)):
        face = read_face(path)
        source = dataclasses.replace(face.source, frame=FRAMES - 1 - number, pts=0)
        rewrite_data(path, dataclasses.replace(face, source=source))
    return folder


def files(folder):
    return sorted(folder.glob("*.png"))


def contents(folder):
    return {path.name: path.read_bytes() for path in files(folder)}


def config(tmp_path, *more):
    return compose("masks", [f"workspace={tmp_path}", "hardware.compilation_cache=null", *more])


def test_apply_writes_the_median_over_time(folder):
    assert tool.apply(files(folder), MASKER, MAKER, 4) == (FRAMES, 0, [])
    bright = []
    for path in files(folder):
        picture = cv2.imread(str(path)).astype(np.float32).mean(-1) / 255
        bright.append((cv2.resize(picture, (32, 32), interpolation=cv2.INTER_AREA) > 0.5) * 255.0)
    for number, path in enumerate(files(folder)):
        face = read_face(path)
        assert face.mask_maker == MAKER
        near = bright[number - 1 : number + 2] if 0 < number < FRAMES - 1 else [bright[number]]
        expected = np.median(near, axis=0)
        found = cv2.resize(stored_mask(face), (32, 32), interpolation=cv2.INTER_AREA)
        assert np.abs(found - expected).mean() < 20, number


def test_a_face_is_only_followed_to_where_it_can_be(folder):
    faces = {path: read_face(path) for path in files(folder)}
    first, second, *_, last = files(folder)  # the names count down in time
    far = dataclasses.replace(faces[second].source, landmarks=faces[second].source.landmarks + 900)
    faces[second] = dataclasses.replace(faces[second], source=far)
    near = tool.neighbors(faces)
    assert next(iter(near)) == last and near[first] == [first] and near[second] == [second]
    middle = files(folder)[3]
    assert near[middle] == [files(folder)[4], middle, files(folder)[2]]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_a_stopped_run_goes_on_to_the_same_end(folder, tmp_path, write_faceset, monkeypatch, error):
    before = contents(folder)
    tool.apply(files(folder), MASKER, MAKER, 4)
    whole = contents(folder)
    for name, content in before.items():
        (folder / name).write_bytes(content)

    count, write = 0, tool.rewrite_data

    def fails_the_third_time(path, face):
        nonlocal count
        count += 1
        if count == 3:
            raise error
        write(path, face)

    monkeypatch.setattr(tool, "rewrite_data", fails_the_third_time)
    with pytest.raises(type(error)):
        tool.apply(files(folder), MASKER, MAKER, 4)
    assert sum(read_face(path).mask is not None for path in files(folder)) == 2
    monkeypatch.undo()
    assert tool.apply(files(folder), MASKER, MAKER, 4) == (FRAMES - 2, 2, [])
    assert contents(folder) == whole
    assert len(list(folder.iterdir())) == FRAMES


def test_another_network_replaces_masks_and_what_is_drawn_stays(folder):
    path = files(folder)[0]
    drawn = (Polygon(True, np.array([[1.0, 1.0], [60.0, 1.0], [30.0, 60.0]])),)
    rewrite_data(path, dataclasses.replace(read_face(path), polygons=drawn))
    label = stored_mask(read_face(path))
    for maker in (MAKER, "facemask 40"):
        assert tool.apply(files(folder), MASKER, maker, 4)[0] == FRAMES
    face = read_face(path)
    assert face.mask_maker == "facemask 40" and len(face.polygons) == 1
    np.testing.assert_array_equal(stored_mask(face), label)


def test_remove_takes_masks_out_and_leaves_the_rest(folder, tmp_path):
    before = {path: read_face(path) for path in files(folder)}
    pixels = {path: cv2.imread(str(path)) for path in files(folder)}
    tool.apply(files(folder), MASKER, MAKER, 4)
    tool.masks(config(tmp_path, "action=remove"))
    for path, face in before.items():
        after = read_face(path)
        assert after.mask is None and after.mask_maker is None
        assert after.source.frame == face.source.frame
        np.testing.assert_array_equal(cv2.imread(str(path)), pixels[path])


def test_a_painted_mask_is_kept_and_fetched(folder, tmp_path):
    path, *others = files(folder)
    painted = encode_mask(np.full((32, 32), 200, np.uint8))
    face = dataclasses.replace(read_face(path), mask=painted, mask_maker=BY_HAND)
    rewrite_data(path, face)
    content = path.read_bytes()
    assert tool.apply(files(folder), MASKER, MAKER, 4)[:2] == (len(others), 1)
    tool.masks(config(tmp_path, "action=remove"))
    tool.masks(config(tmp_path, "action=fetch"))
    assert contents(tmp_path / "dst/aligned_labelled") == {path.name: content}
    assert path.read_bytes() == content and read_face(others[0]).mask is None


def test_doubt_is_what_two_masks_do_not_share(folder):
    path = files(folder)[0]
    left, half = np.zeros((32, 32), np.uint8), np.zeros((SIDE, SIDE), np.uint8)
    left[:, :16] = 255
    half[:, : SIDE * 3 // 4] = 255
    face = dataclasses.replace(read_face(path), mask=encode_mask(left))
    rewrite_data(path, face)
    assert tool.doubt(path, half, MASKER) == pytest.approx(1 / 3, abs=0.02)
    assert tool.doubt(path, stored_mask(face), MASKER) < 0.02


def test_fetch_copies_the_faces_that_are_drawn_on(folder, tmp_path):
    with pytest.raises(UserError, match="none of its 5 faces has anything drawn on it"):
        tool.masks(config(tmp_path, "action=fetch"))
    target = tmp_path / "dst/aligned_labelled"
    assert not target.exists()
    path = files(folder)[2]
    drawn = (Polygon(False, np.array([[1.0, 1.0], [20.0, 1.0], [10.0, 30.0]])),)
    rewrite_data(path, dataclasses.replace(read_face(path), polygons=drawn))
    tool.masks(config(tmp_path, "action=fetch"))
    assert contents(target) == {path.name: path.read_bytes()}
    with pytest.raises(UserError, match="not empty"):
        tool.masks(config(tmp_path, "action=fetch"))


def test_export_lays_masks_into_their_frames(folder, tmp_path):
    half = np.zeros((32, 32), np.uint8)
    half[:, 16:] = 255
    path = files(folder)[0]
    rewrite_data(path, dataclasses.replace(read_face(path), mask=encode_mask(half)))
    tool.masks(config(tmp_path, "action=export", f"folder={tmp_path / 'mattes'}"))
    mattes = {p.stem: cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in files(tmp_path / "mattes")}
    assert sorted(mattes) == [f"{number:06d}" for number in range(FRAMES)]
    matte = mattes[f"{FRAMES - 1:06d}"]
    assert matte.shape == (SIDE, SIDE)
    assert matte[20:40, 40:60].min() > 250 and matte[20:40, 4:24].max() < 5
    assert 0.1 < (mattes["000000"] > 127).mean() < 0.9  # the hull of the others


def test_export_as_a_clip_has_all_frames_of_the_clip(folder, tmp_path, write_clip):
    """To the gray level as the pictures have it, and black where nobody is."""
    frames = [np.full((SIDE, SIDE, 3), 90, np.uint8)] * (FRAMES + 1)
    write_clip(tmp_path / "dst.mp4", frames)
    for path in files(folder):
        face = read_face(path)
        source = dataclasses.replace(face.source, file="dst.mp4")
        rewrite_data(path, dataclasses.replace(face, source=source))
    tool.masks(config(tmp_path, "action=export"))
    tool.masks(config(tmp_path, "action=export", f"folder={tmp_path / 'masks.mkv'}"))
    with av.open(str(tmp_path / "masks.mkv")) as clip:
        assert clip.streams.video[0].codec_context.name == "ffv1" and len(clip.streams) == 1
        plates = [frame.to_ndarray(format="gray") for frame in clip.decode(video=0)]
    assert len(plates) == FRAMES + 1 and plates[-1].max() == 0
    for picture, plate in zip(files(folder.with_name("aligned_masks")), plates, strict=False):
        np.testing.assert_array_equal(plate, cv2.imread(str(picture), cv2.IMREAD_UNCHANGED))
    with pytest.raises(UserError, match=r"there is such a file; .* another folder="):
        tool.masks(config(tmp_path, "action=export", f"folder={tmp_path / 'masks.mkv'}"))
    tool.masks(config(tmp_path, "action=export", f"folder={tmp_path / 'masks.v2'}"))
    assert len(files(tmp_path / "masks.v2")) == FRAMES


def test_what_cannot_be_is_said(folder, tmp_path, held_elsewhere):
    with pytest.raises(
        UserError, match=r"no trained mask network here; run: python train\.py model"
    ):
        tool.masks(config(tmp_path, "action=apply", "mask_model=seeing"))
    with pytest.raises(UserError, match=r"mask_model=bundled:ada_ben_80: .* bundled:actors_128"):
        tool.masks(config(tmp_path, "action=apply", "mask_model=bundled:ada_ben_80"))
    with pytest.raises(UserError, match="action=paint: expected one of apply, remove, fetch, exp"):
        tool.masks(config(tmp_path, "action=paint"))
    with held_elsewhere(locked(folder, "sorting faces")), pytest.raises(UserError, match="sorting"):
        tool.masks(config(tmp_path, "action=remove"))


def test_the_ready_made_network_is_used_where_there_is_no_other(folder, tmp_path):
    tool.masks(config(tmp_path, "action=apply"))
    step = load_model(find_model(tmp_path / "models", None, masks=True)).step
    assert {read_face(path).mask_maker for path in files(folder)} == {f"actors_128 {step}"}


def test_the_ready_made_network_sees_faces_and_what_lies_before_them(actor_faces):
    masker, _ = tool.load_masker(find_model(Path("nowhere"), "bundled:actors_128", masks=True))
    size = masker.spec.resolution
    bar = (slice(size // 2, size * 5 // 8), slice(None))  # below the eyes
    pictures, hulls = [], []
    for picture, face in actor_faces.values():
        points = face.landmarks * (size / face.size)
        pictures.append(cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA) / 255)
        hulls.append(face_mask(points, size, size, brows=True) > 127)
    clear, hulls = np.array(pictures, np.float32), np.array(hulls)
    covered = clear.copy()
    covered[:, *bar] = (0.1, 0.4, 0.2)
    seen, beside = (np.asarray(masker.predict(masker.params, p))[..., 0] for p in (clear, covered))
    overlap = ((seen > 0.5) & hulls).sum((1, 2)) / ((seen > 0.5) | hulls).sum((1, 2))
    assert overlap.mean() > 0.8
    assert (beside[:, *bar] < 0.5).mean() > 0.95 and (seen[:, *bar] < 0.5).mean() < 0.5


def test_a_damaged_file_is_skipped(folder):
    path = files(folder)[1]
    path.write_bytes(path.read_bytes()[:-40])
    written, there, bad = tool.apply(files(folder), MASKER, MAKER, 4)
    assert (written, there, len(bad)) == (FRAMES - 1, 0, 1) and path.name in str(bad[0])


def test_a_batch_has_one_shape(folder):
    shapes = []

    def watched(params, faces):
        shapes.append(faces.shape)
        return predict(params, faces)

    with jax.disable_jit():
        tool.apply(files(folder), dataclasses.replace(MASKER, predict=watched), MAKER, 3)
    assert shapes == [(3, 32, 32, 3)] * 2
