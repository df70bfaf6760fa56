"""Clips and faces at the edge of what there is: converted, or refused with a line that says why."""

import logging
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from workspaces import convert_workspace, write_aligned

from odfs_jax.provenance.verify import WHOLE, verify


@pytest.fixture
def convert(tmp_path, trained, smooth_picture, face_points, caplog):
    """convert(faces, size, ...): (frame before, after, summary) of a one-frame clip.

    `faces` are (centre, width in pixels), `size` (height, width).
    """
    caplog.set_level(logging.INFO)

    def convert(faces, size, layout="yuv420p", name="dst.mkv", settings=()):
        (tmp_path / "models").mkdir()
        (tmp_path / "models" / "tiny").symlink_to(trained)
        image, clip = smooth_picture(*size), tmp_path / name
        if clip.suffix:
            encode(clip, image, layout)
            file, pts = clip.name, 0
        else:
            clip.mkdir()
            cv2.imwrite(str(clip / "a.png"), image[..., ::-1])
            file, pts = "a.png", None
        where = {"file": file, "height": size[0], "width": size[1]}
        for number, (centre, width) in enumerate(faces):
            aligned = tmp_path / "dst" / "aligned" / f"0_{number}.png"
            write_aligned(aligned, face_points(centre, width), 0, pts, **where)
        result = tmp_path / "result.mkv"
        convert_workspace(tmp_path, f"output.path={result}", "output.codec=ffv1", *settings)
        assert verify(result).code == WHOLE
        if clip.suffix:
            image = rgb(clip)
        return image.astype(int), rgb(result).astype(int), caplog.messages[-1]

    return convert


def encode(path: Path, image: np.ndarray, layout: str) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = layout
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=layout)
        frame.pts = 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def rgb(path: Path) -> np.ndarray:
    return next(iter(read_video(path))).to_ndarray(format="rgb24")


def read_video(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as clip:
        return list(clip.decode(video=0))


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """bool [H, W]: more than chroma's neighbourhood explains."""
    return np.abs(after - before).max(axis=2) > 8


def test_two_faces_in_a_frame(convert):
    before, after, summary = convert([((50, 60), 40), ((150, 60), 40)], (120, 200))
    assert "1 frames, 2 faces swapped" in summary
    where = changed(before, after)
    assert where[50:70, 40:60].mean() > 0.9 and where[50:70, 140:160].mean() > 0.9
    assert not where[:, 95:105].any()


def test_a_face_at_the_border_and_one_partly_outside(convert):
    before, after, summary = convert([((20, 20), 40), ((205, 60), 60)], (120, 200))
    assert "2 faces swapped" in summary and "0 files skipped" in summary
    where = changed(before, after)
    assert where[10:30, 5:35].mean() > 0.9 and where[50:70, 190:].mean() > 0.9
    assert not where[:, 80:120].any()


def test_a_face_wholly_outside_is_named(convert):
    _, _, summary = convert([((50, 60), 40), ((900, 60), 40)], (120, 200))
    assert "1 faces swapped" in summary and "1 files skipped" in summary


@pytest.mark.parametrize(
    ("layout", "size"),
    [
        ("gray10le", (121, 201)),
        ("yuv422p12le", (120, 200)),
        ("yuv420p", (121, 201)),
        pytest.param("gray", (120, 200), marks=pytest.mark.slow),
        pytest.param("yuv420p10le", (120, 200), marks=pytest.mark.slow),
        pytest.param("yuv444p", (119, 199), marks=pytest.mark.slow),
        pytest.param("bgr0", (121, 201), marks=pytest.mark.slow),
    ],
)
def test_gray_and_deep_and_odd_clips_keep_their_format(convert, tmp_path, layout, size):
    before, after, summary = convert([((100, 60), 60)], size, layout)
    assert "1 faces swapped" in summary
    result = read_video(tmp_path / "result.mkv")[0]
    assert result.format.name == layout and (result.height, result.width) == size
    where = changed(before, after)
    assert where[45:75, 85:115].mean() > 0.6 and not where[:, :40].any()


def test_odd_pictures(convert):
    before, after, summary = convert([((100, 60), 60)], (121, 201), name="dst")
    assert "1 faces swapped" in summary
    assert (before == after)[:, :40].all() and changed(before, after)[45:75, 85:115].mean() > 0.9


def test_an_odd_size_that_an_encoder_cannot_hold_becomes_full_chroma(convert, tmp_path):
    _, after, _ = convert([((100, 60), 60)], (121, 201), settings=("output.pixel_format=yuv420p",))
    assert after.shape == (121, 201, 3)
    convert_workspace(tmp_path, "output.codec=x264", f"output.path={tmp_path}/out.mp4")
    assert read_video(tmp_path / "out.mp4")[0].format.name == "yuv444p"


@pytest.mark.slow
def test_a_face_of_64_pixels_in_4k(convert):
    before, after, summary = convert([((3000, 1500), 64)], (2160, 3840))
    assert "1 faces swapped" in summary
    where = changed(before, after)
    assert where[1480:1520, 2980:3020].mean() > 0.9
    where[1400:1600, 2900:3100] = False
    assert not where.any()


@pytest.mark.slow
def test_a_face_of_4000_pixels(convert):
    """From ear to ear; around it a region of 6144 pixels' side goes to the device."""
    before, after, summary = convert([((2500, 2500), 4000 / 1.1)], (5000, 5000))
    assert "1 faces swapped" in summary
    assert changed(before, after)[1500:3500, 1500:3500].mean() > 0.6


def test_a_face_beyond_the_largest_is_refused_by_name(convert, caplog):
    _, _, summary = convert([((50, 60), 40), ((100, 60), 9000)], (120, 200))
    assert "1 faces swapped" in summary and "1 files skipped" in summary
    assert "0_1.png" in caplog.text and "the largest is 6144" in caplog.text
