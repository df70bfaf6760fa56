"""What is refused, what is skipped and named, and what is never overwritten."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import av
import cv2
import numpy as np
import pytest
from clips import MARKING, OUTPUT, add_tone, copy, grid, make_clip, read

from odfs_jax.data import lock
from odfs_jax.data.media.frame_io import open_frames, open_writer
from odfs_jax.errors import BadFileError, UserError


@pytest.mark.parametrize("name", ["out.mp4", "out"])
def test_a_failed_write_leaves_the_old_result_and_what_can_be_gone_on_with(tmp_path, name):
    source = make_clip(tmp_path / "in.mp4", grid(4))
    result = copy(source, tmp_path / name)
    before = read(result)[1]
    with (
        pytest.raises(RuntimeError, match="on purpose"),
        open_frames(source) as frames,
        open_writer(result, frames, OUTPUT, MARKING) as writer,
    ):
        writer.write(next(iter(frames)))
        raise RuntimeError("on purpose")
    assert np.array_equal(read(result)[1], before)
    left = [] if name.endswith(".mp4") else ["out.partial"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", name, *left]


@pytest.mark.parametrize("name", ["mine.mp4", "mine"])
def test_files_that_are_not_ours_are_not_replaced(tmp_path, name):
    source = make_clip(tmp_path / "in.mp4", grid(2))
    mine = tmp_path / name
    if name.endswith(".mp4"):
        make_clip(mine, grid(1))
    else:
        mine.mkdir()
        (mine / "in_000000.png").write_bytes(b"precious")
    with pytest.raises(UserError, match="not an earlier result"):
        copy(source, mine)


@pytest.mark.parametrize("name", ["out.mp4", "out_mask.mp4"])
def test_a_result_and_its_mask_have_one_writer(tmp_path, monkeypatch, name):
    """Another thread stands for another process."""
    monkeypatch.setattr(lock, "POLL", 0.01)
    source = make_clip(tmp_path / "in.mp4", grid(2))
    output = dataclasses.replace(OUTPUT, mask=True)
    with (
        ThreadPoolExecutor(1) as other,
        lock.locked_result(tmp_path / name, "converting"),
        pytest.raises(UserError, match=rf"{name}: in use \(converting, process "),
    ):
        other.submit(copy, source, tmp_path / "out.mp4", output).result()
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_the_input_is_never_the_output(tmp_path):
    source = make_clip(tmp_path / "in.mp4", grid(2))
    with pytest.raises(UserError, match="that is the input"):
        copy(source, tmp_path / "sub" / ".." / "in.mp4")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("out.webm", {}, "cannot hold it"),
        ("out.webm", {"codec": "libvpx-vp9", "crf": 40, "preset": None}, r"sound \(aac\)"),
        ("out.mp4", {"codec": "nonsense"}, "no such encoder"),
        ("out.mp4", {"codec": "aac"}, "audio encoder"),
        ("out.mp4", {"preset": "warp9"}, "output.preset=warp9"),
        ("out.xyz", {}, "expected one of"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_writing(tmp_path, name, changes, message):
    source = make_clip(tmp_path / "in.mp4", grid(2))
    with pytest.raises(UserError, match=message):
        copy(source, tmp_path / name, dataclasses.replace(OUTPUT, **changes))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4"]


def test_what_is_not_a_clip_is_refused_by_name(tmp_path):
    (tmp_path / "text.mp4").write_text("just words\n" * 100)
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "none").mkdir()
    cv2.imwrite(str(tmp_path / "one.png"), grid(1)[0])
    with av.open(str(tmp_path / "sound.mp4"), "w") as out:
        add_tone(out, out.add_stream("aac", rate=48000, layout="stereo"), 0.5)
    for name, message in {
        "text.mp4": "not a video",
        "empty.mp4": "not a video",
        "none": "no pictures",
        "one.png": "single picture",
        "sound.mp4": "no video stream",
        "missing.mp4": "no such file",
    }.items():
        with pytest.raises(UserError, match=message) as error:
            open_frames(tmp_path / name)
        assert name in str(error.value)


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_truncated_clip_gives_what_is_left_and_says_so(tmp_path, share):
    images = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), np.uint8)
    source = make_clip(tmp_path / "in.mp4", images)
    content = source.read_bytes()
    source.write_bytes(content[: int(len(content) * share)])
    with open_frames(source) as frames:
        left = list(frames)
        assert 30 * share * 0.7 < len(left) < 30
        assert frames.bad
        assert all(isinstance(bad, BadFileError) and bad.path == source for bad in frames.bad)
    copy(source, tmp_path / "out.mp4")
    assert len(read(tmp_path / "out.mp4")[0]) == len(left)
    source.write_bytes(content[:200])
    with pytest.raises(UserError, match=r"in\.mp4: no"):
        open_frames(source)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_truncated_pictures_are_named_and_skipped(tmp_path, suffix):
    for name in "abc":
        cv2.imwrite(str(tmp_path / f"{name}{suffix}"), grid(1)[0])
    whole = (tmp_path / f"b{suffix}").read_bytes()
    (tmp_path / f"b{suffix}").write_bytes(whole[: len(whole) * 3 // 4])
    (tmp_path / f"a{suffix}").write_bytes(b"")
    with open_frames(tmp_path) as source:
        assert [frame.file for frame in source] == [f"c{suffix}"]
        assert [bad.path.name for bad in source.bad] == [f"a{suffix}", f"b{suffix}"]
    (tmp_path / f"c{suffix}").unlink()
    with pytest.raises(UserError, match="none of 2 pictures"):
        open_frames(tmp_path)


def test_a_source_is_iterated_once(tmp_path):
    with open_frames(make_clip(tmp_path / "in.mp4", grid(2))) as source:
        assert len(list(source)) == source.count == 2
        with pytest.raises(RuntimeError, match="iterated before"):
            next(iter(source))
