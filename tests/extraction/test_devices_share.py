"""Batches dealt to several devices: every device works, nothing is lost, the order stays."""

import threading
import time

import jax
import numpy as np
import pytest

from odfs_jax.data.media.frames import Frame
from odfs_jax.extraction import pipeline
from odfs_jax.extraction.detection import Detection, Detector
from odfs_jax.extraction.pipeline import Finder, deal


class OnDevice(Detector):
    """Detector and landmarker: notes the device and the thread that it was called on."""

    name = "on_device"
    batch_size = 3

    def __init__(self):
        self.seen = []

    def __call__(self, images, faces=None):
        (device,) = (jax.numpy.zeros(1) + 1).devices()
        self.seen.append((device, threading.get_ident()))
        if faces is not None:
            return [np.full((68, 2), face.box[0]) for face in faces]
        time.sleep(0.01 * (images[0].index % 4))  # some devices are slower
        return [[Detection(np.full(4, float(frame.index)), None, 1.0)] for frame in images]


def test_all_devices_find_faces_and_the_frames_stay_in_order():
    devices = jax.devices()[:4]
    assert len(set(devices)) == 4
    finders = [Finder(device, OnDevice(), OnDevice()) for device in devices]
    image = np.zeros((4, 4, 3), np.uint8)
    source = (Frame("x", i, None, image) for i in range(31))
    pairs = [pair for batch in pipeline.find_faces(source, finders) for pair in batch]
    assert [frame.index for frame, _ in pairs] == list(range(31))
    assert all(faces[0].landmarks[0, 0] == frame.index for frame, faces in pairs)
    for finder in finders:
        for part in (finder.detector, finder.landmarker):
            assert len(part.seen) in (2, 3)  # of 11 batches
            assert {device for device, _ in part.seen} == {finder.device}
            assert len({thread for _, thread in part.seen}) == 1


def test_devices_work_at_the_same_time():
    meeting = threading.Barrier(3)
    works = [lambda item, k=k: (meeting.wait(10), item, k)[1:] for k in range(3)]
    done = list(deal((i for i in range(9)), works))
    assert done == [(i, i % 3) for i in range(9)]


def test_a_failure_reaches_the_caller_and_ends_the_threads():
    def work(item):
        if item == 4:
            raise ValueError("device lost")
        return item

    before = threading.active_count()
    results = deal((i for i in range(100)), [work, work])
    with pytest.raises(ValueError, match="device lost"):
        list(results)
    assert threading.active_count() == before
