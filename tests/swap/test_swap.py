"""The real command on short clips: killed in every stage and gone on with; what it spares."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import jax
import pytest
import yaml
from omegaconf import OmegaConf

from odfs_jax import cli
from odfs_jax.config import compose
from odfs_jax.data.job_folder import STATES, job_files
from odfs_jax.data.media.frame_io import open_frames
from odfs_jax.data.media.marking import Unmarked
from odfs_jax.errors import UserError
from odfs_jax.saved_model import latest_step
from odfs_jax.swap.swap import Record, check_result, digest, place, state

ROOT = Path(cli.__file__).parents[1]
FRAMES = 10
PATIENCE = 900  # seconds, on a busy machine
TINY = (
    *("model.resolution=32", "model.width=0.02", "model.args.decoder=[32,32,32]"),
    *("model.args.bottleneck=16", "model.args.code=16", "model.args.mask_decoder=[16,16,16]"),
    *("init_from=null", "batch_size=2", "iterations=8", "optimizer.warmup=2", "save_minutes=0"),
)


def write_clips(folder: Path) -> None:
    """The first frames of the bundled clips."""
    for side in ("src", "dst"):
        with (
            open_frames(ROOT / "assets" / "demo" / f"{side}.mp4") as source,
            av.open(str(folder / f"{side}.mov"), "w") as out,
        ):
            video = out.add_stream("libx264", rate=25, options={"crf": "12"})
            video.pix_fmt, video.height, video.width = "yuv420p", 384, 384
            for frame, _ in zip(source, range(FRAMES), strict=False):
                out.mux(video.encode(av.VideoFrame.from_ndarray(frame.image, format="rgb24")))
            out.mux(video.encode(None))


ONE = ("src=src.mov", "dst=dst.mov", "out=result.mp4", *(f"train.{s}" for s in TINY))


@contextlib.contextmanager
def started(folder: Path, *settings: str, printed: str = "printed"):
    """The command as a user gives it in `folder`; with what it starts it ends with the block."""
    same = {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}
    command = [sys.executable, str(ROOT / "scripts" / "swap.py"), *settings]
    with (folder / printed).open("w") as out:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | same,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            kill(process)
            process.wait()


def kill(process: subprocess.Popen) -> None:
    """SIGKILL for a started command and all processes of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def wait_for(is_there, process: subprocess.Popen, printed: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not is_there():
        assert process.poll() is None and time.monotonic() < end, printed.read_text()
        time.sleep(0.01)


def finished(folder: Path) -> tuple[int, str]:
    with started(folder, *ONE) as process:
        code = process.wait(PATIENCE)
    return code, (folder / "printed").read_text()


@pytest.mark.slow
def test_killed_in_every_stage_the_same_command_goes_on(tmp_path):
    write_clips(tmp_path)
    work, result = tmp_path / "result_swap", tmp_path / "result.mp4"
    model = work / "models" / "small"
    stages = {
        "extract": lambda: any(work.glob("dst/aligned/*.png")),
        "train": lambda: latest_step(model) is not None,
        "convert": lambda: any(tmp_path.glob(".result-*.partial.mp4")),
        "evaluate": result.exists,
    }
    for is_there in stages.values():
        with started(tmp_path, *ONE) as process:
            wait_for(is_there, process, tmp_path / "printed")
            kill(process)
    code, printed = finished(tmp_path)
    assert code == 0, printed
    assert latest_step(model) == 8
    with open_frames(result) as frames:
        assert frames.count == FRAMES
    report = json.loads((tmp_path / "result_report.json").read_text())
    assert report["faces"] == {"src": FRAMES, "dst": FRAMES}
    assert report["plan"]["preset"] == "small" and report["plan"]["resolution"] == 32
    assert report["evaluation"]["frames"] == FRAMES and report["advice"]
    text = (tmp_path / "result_report.md").read_text()
    assert "preset small" in text and text.splitlines()[0] in printed
    assert not list(tmp_path.glob(".*partial*"))

    before = result.stat().st_mtime_ns
    code, printed = finished(tmp_path)  # nothing is left to do
    assert code == 0 and result.stat().st_mtime_ns == before and "[4/6]" not in printed
    result.write_bytes((tmp_path / "dst.mov").read_bytes())
    code, printed = finished(tmp_path)  # a clip of the user's
    assert code == 2 and "not an earlier result" in printed.splitlines()[-1]
    assert result.read_bytes() == (tmp_path / "dst.mov").read_bytes()


@pytest.mark.slow
def test_two_workers_do_real_swaps_and_one_is_killed(tmp_path):
    """Its job is taken over where it was; a job whose clip is missing fails, and says so."""
    write_clips(tmp_path)
    folder = tmp_path / "night"
    (folder / "queued").mkdir(parents=True)
    for name, src in (("0-a", "src.mov"), ("1-b", "src.mov"), ("2-missing", "none.mov")):
        job = {side: str(tmp_path / clip) for side, clip in (("src", src), ("dst", "dst.mov"))}
        job |= {"out": str(tmp_path / f"{name}.mp4"), "train": list(TINY)}
        (folder / "queued" / f"{name}.yaml").write_text(yaml.safe_dump(job))
    both = [tmp_path / "printed_0", tmp_path / "printed_1"]
    with started(tmp_path, f"jobs={folder}", printed=both[0].name) as first:
        trained = tmp_path / "0-a_swap" / "models" / "small"
        wait_for(lambda: latest_step(trained) is not None, first, both[0])
        with started(tmp_path, f"jobs={folder}", printed=both[1].name) as second:
            wait_for((folder / "running" / "1-b.yaml").exists, second, both[1])
            kill(first)  # the job's own process too, as when a host is gone
            assert second.wait(PATIENCE) == 2, both[1].read_text()
    printed = both[1].read_text()
    assert f"{folder}/running/0-a.yaml: its worker is gone; taken over" in printed
    missing = f"src={tmp_path}/none.mov: no such file or folder"
    assert f"2-missing: failed (exit code 2): odfs-swap: {missing}" in printed
    assert "1 jobs failed: 2-missing" in printed.splitlines()[-1]
    assert missing in (folder / "logs" / "2-missing.log").read_text()
    found = {state: [path.stem for path in job_files(folder / state)] for state in STATES}
    assert found["done"] == ["0-a", "1-b"] and found["failed"] == ["2-missing"]
    assert not found["queued"] and not found["running"]
    for name in found["done"]:
        report = json.loads((tmp_path / f"{name}_report.json").read_text())
        assert report["plan"]["iterations"] == 8 and report["evaluation"]["frames"] == FRAMES


def test_clips_are_found_in_the_workspace_and_not_mixed(tmp_path):
    for name in ("a.MOV", "b.mov"):
        (tmp_path / name).write_text(name)
    (tmp_path / "pictures").mkdir()
    link = place(tmp_path / "a.MOV", "src", tmp_path)
    assert link == tmp_path / "src.mov" and link.read_text() == "a.MOV"
    assert place(tmp_path / "a.MOV", "src", tmp_path) == link
    assert place(link, "src", tmp_path) == link
    assert place(tmp_path / "b.mov", "src", tmp_path).read_text() == "b.mov"
    place(tmp_path / "a.MOV", "src", tmp_path)
    (tmp_path / "src").mkdir()  # for faces
    with pytest.raises(UserError, match=r"another clip than src=.*b\.mov; give another workspace="):
        place(tmp_path / "b.mov", "src", tmp_path)
    (tmp_path / "a.MOV").rename(tmp_path / "moved.mov")
    assert place(tmp_path / "moved.mov", "src", tmp_path).read_text() == "a.MOV"
    assert place(tmp_path / "pictures", "dst", tmp_path) == tmp_path / "pictures"
    with pytest.raises(UserError, match=r"dst=.*none: no such file or folder"):
        place(tmp_path / "none", "dst", tmp_path)


class Ours(Unmarked):
    comment = "ours"


def test_a_result_that_is_not_of_this_swap_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr("odfs_jax.data.media.frame_io.clip_comment", lambda path: path.read_text())
    out, config = tmp_path / "a.mp4", OmegaConf.create({"overwrite": False})
    record = Record(tmp_path / "swap.json")
    check_result(out, Ours(), record, config)  # there is none
    out.write_text("ours")
    with pytest.raises(UserError, match="not of this swap"):
        check_result(out, Ours(), record, config)
    check_result(out, Ours(), record, OmegaConf.create({"overwrite": True}))
    record.put("convert", {"running": True})  # killed before it could note the result
    check_result(out, Ours(), Record(tmp_path / "swap.json"), config)
    record.put("convert", {"running": False, "out": state(out)})
    check_result(out, Ours(), Record(tmp_path / "swap.json"), config)
    out.write_text("ours, of another swap")
    with pytest.raises(UserError, match="not of this swap"):
        check_result(out, Ours(), record, config)
    out.write_text("a holiday")
    with pytest.raises(UserError, match=r"not an earlier result, .* set out="):
        check_result(out, Ours(), record, OmegaConf.create({"overwrite": True}))
    with pytest.raises(UserError, match=r"^out=.*\.txt: expected one of"):
        check_result(out.with_suffix(".txt"), Ours(), record, config)


def test_the_record_tells_finished_stages_and_is_checked(tmp_path):
    path = tmp_path / "swap.json"
    record = Record(path)
    with pytest.raises(RuntimeError), record.timed("extract", "a"):
        raise RuntimeError
    assert not record.has("extract", "a")
    with record.timed("extract", "a"):
        pass
    assert Record(path).has("extract", "a") and not Record(path).has("extract", "b")
    for damage in ("{", "[]", '{"extract": 3}'):
        path.write_text(damage)
        with pytest.raises(UserError, match=r"swap\.json"):
            Record(path)


def test_a_digest_changes_with_settings_and_files(tmp_path):
    file = tmp_path / "a"
    file.write_text("1")
    config = compose("convert", ["data=dst"])
    first = digest(config, file)
    assert digest(config, file) == first
    file.write_text("12")
    assert digest(config, file) != first
    second = digest(config, file)
    config.merge.erode = 7
    assert digest(config, file) != second
