"""debug=true leaves pictures of what a step draws."""

import cv2
import numpy as np
import pytest

PARTS = ("rotation", "scale", "shift", "flip", "warp", "color", "light")
STILL = [f"augment.{name}=0" for name in PARTS]


def read(path, columns):
    """The columns of a picture of 32-pixel faces, uint8 [columns, rows * 32, 32, 3]."""
    picture = cv2.imread(str(path))
    assert picture.shape == (4 * 32, columns * 32, 3)
    return np.stack(np.split(picture.astype(int), columns, axis=1))


@pytest.mark.slow
def test_a_run_draws_what_its_steps_draw(run_training, workspace):
    """At its start and at each preview; without augmentation what is seen is the face itself."""
    folder = run_training(
        workspace, "debug=true", "batch_size=4", "preview_every=2", "iterations=3", *STILL
    )
    files = sorted((folder / "debug").iterdir())
    assert [path.name for path in files] == ["00000000.jpg", "00000002.jpg"]
    src, rebuilt, mask, dst, dst_rebuilt, dst_mask = read(files[0], 6)
    assert np.abs(src - rebuilt).mean() < 3 and np.abs(dst - dst_rebuilt).mean() < 3
    assert np.abs(src - dst).mean() > 10
    for gray in (mask, dst_mask):
        assert np.ptp(gray, axis=-1).mean() < 3 and gray.max() > 240 and gray.min() < 15
    faces = [cv2.imread(str(p)) for p in (workspace / "src" / "aligned").glob("*.png")]
    faces = [cv2.resize(face, (32, 32), interpolation=cv2.INTER_AREA).astype(int) for face in faces]
    for row in np.split(src, 4):
        assert min(np.abs(row - face).mean() for face in faces) < 6
    later = read(files[1], 6)
    assert np.abs(later[0] - src).mean() > 5  # other faces


@pytest.mark.slow
def test_eyes_and_mouth_that_count_are_drawn(run_training, workspace):
    settings = ("debug=true", "batch_size=4", "iterations=1", "loss.eyes_mouth=2", *STILL)
    (file,) = (run_training(workspace, *settings) / "debug").iterdir()
    _, _, mask, eyes_mouth, *_ = read(file, 8)
    assert 0.02 < (eyes_mouth > 127).mean() < 0.5 * (mask > 127).mean()
    assert (mask[eyes_mouth > 200] > 127).mean() > 0.95


def test_without_debug_nothing_is_drawn(finished_run):
    assert not (finished_run[0] / "debug").exists()
