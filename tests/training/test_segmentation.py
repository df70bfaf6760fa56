"""Training a mask network: it learns without labels, measures on held-out faces, resumes."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from omegaconf import OmegaConf

from odfs_jax.config import require_complete
from odfs_jax.data.aligned_png import read_face, rewrite_data
from odfs_jax.data.batches import make_batches
from odfs_jax.data.stored_masks import encode_mask
from odfs_jax.errors import UserError
from odfs_jax.runtime.distributed import replicated, split_over
from odfs_jax.saved_model import load_model, load_weights, models_in
from odfs_jax.training.objectives import make_objective
from odfs_jax.training.train import train

TINY = (
    "model=facemask",
    "model.face_type=half",
    "model.width=1",
    "model.args.levels=[8,8]",
    "objective.held_out=0.3",
    "preview_every=10",
)


@pytest.fixture(scope="module")
def run(make_workspace, run_training):
    """(workspace, folder) of 20 iterations in one go, and a checkpoint at 10 and 20."""
    workspace = make_workspace()
    return workspace, run_training(workspace, *TINY, "iterations=20")


def objective_of(configure, workspace, *more):
    config = OmegaConf.to_container(configure(workspace, *TINY, *more), resolve=True)
    return make_objective(config)


def test_it_is_saved_as_a_mask_network(run):
    workspace, folder = run
    model = load_model(folder)
    assert model.makes_masks and model.src_eyes is None and model.step == 20
    assert load_weights(str(folder)).keys() == model.params.keys()
    assert models_in(workspace / "models", masks=True) == ["facemask"]
    assert models_in(workspace / "models", masks=False) == []


def test_log_lines_have_scores_of_held_out_faces(run):
    rows = [json.loads(line) for line in (run[1] / "losses.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [10, 20]
    for row in rows:
        assert set(row["losses"]) == {"mask", "iou", "boundary"}
        assert 0 <= row["losses"]["iou"] <= 1 and 0 <= row["losses"]["boundary"] <= 1
    assert (run[1] / "previews/000000010.jpg").is_file()


@pytest.mark.slow
def test_a_resumed_run_is_an_unbroken_one(run, make_workspace, run_training, read_checkpoint):
    workspace = make_workspace()
    run_training(workspace, *TINY, "iterations=10")
    resumed, *_ = read_checkpoint(run_training(workspace, *TINY, "iterations=20"))
    unbroken, *_ = read_checkpoint(run[1])
    jax.tree.map(np.testing.assert_array_equal, resumed, unbroken)


@pytest.mark.slow
def test_two_devices_learn_what_one_does(configure, make_workspace):
    objective = objective_of(configure, make_workspace())
    facesets, parameters = objective.load_facesets(), []
    for count in (1, 2):
        devices = jax.devices()[:count]
        state = jax.device_put(jax.jit(objective.init_state)(), replicated(devices))
        batches = make_batches(facesets, jax.random.key(0), 4, split_over(devices))
        state, metrics = objective.make_step(devices)(state, batches(0))
        parameters.append(jax.tree.map(np.asarray, (state.params, metrics)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), *parameters)


def test_the_last_faces_in_time_are_held_out(configure, make_workspace):
    workspace = make_workspace()
    files = sorted((workspace / "src/aligned").glob("*.png"))
    times = [5, 0, 6, 1, 4, 2, 3]  # names need not follow the time
    for file, time in zip(files, times, strict=True):
        face = read_face(file)
        source = dataclasses.replace(face.source, frame=time)
        rewrite_data(file, dataclasses.replace(face, source=source))
    objective = objective_of(configure, workspace, "data=src")
    facesets = objective.load_facesets()
    assert facesets.keys() == {"src"}
    assert sorted(facesets["src"].ranks) == [0, 1, 2, 3, 4]
    assert sorted(objective.held_out["src"].ranks) == [5, 6]


def test_a_stored_mask_is_the_target(configure, make_workspace):
    workspace = make_workspace()
    half = np.zeros((32, 32), np.uint8)
    half[16:] = 255
    for file in (workspace / "src/aligned").glob("*.png"):
        face = read_face(file)
        rewrite_data(file, dataclasses.replace(face, mask=encode_mask(half)))
    objective = objective_of(
        configure, workspace, "data=src", "objective.objects=0", "augment=default",
        "augment.rotation=0", "augment.scale=0", "augment.shift=0", "augment.flip=0",
    )  # fmt: skip
    images, matrices = (
        getattr(objective.load_facesets()["src"], name)[:2]
        for name in ("images", "store_from_model")
    )
    keys = {"src": jax.random.split(jax.random.key(0), 2)}
    samples = jax.jit(objective.sample)({"src": (images, matrices)}, keys, jnp.int32(0))
    mask = np.asarray(samples["src"][1]["src"]["mask"])
    assert mask[:, :10].max() < 0.1 and mask[:, 22:].min() > 0.9


def test_it_learns_where_objects_lie(configure, make_workspace):
    """A few steps on flat faces: a network that sees nothing stays at the share of the face."""
    workspace = make_workspace()
    config = configure(workspace, *TINY, "iterations=60", "log_every=15")
    config.optimizer.learning_rate = 5e-3
    config.augment.hsv = 0.0
    train(config)
    lines = (workspace / "models/facemask/losses.jsonl").read_text().splitlines()
    first, *_, last = (json.loads(line)["losses"] for line in lines)
    assert last["mask"] < 0.85 * first["mask"] and last["iou"] > 0.5


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("discriminator=patch", "discriminator.name: a mask network has none"),
        ("model.resolution=36", "model.resolution=36: expected a multiple of"),
        ("objective.held_out=2", "objective.held_out=2.0: expected a number from 0 to 0.9"),
    ],
)
def test_settings_that_do_not_fit_are_named(configure, tmp_path, more, message):
    with pytest.raises(UserError, match=message):
        config = configure(tmp_path, *TINY, more)
        require_complete(config)
        make_objective(OmegaConf.to_container(config, resolve=True))
