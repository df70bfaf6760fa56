"""Our aligned faces as DeepFaceLab's, and back: points, polygons and masks are what they were."""

import pickle

import cv2
import numpy as np
import pytest
from dfl_files import face_dict, frame_points, jpeg, old_png, picture

from odfs_jax.config import compose
from odfs_jax.data.aligned_png import (
    FaceData,
    Polygon,
    Pose,
    Source,
    read_face,
    read_image_and_face,
    write_face,
)
from odfs_jax.data.media import png
from odfs_jax.errors import UserError
from odfs_jax.faces.affine import transform
from odfs_jax.faces.align import alignment_matrix
from odfs_jax.faces.types import FaceType
from odfs_jax.interop.facesets import encode_face, export_faces, import_faces, read_face_data
from odfs_jax.interop.import_dfl import export_dfl

SIZE = 64


def face_of(face_type, **changes):
    points = frame_points()
    matrix = alignment_matrix(points, face_type, SIZE)
    source = Source("dst.mp4", 11, 3600, 640, 480, (179.6, 100, 400, 330), points)
    data = {"face_type": face_type, "size": SIZE, "landmarks": transform(matrix, points)}
    data |= {"source": source, "pose": Pose(0, 0, 0), "detector": "s3fd", "landmarker": "fan"}
    return FaceData(**(data | {"score": 0.9} | changes))


def drawn(seed=0, count=7):
    """Areas with corners between the pixels, as a mouse leaves them and as DeepFaceLab has them."""
    rng = np.random.default_rng(seed)
    return tuple(
        Polygon(bool(i % 2), rng.uniform(-3, 900, (3 + i, 2)).astype(np.float32))
        for i in range(count)
    )


def mask_of(size=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (size, size), np.uint8)


def written(folder, name="00012_0", face_type=FaceType.DFL_WHOLE, **changes):
    folder.mkdir(exist_ok=True)
    write_face(folder / f"{name}.png", picture(SIZE)[..., ::-1], face_of(face_type, **changes))
    return folder / f"{name}.png"


def came_back(folder):
    """What comes in again of the faces in `folder`, which went out."""
    theirs, ours = folder.with_name("theirs"), folder.with_name("ours")
    count, bad = export_faces(sorted(folder.glob("*.png")), theirs)
    assert import_faces(theirs, ours, None) == (count, []) and not bad
    return {path.name: read_image_and_face(path) for path in ours.glob("*.png")}


@pytest.mark.parametrize("face_type", [FaceType.DFL_WHOLE, FaceType.DFL_HEAD, FaceType.FULL])
def test_polygons_and_masks_are_the_same_bit_for_bit(tmp_path, face_type):
    mask = png.encode(mask_of())
    path = written(tmp_path / "faces", face_type=face_type, polygons=drawn(), mask=mask)
    ((image, back),) = came_back(tmp_path / "faces").values()
    before, face = read_image_and_face(path)
    assert [area.include for area in back.polygons] == [area.include for area in face.polygons]
    for found, area, own in zip(back.polygons, face.polygons, drawn(), strict=True):
        np.testing.assert_array_equal(found.points, area.points)
        np.testing.assert_array_equal(found.points.astype(np.float32), own.points)
    assert back.mask == mask and back.face_type is face_type and back.size == SIZE
    np.testing.assert_array_equal(back.landmarks, face.landmarks)
    np.testing.assert_array_equal(back.source.landmarks, face.source.landmarks)
    exact = face_type is FaceType.FULL  # a PNG
    assert np.abs(image.astype(int) - before).max() <= (0 if exact else 6)


@pytest.mark.parametrize("form", [jpeg, old_png])
def test_what_deepfacelab_drew_comes_out_as_it_came(tmp_path, form):
    """Float32 of any fineness, in either kind of file."""
    rng = np.random.default_rng(5)
    areas = [{"type": i, "pts": rng.uniform(0, 64, (900, 2)).astype(np.float32)} for i in (1, 0)]
    coded = cv2.imencode(".png", mask_of(48))[1].reshape(-1, 1)
    kind = ("whole_face", FaceType.DFL_WHOLE) if form is jpeg else ("full_face", FaceType.FULL)
    data = face_dict(kind[0], kind=kind[1], seg_ie_polys={"polys": areas}, xseg_mask=coded)
    theirs = tmp_path / "dfl"
    theirs.mkdir()
    (theirs / ("a.jpg" if form is jpeg else "a.png")).write_bytes(form(data))
    assert import_faces(theirs, tmp_path / "faces", None) == (1, [])
    _, content = encode_face(*read_image_and_face(tmp_path / "faces/a.png"))
    found = pickle.loads(read_face_data(content)[0])
    assert found["face_type"] == data["face_type"]
    assert found["source_filename"] == "00012.png" and found["eyebrows_expand_mod"] == 1.0
    np.testing.assert_array_equal(found["source_rect"], data["source_rect"])
    np.testing.assert_allclose(found["image_to_face_mat"], data["image_to_face_mat"], atol=1e-3)
    for area, own in zip(found["seg_ie_polys"]["polys"], areas, strict=True):
        assert area["type"] == own["type"] and area["pts"].dtype == np.float32
        np.testing.assert_array_equal(area["pts"], own["pts"])
    decoded = cv2.imdecode(found["xseg_mask"], cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(decoded, mask_of(48))


def test_a_jpeg_is_one_that_other_readers_open(tmp_path):
    path = written(tmp_path / "faces")
    suffix, content = encode_face(*read_image_and_face(path))
    assert suffix == ".jpg" and content[2:4] == b"\xff\xe0"  # JFIF's own segment is the first
    shown = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(shown.astype(int) - picture(SIZE)).max() <= 6
    data = pickle.loads(read_face_data(content)[0])
    assert "seg_ie_polys" not in data and "xseg_mask" not in data
    assert data["source_filename"] == "00012.png"  # the twelfth frame of a clip


def test_a_mask_too_large_for_a_segment_is_a_jpeg(tmp_path):
    soft = cv2.resize(mask_of(40), (400, 400), interpolation=cv2.INTER_CUBIC)
    coded = png.encode(soft)
    assert len(coded) > 50_000
    written(tmp_path / "faces", mask=coded)
    ((_, back),) = came_back(tmp_path / "faces").values()
    assert np.abs(png.decode(back.mask)[..., 0].astype(int) - soft).mean() < 2
    path = written(tmp_path / "faces", "large", mask=png.encode(mask_of(400)))
    with pytest.raises(ValueError, match="bytes; DeepFaceLab's JPEGs hold 65,533"):
        encode_face(*read_image_and_face(path))


def test_the_command(tmp_path, capsys, caplog):
    folder = tmp_path / "work/dst/aligned"
    folder.parent.mkdir(parents=True)
    written(folder)
    written(folder, "other", FaceType.WHOLE)
    (folder / "bad.png").write_bytes(b"x")
    names = [f"workspace={tmp_path}/work", "data=dst", f"faces={tmp_path}/out"]
    export_dfl(compose("export_dfl", names))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["00012_0.jpg"]
    assert "1 faces, 2 files left out" in capsys.readouterr().out
    assert "other.png: a whole face, which DeepFaceLab does not have" in caplog.text
    with pytest.raises(UserError, match="not empty"):
        export_dfl(compose("export_dfl", names))
    with pytest.raises(UserError, match="nothing to export; give faces= or name="):
        export_dfl(compose("export_dfl"))
    with pytest.raises(UserError, match="the faces of one side"):
        export_dfl(compose("export_dfl", [*names, "data=src_dst"]))
    with pytest.raises(UserError, match=r"nothing to write; the last: .*bad\.png"):
        export_faces([folder / "bad.png"], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_whole_frame_keeps_its_form(tmp_path):
    points = frame_points((10, 10), 30)
    source = Source("00012.png", 12, None, 64, 48, (10, 10, 50, 40), points)
    face = face_of(FaceType.MARK_ONLY, landmarks=points, source=source)
    folder = tmp_path / "faces"
    folder.mkdir()
    write_face(folder / "a.png", picture(64)[:48, :, ::-1], face)
    ((image, back),) = came_back(folder).values()
    assert image.shape == (48, 64, 3) and back.source.file == "00012.png"
    np.testing.assert_array_equal(back.landmarks, read_face(folder / "a.png").landmarks)
