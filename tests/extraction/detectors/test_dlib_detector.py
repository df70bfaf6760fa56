"""dlib's MMOD CNN, in its processes."""

import json
from pathlib import Path

import cv2
import numpy as np

from odfs_jax.data.media.frames import Frame
from odfs_jax.extraction.boxes import union_overlap
from odfs_jax.extraction.detectors import build_detector
from odfs_jax.extraction.detectors.dlib import find

DATA = Path(__file__).parents[1] / "data"


def test_faces_are_where_mtcnn_finds_them(frames, configure):
    reference = json.loads((DATA / "reference.json").read_text())
    detector = build_detector(configure("detector=dlib", "detector.args.max_side=192").detector)
    names = ["ada_000.jpg", "ben_010.jpg"]
    images = [frames[name] for name in names] + [np.full((384, 384, 3), 90, np.uint8)]
    found = detector([Frame("x", i, None, image) for i, image in enumerate(images)])
    assert [len(faces) for faces in found] == [1, 1, 0]
    for name, (face,) in zip(names, found, strict=False):
        theirs = np.array([reference[name][0]["box"]], np.float32)
        assert union_overlap(face.box, theirs)[0] > 0.5
        assert face.points is None and 0.5 < face.score <= 1
    assert detector.frames_per_call(1080, 1920) == 8 and detector.frames_per_call(6000, 8000) == 1


def test_upsampling_finds_smaller_faces(frames):
    small = cv2.resize(frames["ada_000.jpg"], (96, 96), interpolation=cv2.INTER_AREA)
    assert not find(small, 0)
    (((left, top, right, bottom), _),) = find(small, 1)
    assert 0 < left < right < 96 and 0 < top < bottom < 96
