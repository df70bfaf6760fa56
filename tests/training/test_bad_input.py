"""Mistakes that training must answer with one line, and what must survive them."""

import errno
import resource
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from omegaconf import OmegaConf

from odfs_jax import cli
from odfs_jax.data.aligned_png import read_face, rewrite_data
from odfs_jax.errors import UserError
from odfs_jax.runtime import devices as hardware
from odfs_jax.saved_model import load_model
from odfs_jax.training.checkpoint import Checkpoints
from odfs_jax.training.history import History
from odfs_jax.training.objectives import make_objective


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs `train.py` in this process; returns its exit code and the lines on stderr."""

    def run(*arguments):
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # the command sets it; put back afterwards
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.train()
        return stop.value.code, capsys.readouterr().err.splitlines()

    return run


def test_points_of_two_landmarkers_are_warned_of(make_workspace, configure, caplog):
    workspace = make_workspace()
    config = OmegaConf.to_container(configure(workspace))
    make_objective(config).load_facesets()
    assert not caplog.messages
    for path in (workspace / "dst" / "aligned").glob("*.png"):
        rewrite_data(path, replace(read_face(path), landmarker="face_mesh"))
    make_objective(config).load_facesets()
    (warned,) = caplog.messages
    assert "src's by dlib68, dst's by face_mesh" in warned


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("batchsize=3", ["batchsize"]),
        ("model.widht=0.5", ["widht"]),
        ("batch_size=many", ["batch_size", "many"]),
        ("model.width=wide", ["width", "wide"]),
        ("model=h65", ["model/h65", "h64", "liaef128"]),
        ("experiment=dmeo", ["dmeo", "demo"]),
        ("model.net=vae", ["model.net=vae", "shared_encoder"]),
        ("model.face_type=hlaf", ["model.face_type=hlaf"]),
        ("model.resolution=50", ["model.resolution=50"]),
        ("loss.face.dsim=1", ["dsim", "loss.face"]),
        ("loss.face.dssim=0", ["loss.face", "loss.face.ms_ssim"]),
        ("loss.mask=bce", ["loss.mask=bce", "mae, mse"]),
        ("optimizer.name=sgd", ["optimizer.name=sgd", "adam"]),
        ("optimizer.schedule=cosine", ["optimizer.schedule=cosine", "iterations=0"]),
        ("hardware.devices=tpu", ["hardware.devices=tpu", "best, worst, cpu"]),
        ("hardware.devices=[0,a]", ["hardware.devices=[0, 'a']", "best, worst, cpu"]),
        ("hardware.devices=[1]", ["hardware.devices=[1]", "JAX_PLATFORMS=cpu"]),
        ("batch_size=0", ["batch_size=0"]),
        ("data=src", ["data.sides=['src']", "data=src_dst"]),
        ("data.sampling=yaw", ["data.sampling=yaw", "uniform, "]),
        ("workspace={tmp}/none", ["none/src/aligned: no such folder", "extract.py data=src"]),
    ],
)
def test_a_mistake_gives_one_line_and_exit_code_2(command, overrides, tmp_path, mistake, words):
    code, lines = command(*overrides(tmp_path), mistake.format(tmp=tmp_path))
    assert code == 2 and len(lines) == 1 and lines[0].startswith("odfs-train: ")
    for word in words:
        assert word in lines[0]
    assert not list(tmp_path.iterdir())


def test_the_real_command_prints_nothing_but_its_one_line(tmp_path):
    script = Path(cli.__file__).parents[1] / "train.py"
    arguments = [sys.executable, str(script), "batchsize=3"]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1 and "batchsize" in done.stderr


def test_an_empty_folder_names_the_command(command, overrides, tmp_path):
    (tmp_path / "src" / "aligned").mkdir(parents=True)
    code, lines = command(*overrides(tmp_path))
    assert code == 2 and len(lines) == 1
    assert "no aligned PNG" in lines[0] and "python extract.py data=src" in lines[0]


def test_a_batch_that_does_not_divide_over_the_devices():
    with pytest.raises(UserError, match="batch_size=6: expected a positive multiple of the 4"):
        hardware.check_batch(6, jax.devices()[:4])
    hardware.check_batch(8, jax.devices()[:4])


@pytest.mark.parametrize(
    ("change", "key"),
    [("model.width=0.0625", "model.width"), ("model.resolution=48", "model.resolution")],
)
def test_a_folder_of_another_model_is_left_alone(finished_run, run_training, change, key):
    folder, _ = finished_run
    before = (folder / "config.yaml").read_bytes()
    with pytest.raises(UserError, match=rf"{folder} holds another model: {key} is .*name="):
        run_training(folder.parent.parent, change, "name=h64")
    assert (folder / "config.yaml").read_bytes() == before


def test_folders_without_a_model(tmp_path):
    with pytest.raises(UserError, match=r"no trained model here; run: python train\.py"):
        load_model(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="no finished checkpoint"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{}",
        "{",
        "7",
        '{"model": 3}',
        '{"model": {"net": "os.system", "extra": 1}}',
        '{"model": {"name": "x"}}',
        '{"model": {"resolution": "${oc.env:HOME}"}}',
    ],
)
def test_hostile_settings_in_a_models_folder(finished_run, tmp_path, content):
    folder = tmp_path / "model"
    shutil.copytree(finished_run[0], folder)
    notes = folder / "checkpoints" / "40" / "config" / "metadata"
    assert notes.is_file()
    notes.write_text(content)
    with pytest.raises(UserError) as error:
        load_model(folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


def test_a_damaged_checkpoint_is_named_with_the_remedy(finished_run, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(finished_run[0], folder)
    for file in (folder / "checkpoints" / "40" / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(UserError, match=r"checkpoints/40: cannot be read .*remove this folder"):
        load_model(folder)


@pytest.mark.parametrize(
    "method", [pytest.param("save", marks=pytest.mark.slow), "wait_until_finished"]
)
def test_a_full_disk_keeps_the_last_checkpoint(
    workspace, run_training, read_checkpoint, monkeypatch, method
):
    """orbax fails at once or in the background; either way the checkpoint before it is whole."""
    folder = run_training(workspace, "iterations=2")
    before = read_checkpoint(folder)[0]

    def full(self, *_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, method, full)
        patch.setattr(ocp.CheckpointManager, "close", full)  # it raises the same once more
        message = r"the checkpoint was not written \(the disk is full\); the checkpoint \d is whole"
        with pytest.raises(UserError, match=message):
            run_training(workspace, "iterations=3")
    if method == "save":
        after = read_checkpoint(folder)[0]
        for ours, theirs in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    checkpoints = Checkpoints(folder)
    assert checkpoints.latest() in (2, 3)
    checkpoints.close()


def test_writes_that_fail_beside_each_other_print_nothing(tmp_path, capfd):
    """A disk fills up, by a limit on the size of files: many writes fail, one error says so."""
    noise = np.random.default_rng(0).normal(size=(40, 300, 300)).astype(np.float32)
    state = {f"layer_{i}": jax.device_put(layer) for i, layer in enumerate(noise)}
    checkpoints = Checkpoints(tmp_path / "h64")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(UserError, match="the checkpoint was not written"):
            checkpoints.save(1, state, {}, {}, History())
            checkpoints.finish()
        time.sleep(0.5)  # for the other writes
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert capfd.readouterr().err == ""
    with suppress(UserError):
        checkpoints.close()


def test_a_save_keeps_the_history_of_its_moment(tmp_path, monkeypatch):
    """orbax writes in the background, while the loop goes on adding rows."""
    given = []
    monkeypatch.setattr(
        ocp.CheckpointManager, "save", lambda self, step, args: given.append(args.history.item)
    )
    history = History([[10, {"src_face": 0.5}]])
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(10, {}, {}, {}, history)
    history.end_row(20, {"src_face": 0.4})
    assert given[0]["rows"] == [[10, {"src_face": 0.5}]]
    checkpoints.close()
