"""Faces matched to frames, several a frame, batches of fixed shape, order kept."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from odfs_jax.config import MergeConfig
from odfs_jax.conversion.merge import build_merge
from odfs_jax.conversion.pipeline import FaceMerger
from odfs_jax.conversion.target_faces import TargetFaces, find_target_faces
from odfs_jax.data.aligned_png import FaceData, Pose, Source, write_face
from odfs_jax.data.media.frames import Frame
from odfs_jax.errors import UserError
from odfs_jax.faces.types import FaceType
from odfs_jax.frame_ranges import FrameRanges

HEIGHT, WIDTH = 150, 200
OVERLAY = MergeConfig(mode="overlay", args={})


@pytest.fixture(scope="module")
def source_of(face_points):
    """source(frame, centre, size): where a face of clip.mp4 came from."""

    def source(frame: int, centre=(100, 75), size=40.0, **changes) -> Source:
        known = Source(
            file="clip.mp4",
            frame=frame,
            pts=frame * 512,
            width=WIDTH,
            height=HEIGHT,
            rect=(0.0, 0.0, 1.0, 1.0),
            landmarks=face_points(centre, size),
        )
        return dataclasses.replace(known, **changes)

    return source


@dataclasses.dataclass
class Clip:
    """What `find_target_faces` asks of a source."""

    path: Path = Path("some/clip.mp4")
    is_folder: bool = False


def write_aligned(path: Path, source: Source) -> None:
    face = FaceData(
        FaceType.FULL, 8, np.zeros((68, 2)), source, Pose(0.0, 0.0, 0.0), "mtcnn", "dlib68", 1.0
    )
    write_face(path, np.zeros((8, 8, 3), np.uint8), face)


def clip_frames(count: int, image: np.ndarray | None = None) -> list[Frame]:
    """Frames of `image`, or of noise."""
    noise = np.random.default_rng(0).integers(0, 256, (count, HEIGHT, WIDTH, 3), np.uint8)
    images = noise if image is None else [image] * count
    return [Frame("clip.mp4", i, i * 512, image) for i, image in enumerate(images)]


def swapped(merger, frames, sources) -> tuple[list[Frame], TargetFaces]:
    by_frame: dict = {}
    for number, source in enumerate(sources):
        by_frame.setdefault(source.frame, []).append((Path(f"{number}.png"), source))
    targets = TargetFaces(by_frame)
    return list(
        merger.frames((frame for frame in frames), targets),
    ), targets


@pytest.fixture(scope="module")
def inverter(identity_swapper):
    """merger(batch_size): gives each face in inverted colors."""
    swapper = identity_swapper(32, lambda faces: 1 - faces)
    merge = build_merge(swapper, OVERLAY)
    return lambda batch_size: FaceMerger(swapper, merge, batch_size)


def test_only_frames_with_a_face_change_and_the_order_is_kept(inverter, source_of):
    frames = clip_frames(7)
    merger = inverter(4)
    results, _ = swapped(merger, frames, [source_of(1), source_of(4), source_of(5)])
    assert [frame.index for frame in results] == list(range(7))
    changed = [(a.image != b.image).any() for a, b in zip(frames, results, strict=True)]
    assert changed == [False, True, False, False, True, True, False]
    assert (merger.counts.frames, merger.counts.faces, merger.counts.empty) == (7, 3, 4)


def test_a_batch_gives_what_one_by_one_gives(inverter, source_of, smooth_picture):
    frames = clip_frames(5, smooth_picture(HEIGHT, WIDTH))
    sources = [source_of(i, (60 + 12 * i, 70), 30.0 + 6 * i) for i in range(5)]
    together, _ = swapped(inverter(4), frames, sources)
    alone, _ = swapped(inverter(1), frames, sources)
    for a, b in zip(together, alone, strict=True):
        assert np.abs(a.image.astype(int) - b.image).max() <= 2  # other reads in a wider region


def test_the_near_face_is_merged_over_the_far_one(inverter, source_of):
    """In whatever order they come; both are made from dst's own pixels, not from each other's."""
    far, near = source_of(0, (80, 75), 30.0), source_of(0, (100, 75), 45.0)
    frame = clip_frames(1)[0]

    def merged(*sources) -> Frame:
        return swapped(inverter(4), [frame], sources)[0][0]

    only_far, only_near = merged(far), merged(near)
    alpha = only_near.weights
    assert (alpha == 255).sum() > 1000
    assert ((only_far.weights > 0) & (alpha == 255)).sum() > 100
    for both in (merged(near, far), merged(far, near)):
        np.testing.assert_array_equal(both.image[alpha == 0], only_far.image[alpha == 0])
        on_top = both.image.astype(int) - only_near.image
        assert np.abs(on_top[alpha == 255]).max() <= 1  # of a weight that is nearly 1
        assert (both.weights >= np.maximum(alpha, only_far.weights)).all()


def test_weights_say_where_a_frame_changed(inverter, source_of, smooth_picture):
    frames = clip_frames(2, smooth_picture(HEIGHT, WIDTH))
    result, empty = swapped(inverter(4), frames, [source_of(0, (80, 75), 30.0)])[0]
    share = result.weights[..., None] / 255
    blended = frames[0].image + share * (255.0 - 2.0 * frames[0].image)
    changed = (result.image != frames[0].image).any(-1)
    assert not changed[result.weights == 0].any() and changed[result.weights == 255].mean() > 0.99
    assert np.abs(blended - result.image).max() <= 3
    assert empty.weights is None


def test_a_face_at_the_border_and_one_partly_outside(inverter, source_of):
    frames = clip_frames(2)
    sources = [source_of(0, (12, 10), 40.0), source_of(1, (WIDTH + 5, 75), 40.0)]
    merger = inverter(4)
    results, _ = swapped(merger, frames, sources)
    assert merger.counts.faces == 2
    assert (results[0].image != frames[0].image)[:30, :30].mean() > 0.8
    assert (results[1].image != frames[1].image)[60:90, -8:].mean() > 0.8
    assert (results[1].image == frames[1].image)[:, :100].all()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pts": 3}, "at 3 of 200x150, but clip.mp4 has it at 0 and 200x150; extract again"),
        ({"width": 100}, "of 100x150"),
        ({"landmarks": np.zeros((68, 2))}, "points coincide"),
        ({"size": 1e8}, "the largest is"),
        ({"centre": (-900, -500)}, "outside the frame"),
    ],
)
def test_a_face_that_does_not_fit_is_named_and_skipped(
    inverter, source_of, caplog, changes, reason
):
    frames = clip_frames(1)
    merger = inverter(4)
    results, targets = swapped(merger, frames, [source_of(0, **changes)])
    assert len(targets.skipped) == 1 and reason in str(targets.skipped[0])
    assert "0.png" in caplog.text
    np.testing.assert_array_equal(results[0].image, frames[0].image)
    assert merger.counts.empty == 1


def test_aligned_files_that_are_no_faces_of_the_clip_are_named(tmp_path, source_of, caplog):
    write_aligned(tmp_path / "a.png", source_of(3))
    write_aligned(tmp_path / "b.png", source_of(3, file="other.mp4"))
    write_aligned(tmp_path / "c.png", source_of(3, pts=None))
    write_aligned(tmp_path / "d.png", source_of(0))
    (tmp_path / "e.png").write_text("not a picture")
    targets = find_target_faces(tmp_path, Clip())
    assert sorted(targets.by_frame) == [0, 3]
    assert sorted(e.path.name for e in targets.skipped) == ["b.png", "c.png", "e.png"]
    assert "b.png: a face of other.mp4" in caplog.text
    targets.skip_rest(Path("clip.mp4"), FrameRanges())
    assert len(targets.skipped) == 5 and "frame 3 was not found in clip.mp4" in caplog.text


def test_a_copied_face_is_swapped_once_and_said(tmp_path, source_of, caplog):
    write_aligned(tmp_path / "a.png", source_of(3))
    write_aligned(tmp_path / "b.png", source_of(3, (60, 40)))  # another one of the frame
    (tmp_path / "a copy.png").write_bytes((tmp_path / "a.png").read_bytes())
    targets = find_target_faces(tmp_path, Clip())
    assert [path.name for path, _ in targets.by_frame[3]] == ["a copy.png", "b.png"]
    assert "a.png: the same face as a copy.png, which is swapped" in caplog.text


def test_pictures_are_matched_by_name(tmp_path, source_of, inverter):
    write_aligned(tmp_path / "a.png", source_of(0, file="second.png", pts=None))
    targets = find_target_faces(tmp_path, Clip(Path("dst"), is_folder=True))
    frames = clip_frames(2)
    names = ("first.png", "second.png")
    frames = [
        dataclasses.replace(frame, file=name, pts=None)
        for frame, name in zip(frames, names, strict=True)
    ]
    results = list(inverter(4).frames((frame for frame in frames), targets))
    assert (results[0].image == frames[0].image).all()
    assert (results[1].image != frames[1].image).any()


def test_no_face_of_the_clip_is_an_error(tmp_path, source_of):
    write_aligned(tmp_path / "a.png", source_of(3, file="other.mp4"))
    cure = r"its faces are of other\.mp4, not of clip\.mp4; .*rename it back to other\.mp4"
    with pytest.raises(UserError, match=cure):  # a clip that was renamed
        find_target_faces(tmp_path, Clip())
    write_aligned(tmp_path / "b.png", source_of(3, file="third.mp4"))
    with pytest.raises(UserError, match=r"none of its 2 files is a face of some/clip.mp4"):
        find_target_faces(tmp_path, Clip())
    with pytest.raises(UserError, match="no such folder"):
        find_target_faces(tmp_path / "missing", Clip())
