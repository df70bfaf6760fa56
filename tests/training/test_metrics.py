"""The event file: TensorBoard reads it, a full disk is told at once."""

import errno
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from odfs_jax.training.metrics import EventFile


def test_tensorboard_reads_what_was_written(tmp_path):
    events = EventFile(tmp_path / "events", 1)
    for step, value in ((10, 0.5), (20, 0.25)):
        events.scalar("loss/src_face", value, step)
    events.image("preview", np.zeros((4, 6, 3), np.uint8), 20)
    events.close()
    read = EventAccumulator(str(tmp_path / "events")).Reload()
    assert [(e.step, e.value) for e in read.Scalars("loss/src_face")] == [(10, 0.5), (20, 0.25)]
    (image,) = read.Images("preview")
    assert (image.step, image.width, image.height) == (20, 6, 4)


def test_a_full_disk_is_told_at_once(tmp_path, monkeypatch):
    with suppress(OSError), open("/dev/full", "wb") as full:  # closing it fails once more
        monkeypatch.setattr(Path, "open", lambda *_: full)
        events = EventFile(tmp_path / "events", 1)
        events.scalar("loss/src_face", 0.5, 10)
        with pytest.raises(OSError) as error:
            events.flush()
        assert error.value.errno == errno.ENOSPC
