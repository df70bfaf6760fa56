"""The aligned PNG: what is written comes back, and nothing from outside is trusted."""

import dataclasses
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from face_files import SIZE, changed, picture, usual_face
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from odfs_jax.data import aligned_png
from odfs_jax.data.media import png
from odfs_jax.errors import BadFileError
from odfs_jax.faces.types import FaceType

quick = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

numbers = st.floats(-1e6, 1e6)
points = st.builds(
    lambda seed, scale: np.random.default_rng(seed).normal(0, scale, (68, 2)),
    st.integers(0, 999),
    st.sampled_from([0.0, 1.0, 1e3, 1e7]),
)
plain_names = st.text(min_size=1, max_size=40).filter(
    lambda name: Path(name).name == name and name not in (".", "..") and "\0" not in name
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | numbers | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=12,
)
known = {field.name for field in dataclasses.fields(aligned_png.FaceData)} | {"version"}
extras = st.dictionaries(
    st.text(max_size=20).filter(lambda key: key not in known), json_values, max_size=5
)


@st.composite
def faces(draw):
    face_type = draw(st.sampled_from(FaceType))
    width, height = draw(st.tuples(st.integers(1, 1 << 17), st.integers(1, 1 << 17)))
    if face_type is FaceType.MARK_ONLY:  # its picture is the whole frame
        shape = [SIZE, draw(st.integers(1, SIZE))]
        width, height = draw(st.permutations(shape))
    source = aligned_png.Source(
        file=draw(plain_names),
        frame=draw(st.integers(0, 1 << 40)),
        pts=draw(st.none() | st.integers(-(1 << 62), 1 << 62)),
        width=width,
        height=height,
        rect=tuple(draw(st.tuples(numbers, numbers, numbers, numbers))),
        landmarks=draw(points),
    )
    return aligned_png.FaceData(
        face_type=face_type,
        size=SIZE,
        landmarks=draw(points),
        source=source,
        pose=aligned_png.Pose(*draw(st.tuples(numbers, numbers, numbers))),
        detector=draw(st.text(max_size=30)),
        landmarker=draw(st.text(max_size=30)),
        score=draw(numbers),
        extra=draw(extras),
    )


def assert_equal(found, expected):
    for field in dataclasses.fields(expected):
        ours, theirs = getattr(found, field.name), getattr(expected, field.name)
        if dataclasses.is_dataclass(ours):
            assert_equal(ours, theirs)
        elif isinstance(ours, np.ndarray):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)
        else:
            assert ours == theirs


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "00000_0.png"
    aligned_png.write_face(path, picture(), usual_face())
    return path


@quick
@given(faces(), st.integers(0, 99))
def test_round_trip(tmp_path, face, seed):
    path = tmp_path / "face.png"
    aligned_png.write_face(path, picture(seed, face.shape), face)
    image, found = aligned_png.read_image_and_face(path)
    np.testing.assert_array_equal(image, picture(seed, face.shape))
    assert_equal(found, face)
    assert_equal(aligned_png.read_face(path), face)


@quick
@given(extras)
def test_rewriting_keeps_pixels_and_unknown_keys(tmp_path, extra):
    path = tmp_path / "face.png"
    aligned_png.write_face(path, picture(), usual_face(extra=extra))
    face = aligned_png.read_face(path)
    aligned_png.rewrite_data(path, dataclasses.replace(face, landmarks=face.landmarks + 1))
    image, found = aligned_png.read_image_and_face(path)
    np.testing.assert_array_equal(image, picture())
    assert found.extra == extra
    np.testing.assert_allclose(found.landmarks, face.landmarks + 1)


def test_other_programs_see_a_plain_rgb_picture(path):
    np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], picture())


def test_a_picture_that_does_not_fit_its_data_is_a_bug_of_ours(tmp_path):
    with pytest.raises(ValueError, match="does not fit"):
        aligned_png.write_face(tmp_path / "x.png", picture(), usual_face(size=SIZE + 1))
    with pytest.raises(ValueError, match="not JSON compliant"):
        aligned_png.write_face(tmp_path / "x.png", picture(), usual_face(score=math.nan))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kept", range(0, 2200, 61))
def test_truncated(path, kept):
    whole = path.read_bytes()
    path.write_bytes(whole[: min(kept, len(whole) - 1)])
    for read in (aligned_png.read_face, aligned_png.read_image_and_face):
        with pytest.raises(BadFileError, match=r"00000_0.png"):
            read(path)


@quick
@given(st.data())
def test_one_flipped_bit_is_always_found(tmp_path, data):
    path = tmp_path / "face.png"
    aligned_png.write_face(path, picture(), usual_face())
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(BadFileError):
        aligned_png.read_image_and_face(path)


def assert_refused(path):
    """Both readers refuse `path` in one line that names it."""
    for read in (aligned_png.read_face, aligned_png.read_image_and_face):
        with pytest.raises(BadFileError) as error:
            read(path)
        assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@quick
@given(faces(), st.data())
def test_any_face_cut_or_damaged_anywhere_is_refused(tmp_path, face, data):
    path = tmp_path / "face.png"
    aligned_png.write_face(path, picture(0, face.shape), face)
    content = bytearray(path.read_bytes())
    places = st.lists(st.integers(0, 8 * len(content) - 1), min_size=1, max_size=5, unique=True)
    if data.draw(st.booleans(), label="cut"):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        for bit in data.draw(places):
            content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    assert_refused(path)


@quick
@given(st.sampled_from([b"IHDR", b"IDAT"]), st.data())
def test_wrong_chunks_with_right_checksums(tmp_path, kind, data):
    """What a broken or hostile program may write: refused, or the picture itself."""
    path = tmp_path / "face.png"
    aligned_png.write_face(path, picture(), usual_face())
    kept = png.chunks(path.read_bytes())
    index = next(i for i, chunk in enumerate(kept) if chunk[0] == kind)
    body = bytearray(kept[index][1])
    del body[data.draw(st.integers(1, len(body)), label="kept bytes") :]
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(0, 255))
    kept[index] = (kind, bytes(body))
    path.write_bytes(png.SIGNATURE + b"".join(png._pack(*chunk) for chunk in kept))
    try:
        image, _ = aligned_png.read_image_and_face(path)
    except BadFileError as error:
        assert str(error).startswith(f"{path}: ")
    else:
        np.testing.assert_array_equal(image, picture())


fields = [
    f"{inner}{field.name}"
    for inner, kind in (
        ("", aligned_png.FaceData),
        ("source.", aligned_png.Source),
        ("pose.", aligned_png.Pose),
    )
    for field in dataclasses.fields(kind)
    if field.name != "extra"
]


@quick
@given(st.sampled_from(["version", *fields]), json_values)
def test_any_value_in_any_field_is_read_back_or_refused(tmp_path, where, value):
    path = tmp_path / "face.png"
    aligned_png.write_face(path, picture(), usual_face())
    changed(path, where, value)
    try:
        face = aligned_png.read_face(path)
    except BadFileError as error:
        assert where.split(".")[-1] in str(error) and "\n" not in str(error)
    else:
        *outer, last = where.split(".")
        found = getattr(face, outer[0]) if outer else face
        assert where == "version" or getattr(found, last) == value


@quick
@given(st.binary(max_size=200))
def test_arbitrary_bytes_after_a_png_head(tmp_path, rest):
    path = tmp_path / "face.png"
    path.write_bytes(png.SIGNATURE + rest)
    with pytest.raises(BadFileError):
        aligned_png.read_image_and_face(path)


def test_polygons_and_a_mask_come_back(tmp_path):
    areas = (
        aligned_png.Polygon(True, np.array([[0.0, 1.5], [9.0, 2.0], [4.0, 9.0]])),
        aligned_png.Polygon(False, np.array([[2.0, 2.0], [3.0, 2.0], [3.0, 3.0], [2.0, 3.0]])),
    )
    mask = png.encode(np.full((12, 12), 200, np.uint8))
    path = tmp_path / "a.png"
    aligned_png.write_face(path, picture(), usual_face(polygons=areas, mask=mask))
    aligned_png.rewrite_data(path, aligned_png.read_face(path))
    face = aligned_png.read_face(path)
    assert face.mask == mask and [area.include for area in face.polygons] == [True, False]
    for found, area in zip(face.polygons, areas, strict=True):
        np.testing.assert_array_equal(found.points, area.points)
