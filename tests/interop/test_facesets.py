"""Facesets of DeepFaceLab: taken over whole, usable at once; hostile ones refused."""

import logging
import os
import pickle
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from dfl_files import face_dict, frame_points, jpeg, old_png, picture, write_pak

from odfs_jax.config import compose
from odfs_jax.conversion.target_faces import find_target_faces
from odfs_jax.data.aligned_png import read_face, read_image_and_face
from odfs_jax.data.faceset import load_faceset
from odfs_jax.data.media import png
from odfs_jax.data.media.frame_io import open_frames
from odfs_jax.errors import UserError
from odfs_jax.faces.align import alignment_matrix
from odfs_jax.faces.spec import FaceSpec
from odfs_jax.faces.types import FaceType
from odfs_jax.interop.facesets import import_faces
from odfs_jax.interop.import_dfl import import_dfl


@pytest.fixture
def aligned(tmp_path):
    """An empty folder for DeepFaceLab's files."""
    (tmp_path / "dfl").mkdir()
    return tmp_path / "dfl"


def imported(source, frames=None):
    """{name: (picture, data)} of what comes out, and the errors."""
    folder = source.with_name("aligned")
    _, bad = import_faces(source, folder, frames)
    return {p.name: read_image_and_face(p) for p in sorted(folder.glob("*.png"))}, bad


def refusal(aligned, content, name="a.jpg"):
    """Why this file is left out of a faceset whose other face is taken."""
    (aligned / "good.jpg").write_bytes(jpeg(face_dict()))
    (aligned / name).write_bytes(content)
    faces, bad = imported(aligned)
    assert list(faces) == ["good.png"] and len(bad) == 1
    message = str(bad[0])
    assert message.isprintable() and name in message and len(message) < 500
    return message


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_a_jpeg_keeps_its_pixels_and_its_data(aligned, protocol):
    polygons = {
        "polys": [
            {"type": 1, "pts": np.array([[1, 2], [60, 3], [30, 50.5]], np.float32)},
            {"type": 0, "pts": np.array([[5, 5], [9, 5], [9, 9], [5, 9]], np.float32)},
            {"type": 0, "pts": np.array([[5, 5]], np.float32)},
        ]
    }
    mask = np.zeros((32, 32), np.uint8)
    mask[8:20, 4:30] = 255
    coded = cv2.imencode(".png", mask)[1].reshape(-1, 1)
    data = face_dict(seg_ie_polys=polygons, xseg_mask=coded)
    content = jpeg(data, protocol=protocol)
    (aligned / "00012_0.jpg").write_bytes(content)
    faces, bad = imported(aligned)
    assert not bad
    image, face = faces["00012_0.png"]
    np.testing.assert_array_equal(
        image, cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    )
    assert face.face_type is FaceType.DFL_WHOLE and face.size == 64
    np.testing.assert_allclose(face.landmarks, data["landmarks"], atol=1e-4)
    np.testing.assert_allclose(face.source.landmarks, frame_points(), atol=1e-4)
    assert (face.source.file, face.source.frame, face.source.pts) == ("00012.png", 12, None)
    assert face.source.rect == (180, 100, 400, 330)
    assert abs(face.pose.yaw) < 5
    assert [(p.include, len(p.points)) for p in face.polygons] == [(True, 3), (False, 4)]
    np.testing.assert_allclose(face.polygons[0].points, polygons["polys"][0]["pts"])
    np.testing.assert_array_equal(png.decode(face.mask)[..., 0], mask)


def test_masks_and_polygons_of_older_forms(aligned):
    mask = cv2.imencode(".jpg", np.full((1500, 1500), 255, np.uint8))[1].reshape(-1)
    areas = [(1, [[1, 2], [60, 3], [30, 50]])]
    (aligned / "a.jpg").write_bytes(jpeg(face_dict(seg_ie_polys=areas, xseg_mask=mask)))
    (_, face), *_ = imported(aligned)[0].values()
    assert face.polygons[0].include and png.image_size(face.mask) == (1024, 1024)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("half_face", "half"), ("midfull_face", "midfull"), ("full_face", "full"), ("head", "head")],
)
def test_face_types(aligned, name, kind):
    kind = FaceType(f"dfl_{kind}")
    (aligned / "a.jpg").write_bytes(jpeg(face_dict(name, kind=kind)))
    (_, face), *_ = imported(aligned)[0].values()
    assert face.face_type is kind


def test_a_jpeg_without_a_type_is_full_and_without_points_has_its_matrix(aligned):
    data = face_dict(None, kind=FaceType.DFL_FULL, source_landmarks=None, source_rect=None)
    (aligned / "a.jpg").write_bytes(jpeg(data))
    (_, face), *_ = imported(aligned)[0].values()
    assert face.face_type is FaceType.DFL_FULL
    np.testing.assert_allclose(face.source.landmarks, frame_points(), atol=1e-3)


def test_a_png_of_2018(aligned):
    data = face_dict("full_face", kind=FaceType.FULL, image_to_face_mat=None, yaw_value=0.1)
    (aligned / "00003.png").write_bytes(old_png(data))
    faces, _ = imported(aligned)
    image, face = faces["00003.png"]
    np.testing.assert_array_equal(image, picture()[..., ::-1])
    assert face.face_type is FaceType.FULL


def test_whole_frames(aligned):
    image = picture(64)[:48]
    data = face_dict("mark_only", landmarks=frame_points((10, 10), 30).tolist(),
                     source_landmarks=None, image_to_face_mat=None)  # fmt: skip
    (aligned / "a.jpg").write_bytes(jpeg(data, image))
    ((found, face),) = imported(aligned)[0].values()
    assert face.face_type is FaceType.MARK_ONLY and found.shape == (48, 64, 3)
    assert (face.source.width, face.source.height) == (64, 48)


def test_the_frames_tell_their_size(aligned):
    frames = aligned.with_name("frames")
    frames.mkdir()
    cv2.imwrite(str(frames / "00012.png"), np.zeros((480, 640, 3), np.uint8))
    (aligned / "a.jpg").write_bytes(jpeg(face_dict()))
    (_, face), *_ = imported(aligned, frames)[0].values()
    assert (face.source.width, face.source.height) == (640, 480)
    with open_frames(frames) as source:  # as conversion does
        faces = find_target_faces(aligned.with_name("aligned"), source)
        (region,) = faces.pop_regions(next(iter(source)), face.face_type, 64)
    assert not faces.skipped and region.touches(480, 640)


def test_a_faceset_pak(aligned):
    faces = [
        ("00001_0.jpg", None, jpeg(face_dict(), picture(64, 1))),
        ("../../../etc/00001_0.jpg", "ben", jpeg(face_dict(), picture(64, 2))),
        ("..\\..\\c.jpg", "../ada", jpeg(face_dict(), picture(64, 3))),
        ("", None, jpeg(face_dict(), picture(64, 4))),
        ("00001_0.jpg", None, jpeg(face_dict(), picture(64, 5))),
    ]
    write_pak(aligned / "faceset.pak", faces)
    found, bad = imported(aligned)
    assert list(found) == ["00001_0.png", "00003.png", "ada_c.png", "ben_00001_0.png"]
    assert "a second face of this name" in str(bad[0]) and len(bad) == 1
    expected = cv2.imdecode(np.frombuffer(faces[2][2], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(found["ada_c.png"][0], expected)
    assert not (aligned.parent.parent / "etc").exists()


def test_models_of_our_types_take_the_faces_at_once(aligned):
    (aligned / "a.jpg").write_bytes(jpeg(face_dict(size=128), picture(128)))
    imported(aligned)
    for face_type in ("half", "full", "dfl_full", "dfl_whole"):
        spec = FaceSpec(FaceType(face_type), 32)
        faces = load_faceset(aligned.with_name("aligned"), "src", spec)
        face = read_face(aligned.with_name("aligned") / "a.png")
        expected = alignment_matrix(face.landmarks, spec.face_type, 32)
        scale = faces.images.shape[1] / 128
        model_from_store = cv2.invertAffineTransform(faces.store_from_model[0].astype(np.float64))
        np.testing.assert_allclose(model_from_store[0, 0] * scale, expected[0, 0], rtol=1e-4)
    with pytest.raises(
        UserError, match=r"a dfl_whole face, the model needs head; .*face_type=head"
    ):
        load_faceset(aligned.with_name("aligned"), "src", FaceSpec(FaceType.HEAD, 32))


def test_the_command(aligned, tmp_path, caplog, capsys):
    (aligned / "a.jpg").write_bytes(jpeg(face_dict()))
    (aligned / "b.jpg").write_bytes(cv2.imencode(".jpg", picture())[1].tobytes())
    config = compose("import_dfl", [f"workspace={tmp_path}/new", f"faces={aligned}", "data=dst"])
    with caplog.at_level(logging.WARNING):
        import_dfl(config)
    assert "b.jpg: no face data of DeepFaceLab" in caplog.text
    assert "1 faces, 1 files left out" in capsys.readouterr().out
    assert (tmp_path / "new/dst/aligned/a.png").exists()
    with pytest.raises(UserError, match="not empty"):
        import_dfl(config)
    with pytest.raises(UserError, match="no aligned face of DeepFaceLab"):
        import_faces(tmp_path / "new", tmp_path / "other", None)
    assert not (tmp_path / "other").exists()
    with pytest.raises(UserError, match="nothing to import"):
        import_dfl(compose("import_dfl"))


# ------------------------------------------------------------------------------------ hostile files


class System:
    def __reduce__(self):
        return os.system, ("touch /tmp/odfs-was-unpickled",)


def points(count, value):
    return [[1.0, value] for _ in range(count)]


CODED = cv2.imencode(".png", np.zeros((8, 8), np.uint8))[1].reshape(-1)
FIELDS = {
    "a call": ({"face_type": System()}, "the global"),
    "an unknown type": ({"face_type": "mve_custom"}, "'mve_custom' is not one of"),
    "not aligned": ({"face_type": "full_face_no_align"}, "is not one of"),
    "a type of another type": ({"face_type": 4}, "face_type 4"),
    "few points": ({"landmarks": points(67, 2.0)}, "landmarks"),
    "points that coincide": ({"landmarks": points(68, 2.0)}, "coincide"),
    "points of no number": ({"landmarks": points(68, float("nan"))}, "landmarks"),
    "points as text": ({"landmarks": "x"}, "landmarks"),
    "no points": ({"landmarks": None}, "landmarks None"),
    "a huge point": ({"source_landmarks": points(68, 1e300)}, "source_landmarks"),
    "no origin": ({"source_landmarks": None, "image_to_face_mat": None}, "neither"),
    "a flat matrix":
        ({"source_landmarks": None, "image_to_face_mat": np.zeros((2, 3))}, "inverted"),
    "a rect of three": ({"source_rect": [1, 2, 3]}, "source_rect"),
    "a kind of polygon": ({"seg_ie_polys": {"polys": [{"type": 7, "pts": []}]}}, "polygon"),
    "polygons as text": ({"seg_ie_polys": "x"}, "seg_ie_polys"),
    "too many polygons": (
        {"seg_ie_polys": [(1, points(3, 2.0)) for _ in range(101)]}, "not of 1 to 100"),
    "too many corners": (
        {"seg_ie_polys": [(1, np.zeros((1001, 2), np.float32))]}, "a list of 1001, not"),
    "points in a row": ({"seg_ie_polys": [(1, np.zeros(9, np.float32))]}, "the points of a poly"),
    "points of no end": (
        {"seg_ie_polys": [(1, np.full((3, 2), np.nan, np.float32))]}, "the points of a polygon"),
    "far points": ({"seg_ie_polys": [(1, [[1e8, 1], [2, 2], [3, 3]])]}, "polygon"),
    "a mask that is text": ({"xseg_mask": "x"}, "no array of bytes"),
    "a mask of numbers": ({"xseg_mask": np.zeros(9, np.float32)}, "no array of bytes"),
    "a mask that is no picture": ({"xseg_mask": np.zeros(99, np.uint8)}, "picture"),
}  # fmt: skip


@pytest.mark.parametrize("name", FIELDS)
def test_a_hostile_field_is_refused(aligned, name):
    changes, reason = FIELDS[name]
    assert any(part in refusal(aligned, jpeg(face_dict() | changes)) for part in reason.split("|"))
    assert not Path("/tmp/odfs-was-unpickled").exists()


def test_a_mask_that_lies_about_its_size(aligned):
    kept = png.chunks(CODED.tobytes())
    kept[0] = (b"IHDR", struct.pack(">IIBBBBB", 2**16, 2**16, 8, 0, 0, 0, 0))
    packed = (
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in kept
    )
    content = np.frombuffer(png.SIGNATURE + b"".join(packed), np.uint8)
    assert "65536x65536 pixels" in refusal(aligned, jpeg(face_dict(xseg_mask=content)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (jpeg(pickle.dumps(System(), 2)), "no pickle of protocol"),
        (jpeg(pickle.dumps([1], 4)), "is not an object"),
        (jpeg(b"\x80\x04" + b"]" * 60_000), "cut off"),
        (jpeg(b"{}"), "no face data"),
        (jpeg(face_dict())[:300], "FRAME of more bytes"),
        (jpeg(face_dict())[:-200], "JPEG"),
        (jpeg(face_dict(), picture(64)[:32]), "no square"),
        (old_png({"face_type": System()}), "the global"),
        (old_png({"seg_ie_polys": [(1, np.zeros((1 << 18, 2)))]}), "face data of 4,194,4"),
        (b"GIF89a", "neither a JPEG nor a PNG"),
        (b"", "neither a JPEG nor a PNG"),
    ],
)
def test_a_hostile_picture_is_refused(aligned, content, reason):
    message = refusal(aligned, content, "a.png" if content[:1] == b"\x89" else "a.jpg")
    assert any(part in message for part in reason.split("|")), message
    assert not Path("/tmp/odfs-was-unpickled").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c[:8] + struct.pack("<Q", 1 << 62) + c[16:], "no faceset.pak"),
        (lambda c: struct.pack("<Q", 2) + c[8:], "no faceset.pak"),
        (lambda c: c[:12], "cut off"),
        (lambda c: c[:16] + pickle.dumps(System(), 4) + c[16:], "REDUCE|STOP|cut off|global|bytes"),
        (lambda c: b"", "cut off"),
    ],
)
def test_a_hostile_pak_is_refused(aligned, change, reason):
    write_pak(aligned / "faceset.pak", [("a.jpg", None, jpeg(face_dict()))])
    path = aligned / "faceset.pak"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError) as error:
        imported(path)
    assert any(part in str(error.value) for part in reason.split("|"))
    assert str(path) in str(error.value) and not Path("/tmp/odfs-was-unpickled").exists()
    assert not aligned.with_name("aligned").exists()


@pytest.mark.parametrize("lie", [1 << 40, (1 << 64) - 200])
def test_a_pak_with_wrong_offsets(aligned, lie):
    write_pak(aligned / "faceset.pak", [("a.jpg", None, jpeg(face_dict()))], lie=lie)
    with pytest.raises(UserError, match=r"lie in each other|no aligned face"):
        imported(aligned)
