"""The detector against facenet-pytorch: its recorded boxes, and itself where it is installed."""

import importlib.util
import json
import logging
from pathlib import Path

import jax
import numpy as np
import pytest

from odfs_jax.data.media.frame_io import open_frames
from odfs_jax.data.media.frames import Frame
from odfs_jax.errors import UserError
from odfs_jax.extraction import boxes, weights
from odfs_jax.extraction.detectors import build_detector
from odfs_jax.extraction.detectors.mtcnn import likeliest, pyramid
from odfs_jax.faces.packaged_weights import package_file
from odfs_jax.nets.detectors import mtcnn as nets

DATA = Path(__file__).parents[1] / "data"
ROOT = Path(__file__).parents[3]
DEMO = ROOT / "assets" / "demo"


def detect(detector, images):
    return detector([Frame("x", i, None, image) for i, image in enumerate(images)])


def assert_same(found, reference):
    """The acceptance of the detector: same count and IoU >= 0.95; in fact they agree to 1e-2 px."""
    assert len(found) == len(reference)
    for ours, theirs in zip(found, reference, strict=True):
        overlap = boxes.union_overlap(ours.box, np.array([theirs["box"]], np.float32))
        assert overlap[0] >= 0.95
        np.testing.assert_allclose(ours.box, theirs["box"], atol=0.02)
        np.testing.assert_allclose(ours.points, theirs["points"], atol=0.02)
        assert ours.score == pytest.approx(theirs["score"], abs=1e-3)


def test_recorded_boxes_of_facenet_pytorch(frames, detector):
    reference = json.loads((DATA / "reference.json").read_text())
    assert set(reference) == set(frames) and sum(map(len, reference.values())) == 7
    for name, image in frames.items():
        assert_same(detect(detector, [image])[0], reference[name])


@pytest.mark.parametrize("clip", ["src.mp4", "dst.mp4"])
def test_facenet_pytorch_on_the_demo(clip, detector, facenet):
    reference = facenet.load(20, 0.709, (0.6, 0.7, 0.7))
    with open_frames(DEMO / clip) as source:
        images = [frame.image for frame in source if frame.index % 25 == 0]
    size = detector.frames_per_call(*images[0].shape[:2])
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        theirs = zip(*reference.detect(np.stack(batch), landmarks=True), strict=True)
        for faces, expected in zip(detect(detector, batch), theirs, strict=True):
            assert_same(faces, facenet.describe(expected))


@pytest.mark.parametrize(
    ("name", "shape"),
    [("PNet", (2, 60, 41, 3)), ("RNet", (4, 24, 24, 3)), ("ONet", (4, 48, 48, 3))],
)
def test_networks_equal_facenet_pytorch(name, shape, facenet):
    import torch

    x = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    ours = jax.jit(getattr(nets, name)().apply)(weights.mtcnn_params()[name.lower()], x)
    theirs = getattr(facenet.load(20, 0.709, (0.6, 0.7, 0.7)), name.lower())
    with torch.no_grad():
        box, *points, face = (y.numpy() for y in theirs(torch.tensor(x.transpose(0, 3, 1, 2))))
    np.testing.assert_allclose(ours[0], face[:, 1], atol=3e-6)
    np.testing.assert_allclose(ours[1], np.moveaxis(box, 1, -1), atol=3e-6)
    for five in points:
        np.testing.assert_allclose(ours[2], five.reshape(-1, 2, 5).transpose(0, 2, 1), atol=3e-6)


def test_a_face_of_a_batch_does_not_depend_on_its_neighbors(frames, detector):
    alone = detect(detector, [frames["ada_000.jpg"]])[0]
    beside = detect(detector, [frames["ben_010.jpg"], frames["ada_000.jpg"]])[1]
    np.testing.assert_array_equal(alone[0].box, beside[0].box)


def test_fewer_large_frames_a_call(detector, configure):
    sizes = [(384, 384), (1080, 1920), (2160, 3840), (6000, 8000)]
    assert [detector.frames_per_call(*size) for size in sizes] == [4, 4, 2, 1]
    usual = build_detector(configure().detector)  # every fifth is searched, the last one too
    assert [usual.frames_per_call(*size) for size in sizes] == [16, 6, 2, 1]


def test_nothing_in_flat_and_in_tiny_frames(detector):
    assert detect(detector, [np.full((384, 384, 3), 90, np.uint8)]) == [[]]
    assert detect(detector, [np.zeros((11, 300, 3), np.uint8)] * 3) == [[], [], []]


def test_too_few_candidates_are_said(frames, configure, caplog):
    overrides = ("batch_size=1", "args.candidates=3", "args.min_face=120")
    few = build_detector(configure(*(f"detector.{o}" for o in overrides)).detector)
    with caplog.at_level(logging.WARNING):
        detect(few, [frames["ada_000.jpg"]])
    assert "more than 3 candidates" in caplog.text and "detector.args.candidates" in caplog.text


@pytest.mark.parametrize("most", [1, 3, 100])
def test_the_likeliest_of_each_frame_are_kept(most):
    rng = np.random.default_rng(0)
    frame, row = np.sort(rng.integers(0, 4, 40)), np.arange(40)
    scores = rng.permutation(40) / np.float32(40)
    (frames, rows), left_out = likeliest((frame, row), scores, most)
    own = [row[frame == f] for f in range(4)]
    expected = [i for r in own for i in sorted(sorted(r, key=lambda i: -scores[i])[:most])]
    assert rows.tolist() == expected and frames.tolist() == frame[expected].tolist()
    assert left_out == 40 - len(expected)


def test_pyramid_of_the_presets(configure):
    usual = build_detector(configure("detector.args.search_every=1").detector).settings
    assert len(pyramid(384, 384, usual)) == 9  # 384 * 0.6 * 0.709^8 = 14.7, the next is below 12
    assert pyramid(1080, 1920, usual)[0] == pytest.approx(12 / (0.03 * 1920))
    steady = build_detector(configure("detector=mtcnn_2018").detector).settings
    scales = pyramid(1080, 1920, steady)
    assert scales[0] == pytest.approx(12 / (0.042 * 1920))
    assert scales[1] / scales[0] == pytest.approx(0.95)


def test_the_weights_are_those_of_the_mtcnn_package():
    """Bit for bit, so that the boxes are too."""
    packed = dict(np.load(weights.MTCNN))
    expected = load_tool("pack_mtcnn").read_packaged()
    assert packed.keys() == expected.keys() and len(packed) == 50
    for name, array in expected.items():
        assert packed[name].dtype == array.dtype == np.float32
        np.testing.assert_array_equal(packed[name], array, err_msg=name)


def test_changed_weights_are_refused_and_never_unpickled(tmp_path, monkeypatch):
    changed = tmp_path / "mtcnn.npz"
    changed.write_bytes(b"cos\nsystem\n(S'touch PWNED'\ntR.")
    monkeypatch.setattr(weights, "MTCNN", changed)
    with pytest.raises(UserError, match="SHA-256"):
        weights.mtcnn_params()
    tool = load_tool("pack_mtcnn")
    monkeypatch.setattr(tool, "package_file", lambda *_: changed)
    monkeypatch.setattr(tool.joblib, "load", lambda *_: pytest.fail("unpickled"))
    with pytest.raises(UserError, match="SHA-256"):
        tool.read_packaged()


def load_tool(name: str):
    """The module of a script in tools/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_missing_package_is_named():
    with pytest.raises(UserError, match="no_such_package: no file x"):
        package_file("no_such_package", "x")


@pytest.mark.parametrize(
    "override",
    [
        "detector.name=retina",
        "detector.batch_size=0",
        "+detector.args.min_fase=3",
        "detector.args.factor=1.0",
        "detector.args.factor=fast",
        "detector.args.pnet_threshold=7",
        "detector.args.candidates=2.5",
    ],
)
def test_bad_settings_are_named(configure, override):
    key = override.lstrip("+").split("=")[0]
    with pytest.raises(UserError, match=key.replace(".", r"\.")):
        build_detector(configure(override).detector)
