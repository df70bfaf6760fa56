"""A whole run: what it learns, writes and says, and that stopping it changes nothing."""

import re
import signal

import cv2
import jax
import numpy as np
import pytest
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.hparams.metadata import (
    SESSION_START_INFO_TAG,
    parse_session_start_info_plugin_data,
)

from odfs_jax.saved_model import load_model
from odfs_jax.training import train

TERMS = ["dst_face", "dst_mask", "src_face", "src_mask"]


def assert_same_bits(ours, theirs):
    leaves = jax.tree.leaves_with_path(ours)
    assert len(leaves) == len(jax.tree.leaves(theirs)) > 30
    for (path, mine), other in zip(leaves, jax.tree.leaves(theirs), strict=True):
        assert mine.dtype == other.dtype
        np.testing.assert_array_equal(mine, other, err_msg=jax.tree_util.keystr(path))


def test_training_lowers_every_loss(finished_run, read_checkpoint):
    rows = read_checkpoint(finished_run[0])[2].rows
    assert [step for step, _ in rows] == [10, 20, 30, 40]
    first, last = rows[0][1], rows[-1][1]
    assert sorted(last) == TERMS
    assert all(last[term] < first[term] for term in TERMS)
    assert sum(last.values()) < 0.85 * sum(first.values())


def test_the_log_says_what_happens(finished_run):
    folder, lines = finished_run
    number = r"\d+\.\d{5}"
    losses = "  ".join(f"{name} {number}" for name in TERMS)
    pattern = rf"\[ {{6}}\d0\]  {losses}  [ \d]{{6}}\.\d pairs/s"
    table = [line for line in lines if re.fullmatch(pattern, line)]
    assert len(table) == 4 and len({len(line) for line in table}) == 1
    text = "\n".join(lines)
    assert "device: 1 x cpu" in text
    assert "facesets: 7 src, 6 dst faces" in text and "on the device" in text
    assert re.search(rf"{folder}: a new model of [\d,]+ parameters", text)
    assert re.search(r"^compiling \.\.\.\n(?s:.*)^compiled in \d+ s$", text, re.MULTILINE)
    assert lines[-1] == "iteration 40 saved"
    assert max(len(line) for line in lines if str(folder) not in line) <= 100


def test_the_preview_has_five_columns(finished_run):
    """src, src rebuilt, dst, dst rebuilt, swap; the first row is each person's first face."""
    folder, _ = finished_run
    preview = cv2.imread(str(folder / "preview.png"))
    captions, preview = preview[: -4 * 32], preview[-4 * 32 :]
    assert preview.shape == (4 * 32, 5 * 32, 3)
    for column in range(5):
        assert np.ptp(captions[:, column * 32 : (column + 1) * 32]) > 100  # something is written
    workspace = folder.parent.parent
    for side, column in (("src", 0), ("dst", 2)):
        face = cv2.imread(str(workspace / side / "aligned" / "00000_0.png"))
        shown = preview[:32, 32 * column : 32 * (column + 1)]
        expected = cv2.resize(face, (32, 32), interpolation=cv2.INTER_AREA)
        assert np.abs(shown.astype(int) - expected).mean() < 6
    cells = preview.reshape(4, 32, 5, 32, 3).transpose(0, 2, 1, 3, 4)
    assert (cells[:, 4] != cells[:, 3]).any() and (cells[:, 4] != cells[:, 1]).any()


def test_tensorboard_has_scalars_and_previews(finished_run):
    folder, _ = finished_run
    events = EventAccumulator(str(folder / "events")).Reload()
    parts = [f"{side}_face/dssim" for side in ("dst", "src")]
    names = [f"loss/{term}" for term in (*TERMS, *parts, "total/autoencoder")]
    names += [
        "speed/pairs_per_second",
        "optimizer/learning_rate",
        "memory/gigabytes",
        "gradient_norm/autoencoder",
    ]
    assert sorted(events.Tags()["scalars"]) == sorted(names)
    assert [event.step for event in events.Scalars("loss/src_face")] == [10, 20, 30, 40]
    last = {name: events.Scalars(name)[-1].value for name in names}
    assert last["loss/total/autoencoder"] == pytest.approx(
        sum(last[f"loss/{term}"] for term in TERMS), rel=1e-5
    )
    assert last["optimizer/learning_rate"] == pytest.approx(1e-3)
    assert last["memory/gigabytes"] > 0.05 and 0 < last["gradient_norm/autoencoder"] < 100
    (config,) = events.Tensors("config")
    assert b"    model:\n      name: h64\n" in config.tensor_proto.string_val[0]
    (session,) = [
        value
        for path in (folder / "events").iterdir()
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
        if value.tag == SESSION_START_INFO_TAG
    ]
    content = session.metadata.plugin_data.content
    hparams = parse_session_start_info_plugin_data(content).hparams
    assert hparams["model.resolution"].number_value == 32
    assert hparams["optimizer.name"].string_value == "adam"
    assert [event.step for event in events.Images("preview")] == [20, 40]
    assert events.Images("preview")[0].width == 160 and events.Images("preview")[0].height > 128


def test_scalars_are_the_history(finished_run, read_checkpoint):
    folder, _ = finished_run
    _, _, history = read_checkpoint(folder)
    events = EventAccumulator(str(folder / "events")).Reload()
    for term in TERMS:
        found = [event.value for event in events.Scalars(f"loss/{term}")]
        np.testing.assert_allclose(found, [means[term] for _, means in history.rows], rtol=1e-6)


def test_the_folder_keeps_its_settings_and_two_checkpoints(finished_run, configure):
    folder, _ = finished_run
    written = OmegaConf.load(folder / "config.yaml")
    assert written == configure(folder.parent.parent, "iterations=40")
    assert [p.name for p in (folder / "checkpoints").iterdir()] == ["40"]


@pytest.mark.slow
def test_two_targets_one_after_the_other_are_one_run(
    finished_run, workspace, run_training, read_checkpoint, caplog
):
    """20, then 20 more: parameters, moments, key and history are those of 40 in one go."""
    run_training(workspace, "iterations=20")
    with caplog.at_level("INFO", logger="odfs_jax"):
        folder = run_training(workspace, "iterations=40")
    assert f"{folder}: resuming at iteration 20" in caplog.text
    ours, _, history = read_checkpoint(folder)
    theirs, _, all_history = read_checkpoint(finished_run[0])
    assert_same_bits(ours, theirs)
    assert history == all_history


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_in_the_middle_changes_nothing(
    finished_run, workspace, run_training, read_checkpoint, monkeypatch, caplog, number
):
    """The signal comes during step 17 of 40; what is learned after resuming is the same."""

    class Stopping(train.MetricLogger):
        added = 0

        def add(self, metrics):
            super().add(metrics)
            self.added += 1
            if self.added == 17:
                signal.raise_signal(number)

    before = signal.getsignal(number)
    with monkeypatch.context() as patch, caplog.at_level("INFO", logger="odfs_jax"):
        patch.setattr(train, "MetricLogger", Stopping)
        folder = run_training(workspace, "iterations=40")
    assert signal.getsignal(number) is before
    assert f"{signal.Signals(number).name}: saving, then stopping" in caplog.messages
    assert caplog.messages[-1] == "iteration 17 saved"
    assert int(read_checkpoint(folder)[0].step) == 17
    run_training(workspace, "iterations=40")
    assert_same_bits(read_checkpoint(folder)[0], read_checkpoint(finished_run[0])[0])


def test_a_run_at_its_target_says_so_and_writes_no_checkpoint(finished_run, run_training, caplog):
    folder, _ = finished_run
    before = sorted((folder / "checkpoints").rglob("*"))
    with caplog.at_level("INFO", logger="odfs_jax"):
        run_training(folder.parent.parent, "iterations=40")
    assert "already at iteration 40 of 40; give a higher iterations=" in caplog.messages
    assert sorted((folder / "checkpoints").rglob("*")) == before


def test_inference_gets_the_saved_parameters(finished_run, read_checkpoint, configure):
    folder, _ = finished_run
    model = load_model(folder)
    assert model.config == OmegaConf.to_container(configure(folder.parent.parent)).get("model")
    params = read_checkpoint(folder)[0].params["autoencoder"]
    assert_same_bits(jax.tree.map(np.asarray, model.params), params)


def test_saving_every_few_minutes(workspace, run_training, monkeypatch):
    """Time is up after every step: each is saved, the last two are kept."""
    steps = []
    original = train.Checkpoints.save

    def save(self, step, *rest):
        steps.append(step)
        original(self, step, *rest)

    monkeypatch.setattr(train.Checkpoints, "save", save)
    folder = run_training(workspace, "iterations=3", "save_minutes=0")
    assert steps == [1, 2, 3, 3]  # the last once more at the end, where it already stands
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == ["2", "3"]
