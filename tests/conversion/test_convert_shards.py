"""Several workers, a part of one clip each: together what one worker makes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
from workspaces import HEIGHT, WIDTH, convert_workspace, write_aligned, write_clip

from odfs_jax import cli
from odfs_jax.conversion.pipeline import FaceMerger, ShotMergers
from odfs_jax.data import lock
from odfs_jax.data.aligned_png import read_image_and_face
from odfs_jax.data.lock import locked_result
from odfs_jax.data.media import frame_io
from odfs_jax.errors import UserError
from odfs_jax.frame_ranges import FrameRanges
from odfs_jax.provenance.verify import WHOLE, verify

ROOT = Path(cli.__file__).parents[1]
FRAMES, SHARDS = 27, 2


@pytest.fixture
def clip(workspace, face_points, smooth_picture, monkeypatch):
    """The workspace with a longer clip, cut into shots, a face in most frames."""
    monkeypatch.setattr(lock, "POLL", 0.001)
    images = [np.roll(smooth_picture(HEIGHT, WIDTH), 3 * i, axis=1) for i in range(FRAMES)]
    times = write_clip(workspace / "dst.mp4", images)
    for path in (workspace / "dst" / "aligned").iterdir():
        path.unlink()
    for index in set(range(FRAMES)) - {2, 11}:
        points = face_points((50 + index, 50), 30, 2 * index)
        write_aligned(workspace / f"dst/aligned/{index:05d}_0.png", points, index, times[index])
    (workspace / "dst.shots.yaml").write_text("- from: 10\n  erode: 5\n")
    return workspace


def shards_of(workspace, *settings, order=range(SHARDS)):
    for number in order:
        convert_workspace(workspace, *settings, f"shard={number}", f"shards={SHARDS}")
        yield number


def content(path):
    """What a result shows and tells: samples, times, comment, time base, color, sound."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        codec = video.codec_context
        tags = codec.colorspace, codec.color_range, video.sample_aspect_ratio, codec.codec_tag
        comment = {key.lower(): value for key, value in container.metadata.items()}["comment"]
        told = comment, video.time_base, tags, container.duration
        packets = [p for p in container.demux() if p.size]
        sound = [(p.pts, bytes(p)) for p in packets if p.stream.type == "audio"]
        frames = [f for p in packets if p.stream is video for f in p.decode()] + codec.decode(None)
    return [(f.pts, [bytes(plane) for plane in f.planes]) for f in frames], told, sound


def packets_of(path):
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        return [(p.dts, p.pts, p.is_keyframe) for p in packets]


def test_a_clip_of_parts_is_that_of_one_worker(clip):
    """By x264 without loss: its frames are reordered, and their samples can be compared."""
    settings = ("output.crf=0", "output.preset=veryslow", "batch_size=4")
    convert_workspace(clip, f"output.path={clip}/one/result.mp4", *settings)
    result = clip / "many" / "result.mp4"
    for number in shards_of(clip, f"output.path={result}", *settings, order=(1, 0)):
        assert result.exists() == (number == 0)
    one, many = content(clip / "one" / "result.mp4"), content(result)
    assert len(many[0]) == FRAMES and many == one and verify(result).code == WHOLE
    packets, those_of_one = packets_of(result), packets_of(clip / "one" / "result.mp4")
    decode_times, times, _ = zip(*packets, strict=True)
    assert list(decode_times) == [dts for dts, _, _ in those_of_one]
    keys = {pts for _, pts, is_key in packets if is_key}
    assert {times[0], times[13]} <= keys
    assert [path.name for path in result.parent.iterdir()] == ["result.mp4"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("result.mkv", ["output.codec=ffv1", "output.mask=true", "merge.color=rct"]),
        ("result.mov", ["output.codec=prores"]),
        ("result.webm", ["output.codec=libsvtav1"]),
        ("result.mp4", ["output.codec=x265"]),
        ("result.mp4", []),
    ],
)
def test_every_codec_is_joined(clip, name, output):
    """Lossless and intra-only codecs give the same samples, the others the same times."""
    settings = (*output, "batch_size=4")
    if name == "result.webm":  # which holds no AAC
        without_sound(clip / "dst.mp4")
    convert_workspace(clip, f"output.path={clip / 'one' / name}", *settings)
    for _ in shards_of(clip, f"output.path={clip / 'many' / name}", *settings):
        pass
    one, many = content(clip / "one" / name), content(clip / "many" / name)
    assert len(many[0]) == FRAMES and many[1:] == one[1:]
    assert [pts for pts, _ in many[0]] == [pts for pts, _ in one[0]]
    if name in ("result.mkv", "result.mov"):
        assert many[0] == one[0]
    decode_times, times, _ = zip(*packets_of(clip / "many" / name), strict=True)
    assert list(decode_times) == sorted(set(decode_times))
    assert (list(times) != sorted(times)) == (name == "result.mp4")  # frames are reordered
    assert verify(clip / "many" / name).code == WHOLE
    if name == "result.mkv":
        masks = [content(clip / folder / "result_mask.mkv") for folder in ("one", "many")]
        assert masks[0] == masks[1] and len(masks[0][0]) == FRAMES
    folders = [sorted(path.name for path in (clip / f).iterdir()) for f in ("one", "many")]
    assert folders[0] == folders[1]


def without_sound(path):
    silent = path.with_name("silent.mp4")
    with av.open(str(path)) as clip, av.open(str(silent), "w") as out:
        copy = out.add_stream_from_template(clip.streams.video[0])
        for packet in clip.demux(video=0):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
    silent.replace(path)


def kill_a_worker(clip, settings, partial, begun):
    """SIGKILL for the worker of shard 1 as soon as a file like `begun` is in `partial`."""
    command = [sys.executable, str(ROOT / "convert.py"), "data=dst", f"workspace={clip}"]
    command += ["merge=overlay", "hardware.compilation_cache=null", *settings]
    command += ["shard=1", f"shards={SHARDS}"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ) as worker:
        deadline = time.monotonic() + 90
        while not list(partial.glob(begun)) and time.monotonic() < deadline:
            time.sleep(0.001)
        worker.kill()
    assert worker.returncode == -signal.SIGKILL


def test_a_killed_worker_is_started_again_and_pictures_are_kept(clip):
    """SIGKILL in the middle of a part: the others go on, and what was written is not lost."""
    settings = ("merge.color=rct", "batch_size=4")
    convert_workspace(clip, f"output.path={clip}/one", *settings)
    settings = (f"output.path={clip}/many", *settings)
    partial = clip / "many.partial"
    kill_a_worker(clip, settings, partial, "*.png")
    assert list(partial.glob("*.png"))
    for number in shards_of(clip, *settings):
        assert (clip / "many").exists() == (number == SHARDS - 1)
    found = [{p.name: p.read_bytes() for p in (clip / n).glob("*.png")} for n in ("one", "many")]
    assert found[0] == found[1] and len(found[0]) == FRAMES
    assert verify(clip / "many").code == WHOLE and not partial.exists()


@pytest.mark.slow
def test_a_part_of_a_clip_that_was_killed_begins_again(clip):
    settings = (f"output.path={clip}/many.mkv", "output.codec=ffv1", "batch_size=4")
    convert_workspace(clip, f"output.path={clip}/one.mkv", *settings[1:])
    partial = clip / "many.mkv.partial"
    kill_a_worker(clip, settings, partial, ".1-of-2-*.packets")
    assert not (partial / "1-of-2.packets").exists()
    for number in shards_of(clip, *settings):
        assert (clip / "many.mkv").exists() == (number == SHARDS - 1)
    assert content(clip / "many.mkv") == content(clip / "one.mkv")


@pytest.mark.slow
def test_what_was_not_joined_is_joined_by_any_of_them(clip, monkeypatch):
    settings = (f"output.path={clip}/many.mkv", "output.codec=ffv1")
    with monkeypatch.context() as patch:
        patch.setattr("odfs_jax.conversion.convert.join_parts", lambda *_: "killed")
        for _ in shards_of(clip, *settings):
            pass
    merged = []
    monkeypatch.setattr(FaceMerger, "_composite_faces", lambda *_: merged.append(1))
    next(shards_of(clip, *settings))
    assert not merged and len(content(clip / "many.mkv")[0]) == FRAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", ["many.mkv", "many"])
def test_a_join_that_was_killed_between_mask_and_result_goes_on(clip, name, monkeypatch):
    settings = (f"output.path={clip / name}", "output.codec=ffv1", "output.mask=true")
    mask = clip / name.replace("many", "many_mask")
    with monkeypatch.context() as patch:
        patch.setattr(frame_io, "join_clip", then_killed(frame_io.join_clip))
        pictures = frame_io.picture_folder
        patch.setattr(pictures, "join_pictures", then_killed(pictures.join_pictures))
        with pytest.raises(Killed):
            for _ in shards_of(clip, *settings):
                pass
    assert mask.exists() and not (clip / name).exists()
    next(shards_of(clip, *settings))
    assert not list(clip.glob("*.partial"))
    for path in (mask, clip / name):
        found = content(path)[0] if path.suffix else list(path.glob("*.png"))
        assert len(found) == FRAMES and verify(path).code == WHOLE


class Killed(Exception):
    """Stands for SIGKILL."""


def then_killed(work):
    def killed(*args):
        work(*args)
        raise Killed

    return killed


def test_what_does_not_go_together_is_refused(clip):
    settings = (f"output.path={clip}/many.mp4",)
    for given, message in (
        (("shard=2", "shards=2"), "shard=2: expected 0 to 1, for shards=2"),
        (("shards=3",), "shards=3: which one does this worker do"),
        (("shard=0", "shards=2", "debug=true"), "debug=true: its sheets are drawn by one worker"),
    ):
        with pytest.raises(UserError, match=message):
            convert_workspace(clip, *settings, *given)
    next(shards_of(clip, *settings))
    for given, differing in (
        (("shard=1", f"shards={SHARDS}", "merge.erode=9"), "shots"),
        (("shard=1", f"shards={SHARDS}", "output.crf=3"), "output"),
        (("shard=1", f"shards={SHARDS}", "batch_size=3"), "batch_size"),
        (("shard=1", "shards=3"), "shards"),
    ):
        with pytest.raises(UserError, match=rf"begun with other settings \({differing}\)"):
            convert_workspace(clip, *settings, *given)
    (clip / "many.mp4").write_text("a user's")
    with pytest.raises(UserError, match="not an earlier result"):
        next(shards_of(clip, *settings))
    (clip / "many.mp4").unlink()
    with locked_result(clip / "many.mp4", "converting", "1-of-2"), ThreadPoolExecutor(1) as other:
        second = "shard=1", f"shards={SHARDS}"
        with pytest.raises(UserError, match=r"in use \(converting, shard 1-of-2"):
            other.submit(convert_workspace, clip, *settings, *second).result()
        with pytest.raises(UserError, match=r"in use \(converting"):
            other.submit(convert_workspace, clip, *settings).result()


@pytest.mark.parametrize("window", [0, 3, 9])
@pytest.mark.parametrize("own", [(0, 4), (5, 9), (12, 30), (31, 31), (20, None)])
def test_a_part_begins_and_ends_with_whole_batches(own, window):
    shots, batch = ShotMergers([0, 11, 18], []), 4
    begin, stop = shots.whole_batches(FrameRanges((own,)), batch, window)
    first, last = own
    shot = max(start for start in shots.starts if start <= first)
    assert shot <= begin <= first and (begin - shot) % batch == 0
    assert begin == shot or first - begin >= window
    if last is None:
        assert stop is None
    else:
        shot = max(start for start in shots.starts if start <= last)
        assert (stop - shot) % batch == 0 and stop > last + window


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=4"],
        ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10"],
        pytest.param(
            ["hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=10"],
            marks=pytest.mark.skipif(shutil.which("sbatch") is None, reason="no Slurm here"),
        ),
    ],
)
def test_four_shards_through_a_launcher(clip, face_points, launcher, tmp_path_factory):
    """Extraction and conversion of one clip by the workers of a Hydra launcher."""
    for path in (clip / "dst" / "aligned").iterdir():
        path.unlink()
    points = {str(i): face_points((50 + i, 50), 30, 2 * i).tolist() for i in range(FRAMES)}
    faces = {"version": 1, "frames": {i: [{"landmarks": found}] for i, found in points.items()}}
    (clip / "faces.json").write_text(json.dumps(faces))
    many = tmp_path_factory.mktemp("shards") / "many"
    shutil.copytree(clip, many, symlinks=True)

    def run(script, workspace, *settings):
        command = [sys.executable, str(ROOT / script)]
        if workspace == many:
            command += ["-m", "shard=0,1,2,3", "shards=4", *launcher]
        command += ["data=dst", f"workspace={workspace}", *settings]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    for workspace in (clip, many):
        file = f"detector.args.path={workspace}/faces.json"
        run("extract.py", workspace, "detector=file", file)
        run("convert.py", workspace, "output.codec=ffv1", f"output.path={workspace}/result.mkv")

    def faces_of(workspace):
        found = [read_image_and_face(p) for p in sorted((workspace / "dst/aligned").glob("*.png"))]
        return [(face.source.frame, face.landmarks.tolist(), im.tobytes()) for im, face in found]

    assert faces_of(many) == faces_of(clip) and len(faces_of(many)) == FRAMES
    assert content(many / "result.mkv") == content(clip / "result.mkv")
    assert verify(many / "result.mkv").code == WHOLE
