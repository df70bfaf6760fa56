"""S3FD as a detector against face-alignment's, with the same random weights in a file."""

import functools
import logging
import warnings

import cv2
import jax
import numpy as np
import pytest

from odfs_jax.data.media.frames import Frame
from odfs_jax.extraction import boxes
from odfs_jax.extraction.detectors import build_detector, s3fd
from odfs_jax.nets.detectors import s3fd as nets


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A .pth with a random S3FD that is sure of few places, and face-alignment's detector of it."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("face_alignment")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from face_alignment.detection.sfd import FaceDetector
        from face_alignment.detection.sfd.net_s3fd import s3fd
    torch.manual_seed(0)
    net = s3fd()
    for name, layer in net.named_modules():
        if name.endswith("mbox_conf"):
            layer.weight.data *= 3
        elif name.endswith("mbox_loc"):
            layer.weight.data *= 2
    path = tmp_path_factory.mktemp("weights") / "s3fd.pth"
    torch.save(net.state_dict(), path)
    return path, FaceDetector("cpu", str(path))


def detect(detector, images):
    return detector([Frame("x", i, None, image) for i, image in enumerate(images)])


@pytest.mark.slow
def test_boxes_and_scores_equal_face_alignments(weights):
    from face_alignment.detection.sfd.bbox import nms
    from face_alignment.detection.sfd.detect import detect as detect_all

    path, reference = weights
    # noise: flat places give cells of one score, which face-alignment takes in no fixed order
    image = np.random.default_rng(0).integers(0, 256, (128, 160, 3), np.uint8)
    theirs = detect_all(reference.face_detector, image, "cpu")[0]  # above 0.05, by cell
    logits, locations = nets.S3fdNet().apply(
        s3fd.sfd_variables(path), image[None].astype(np.float32)
    )
    scores = np.asarray(jax.nn.sigmoid(logits))[0]
    found = np.asarray(nets.decode(locations, *image.shape[:2]))[0]
    likely = scores > 0.05
    assert likely.sum() == len(theirs) > 1000
    np.testing.assert_allclose(scores[likely], theirs[:, 4], atol=1e-4)
    np.testing.assert_allclose(found[likely], theirs[:, :4], atol=2e-3)
    # the same candidates for both and no score twice, so that no rounding and no order among
    # equals decides who suppresses whom
    overlap = functools.partial(boxes.union_overlap, margin=1)
    theirs = theirs[np.unique(theirs[:, 4], return_index=True)[1]]
    sure = theirs[theirs[:, 4] > 0.5]
    kept = sure[boxes.suppress(sure[:, :4], sure[:, 4], s3fd.OVERLAP, overlap)]
    expected = theirs[[i for i in nms(theirs, s3fd.OVERLAP) if theirs[i, 4] > 0.5]]
    assert len(expected) > 20
    np.testing.assert_array_equal(sorted(kept.tolist()), sorted(expected.tolist()))


def test_faces_do_not_depend_on_the_batch(frames, configure, weights):
    overrides = ["batch_size=2", f"args.weights={weights[0]}", "args.candidates=100000"]
    config = configure("detector=sfd", *(f"detector.{o}" for o in overrides)).detector
    detector = build_detector(config)
    images = [cv2.resize(frames[n], (160, 128)) for n in ("ada_000.jpg", "two_faces.jpg")]
    (first, _), (alone,) = detect(detector, images), detect(detector, images[:1])
    assert len(first) == len(alone) > 100
    area = [float(np.prod(face.box[2:] - face.box[:2])) for face in first]
    assert area == sorted(area, reverse=True)


def test_large_frames_are_reduced_and_boxes_come_back(frames, configure, weights, caplog):
    path, _ = weights
    overrides = ["batch_size=1", f"args.weights={path}", "args.max_side=128", "args.candidates=8"]
    config = configure("detector=sfd", *(f"detector.{o}" for o in overrides)).detector
    detector = build_detector(config)
    small = cv2.resize(frames["ada_000.jpg"], (128, 128), interpolation=cv2.INTER_AREA)
    with caplog.at_level(logging.WARNING):
        ((face, *_),) = detect(detector, [frames["ada_000.jpg"]])
    assert "more than 8 candidates" in caplog.text
    ((other, *_),) = detect(detector, [small])
    np.testing.assert_allclose(face.box, other.box * 3, rtol=1e-5)
    assert detect(detector, [np.zeros((20, 90, 3), np.uint8)]) == [[]]
