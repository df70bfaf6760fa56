"""A run that goes on where another stopped: nothing lost, nothing twice, nothing that was deleted.

The faces are where a made-up detector says, so that a run takes no time and every point is known.
"""

import cv2
import numpy as np
import pytest

from odfs_jax.curation import rename
from odfs_jax.data.aligned_png import read_face, read_image_and_face
from odfs_jax.data.media.frames import Frame
from odfs_jax.errors import UserError
from odfs_jax.extraction import extract as extraction
from odfs_jax.extraction import pipeline
from odfs_jax.extraction.detection import Detection, Detector
from odfs_jax.extraction.journal import JOURNAL, RUN, ExtractionJournal
from odfs_jax.extraction.smoothing import GAP
from odfs_jax.extraction.writing import accept_faces
from odfs_jax.faces.landmarks68 import MEAN_HEAD
from odfs_jax.faces.types import FaceType

FRAMES, SIDE = 24, 96
EMPTY, PAIR = 7, 11  # the frame without a face, the one with two
REACH = 6 + GAP + 1


class Known(Detector):
    """Detector and landmarker: a trembling face in every frame, two in one, none in another."""

    name = "known"
    batch_size = 5

    def __init__(self):
        self.seen = []

    def __call__(self, frames):
        self.seen += [frame.index for frame in frames]
        return [self.faces(frame) for frame in frames]

    def faces(self, frame):
        noise = np.random.default_rng(frame.index).normal(0, 0.5, (68, 2))
        count = 0 if frame.index == EMPTY else 2 if frame.index == PAIR else 1
        faces = []
        for k in range(count):
            points = MEAN_HEAD[:, :2] * (18, -18) + (40 + k * 20 + 0.4 * frame.index, 45) + noise
            box = np.concatenate([points.min(0), points.max(0)])
            faces.append(Detection(box, None, 0.9, points, "known"))
        return faces


@pytest.fixture
def known(monkeypatch):
    detector = Known()
    monkeypatch.setattr(extraction, "build_detector", lambda _: detector)
    monkeypatch.setattr(extraction, "build_landmarker", lambda _: detector)
    return detector


@pytest.fixture
def extract(configure, known):
    def go(workspace, *overrides):
        data = "hardware.compilation_cache=null", "data=src", f"workspace={workspace}", "size=32"
        known.seen.clear()
        extraction.extract(configure(*data, *overrides))

    return go


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (FRAMES, 6, 6, 3), dtype=np.uint8)
    return [cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for image in coarse]


@pytest.fixture
def clip(tmp_path, images, write_clip):
    write_clip(tmp_path / "src.mp4", images)
    return tmp_path


@pytest.fixture
def pictures(tmp_path, images):
    (tmp_path / "src").mkdir()
    for number, image in enumerate(images):
        cv2.imwrite(str(tmp_path / "src" / f"p{number:02d}.png"), image)
    return tmp_path


def folder_of(workspace):
    return workspace / "src" / "aligned"


def contents(workspace):
    """What the aligned folder holds but for the run's token: (frame, points, pixels), in order."""
    found = []
    for path in folder_of(workspace).glob("*.png"):
        image, face = read_image_and_face(path)
        found.append((face.source.frame, face.source.landmarks.tolist(), image.tobytes()))
    return sorted(found)


def frames_in(workspace):
    return [frame for frame, _, _ in contents(workspace)]


EVERY = sorted([*(set(range(FRAMES)) - {EMPTY}), PAIR])


@pytest.mark.parametrize("source", ["clip", "pictures"])
def test_a_second_run_does_nothing(source, request, extract, known):
    workspace = request.getfixturevalue(source)
    extract(workspace)
    assert frames_in(workspace) == EVERY and sorted(known.seen) == list(range(FRAMES))
    before = {path: path.read_bytes() for path in folder_of(workspace).iterdir()}
    extract(workspace)
    assert {path: path.read_bytes() for path in folder_of(workspace).iterdir()} == before
    assert known.seen == []


class Stop(BaseException):
    """As if the process were killed."""


def stopping(function, call):
    """`function` that raises Stop before its `call`-th call, and ever after."""
    calls = iter(range(10**9))

    def stopped(*args, **kwargs):
        if next(calls) >= call:
            raise Stop
        return function(*args, **kwargs)

    return stopped


@pytest.mark.parametrize("source", ["clip", pytest.param("pictures", marks=pytest.mark.slow)])
@pytest.mark.parametrize("place", ["write_faces", "add", "finish"])
def test_stopped_anywhere_the_next_run_ends_as_an_unbroken_one(
    source, place, request, tmp_path, extract, known, monkeypatch
):
    workspace = request.getfixturevalue(source)
    extract(workspace)
    whole, name = contents(workspace), JOURNAL
    for call in (0, 1, 9, 12, 20):
        for path in [*folder_of(workspace).glob("*.png"), folder_of(workspace) / name]:
            path.unlink(missing_ok=True)
        with monkeypatch.context() as patch, pytest.raises(Stop):
            owner = {
                "write_faces": pipeline,
                "add": ExtractionJournal,
                "finish": pipeline.ResumePlan,
            }[place]
            patch.setattr(owner, place, stopping(getattr(owner, place), call))
            extract(workspace)
        kept = {path: path.stat().st_mtime_ns for path in folder_of(workspace).glob("*.png")}
        journal = ExtractionJournal.read(folder_of(workspace))
        done = {path: t for path, t in kept.items() if _key(path) in journal.frames}
        extract(workspace)
        assert contents(workspace) == whole, (place, call)
        assert all(path.stat().st_mtime_ns == t for path, t in done.items())


def _key(path):
    source = read_face(path).source
    return source.file if source.pts is None else source.frame


def test_what_was_deleted_or_renamed_stays_so(clip, extract, known):
    extract(clip)
    folder = folder_of(clip)
    (folder / "00003_0.png").unlink()
    moves = rename.plan_moves(folder, sorted(folder.glob("*.png"))[::-1], 20)
    rename.apply_moves(folder, moves)
    before = sorted(path.name for path in folder.iterdir())
    extract(clip)
    assert sorted(path.name for path in folder.iterdir()) == before and known.seen == []


def test_a_half_written_frame_that_was_sorted_meanwhile_is_not_doubled(clip, extract, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(ExtractionJournal, "add", stopping(ExtractionJournal.add, 10))
        extract(clip)
    folder = folder_of(clip)
    faces = sorted(folder.glob("*.png"))
    assert len(faces) > 10
    rename.apply_moves(folder, rename.plan_moves(folder, faces, None))
    extract(clip)
    assert frames_in(clip) == EVERY


def test_frames_are_chosen_and_the_rest_may_follow(clip, extract, known):
    extract(clip, "frames=4-12", "every=2")
    assert frames_in(clip) == [4, 6, 8, 10, 12] == sorted(known.seen)
    assert (clip / "src" / "no_face.txt").read_text() == ""
    extract(clip, "frames=22-")
    assert frames_in(clip) == [4, 6, 8, 10, 12, 22, 23]
    assert min(known.seen) == 22
    extract(clip)
    assert frames_in(clip) == EVERY
    assert (clip / "src" / "no_face.txt").read_text() == f"{EMPTY}\n"


@pytest.mark.slow
def test_a_run_over_several_ranges_that_was_stopped_ends_as_an_unbroken_one(
    clip, extract, known, monkeypatch
):
    ranges = "frames=[2-5,9,14-20]"
    extract(clip, ranges)
    whole = contents(clip)
    assert frames_in(clip) == [2, 3, 4, 5, 9, *range(14, 21)] == sorted(known.seen)
    for call in (1, 4, 7):
        for path in [*folder_of(clip).glob("*.png"), folder_of(clip) / JOURNAL]:
            path.unlink()
        with monkeypatch.context() as patch, pytest.raises(Stop):
            patch.setattr(ExtractionJournal, "add", stopping(ExtractionJournal.add, call))
            extract(clip, ranges)
        extract(clip, ranges)
        assert contents(clip) == whole, call


def test_only_what_has_a_say_in_the_missing_frames_is_read_again(clip, extract, known):
    extract(clip)
    whole = contents(clip)
    folder = folder_of(clip)
    lines = (folder / JOURNAL).read_bytes().splitlines(keepends=True)
    (folder / JOURNAL).write_bytes(b"".join(line for line in lines if b'"frame": 20' not in line))
    (folder / "00020_0.png").unlink()
    extract(clip)
    assert contents(clip) == whole
    assert sorted(known.seen) == list(range(20 - REACH, FRAMES))


def test_overwriting_a_few_frames_leaves_the_others(clip, extract, known):
    extract(clip)
    folder = folder_of(clip)
    old = {read_face(path).source.frame: path.read_bytes() for path in folder.glob("*.png")}
    run_before = ExtractionJournal.read(folder).run
    rename.apply_moves(folder, rename.plan_moves(folder, sorted(folder.glob("*.png")), None))
    extract(clip, "overwrite=true", "frames=5-9", "size=48", "smoothing=none")
    assert frames_in(clip) == EVERY
    for path in folder.glob("*.png"):
        face = read_face(path)
        again = 5 <= face.source.frame <= 9
        assert face.size == (48 if again else 32) and (face.extra[RUN] != run_before) == again
        assert again or face.source.frame == PAIR or path.read_bytes() == old[face.source.frame]
    assert not ExtractionJournal.read(folder).replacing


def test_a_stopped_overwriting_is_finished_by_the_next_run(clip, extract, monkeypatch):
    extract(clip)
    folder = folder_of(clip)
    rename.apply_moves(folder, rename.plan_moves(folder, sorted(folder.glob("*.png")), None))
    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(ExtractionJournal, "add", stopping(ExtractionJournal.add, 10))
        extract(clip, "overwrite=true", "size=48")
    assert ExtractionJournal.read(folder).replacing
    extract(clip, "size=48")
    assert frames_in(clip) == EVERY
    assert {read_face(path).size for path in folder.glob("*.png")} == {48}


def test_faces_without_a_journal_count_as_finished(clip, extract, known):
    extract(clip, "frames=0-9")
    (folder_of(clip) / JOURNAL).unlink()
    (folder_of(clip) / "00004_0.png").rename(folder_of(clip) / "mine.png")
    extract(clip)
    assert frames_in(clip) == EVERY and (folder_of(clip) / "mine.png").exists()
    (folder_of(clip) / JOURNAL).unlink()
    with pytest.raises(UserError, match=r"a full face of 32 pixels, now half of 32; overwrite="):
        extract(clip, "face_type=half")
    (clip / "src.mp4").rename(clip / "src.mkv")
    with pytest.raises(UserError, match=r"a face of src.mp4, not of src.mkv; overwrite=true"):
        extract(clip)


def test_a_renamed_clip_is_not_told_to_extract_again(clip, extract):
    """That would cost the faces that somebody looked through."""
    extract(clip)
    (clip / "src.mp4").rename(clip / "src.mkv")
    with pytest.raises(UserError, match=r"as large as src\.mkv; .*rename it back to src\.mp4"):
        extract(clip)


def test_another_clip_of_the_same_name_is_refused(clip, images, extract, write_clip):
    extract(clip)
    write_clip(clip / "src.mp4", images[:10])
    with pytest.raises(UserError, match=r"extracted with source\.bytes=\d+, now \d+; overwrite="):
        extract(clip)
    extract(clip, "overwrite=true")
    assert max(frames_in(clip)) == 9


def test_a_manual_face_stays_and_its_frame_is_left_alone(clip, images, extract):
    points = MEAN_HEAD[:, :2] * (18, -18) + (45, 45)
    extract(clip, "frames=0-9")
    for index, pts in ((EMPTY, EMPTY * 512), (15, 15 * 512)):
        frame = Frame("src.mp4", index, pts, images[index])
        accept_faces(folder_of(clip), frame, [points], FaceType.FULL, 32)
    assert ExtractionJournal.read(folder_of(clip)).doubtful() == []
    extract(clip)
    assert frames_in(clip) == sorted([*EVERY, EMPTY])
    faces = [read_face(path) for path in folder_of(clip).glob("*.png")]
    assert sorted(f.source.frame for f in faces if f.detector == "manual") == [EMPTY, 15]
    assert (clip / "src" / "no_face.txt").read_text() == ""


def test_a_picture_added_later_takes_nobodys_name(pictures, extract):
    extract(pictures)
    whole = contents(pictures)
    cv2.imwrite(str(pictures / "src" / "a_first.png"), np.full((SIDE, SIDE, 3), 90, np.uint8))
    extract(pictures)
    found = {path.name: read_face(path).source.file for path in folder_of(pictures).glob("*.png")}
    assert len(found) == len(whole) + 1 and found["00000_1.png"] == "a_first.png"
    assert found["00000_0.png"] == "p00.png"
