"""evaluate_every=: how well held-out faces are rebuilt, and when that stops getting better."""

import json
from functools import partial

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from omegaconf import OmegaConf
from skimage.metrics import structural_similarity

from odfs_jax.data.augment import unchanged
from odfs_jax.evaluation.truth import gradients
from odfs_jax.training.metrics import GAIN, PATIENCE, stalled_since
from odfs_jax.training.objectives import make_objective
from odfs_jax.training.objectives.autoencoder import likeness

EVERY = ("evaluate_every=5", "objective.held_out=0.3", "log_every=10", "iterations=10")


def test_figures_are_those_of_other_libraries():
    rng = np.random.default_rng(0)
    truth = cv2.GaussianBlur(rng.random((2, 40, 40, 1)).reshape(80, 40), (0, 0), 1.5)
    truth = truth.reshape(2, 40, 40, 1).astype(np.float32)
    face = np.clip(truth + rng.normal(0, 0.05, truth.shape), 0, 1).astype(np.float32)
    area = np.zeros_like(truth)
    area[:, 10:30, 8:32] = 1
    eyes = np.zeros_like(truth)
    eyes[:, 12:18, 10:30] = 1
    found = likeness(*(jnp.asarray(p) for p in (face, truth, area, eyes)))
    ssim, energy = [], []
    for a, b in zip(face[..., 0], truth[..., 0], strict=True):
        similar = structural_similarity(
            a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
            data_range=1, win_size=11, full=True,
        )[1]  # fmt: skip
        ssim.append([similar[10:30, 8:32].mean(), similar[12:18, 10:30].mean()])
        a, b = (gradients(p.astype(np.float64))[10:30, 8:32] ** 2 for p in (a, b))
        energy.append(a.mean() / b.mean())
    np.testing.assert_allclose(found["ssim"], np.mean(ssim, 0)[0], atol=2e-4)
    np.testing.assert_allclose(found["ssim/eyes_mouth"], np.mean(ssim, 0)[1], atol=2e-4)
    np.testing.assert_allclose(found["ssim/sharpness"], np.mean(energy), rtol=1e-3)


def test_held_out_faces_are_measured_and_not_trained_on(make_workspace, configure, run_training):
    workspace = make_workspace()
    folder = run_training(workspace, *EVERY)
    rows = [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [5, 10]
    for row in rows:
        assert -1 <= row["losses"]["src_held_out"] <= 1 and "dst_held_out" in row["losses"]
        assert not any("/" in name for name in row["losses"])
    config = OmegaConf.to_container(configure(workspace, *EVERY), resolve=True)
    objective = make_objective(config)
    facesets = objective.load_facesets()
    for side in ("src", "dst"):
        assert not set(facesets[side].ranks) & set(objective.held_out[side].ranks)
        assert max(facesets[side].ranks) < min(objective.held_out[side].ranks)
    # The figures are of faces as they are stored: no draw moves them.
    batch = objective.measured_batch()
    draw = jax.jit(partial(objective.draw, augment_cfg=unchanged(config["augment"])))
    drawn = []
    for seed in (0, 1):
        key = jax.random.key(seed)
        keys = {side: jax.random.split(key, len(faces)) for side, (faces, _) in batch.items()}
        drawn.append(draw(batch, keys))
    jax.tree.map(np.testing.assert_array_equal, *drawn)


def test_without_it_every_face_is_trained_on(make_workspace, configure):
    config = OmegaConf.to_container(configure(make_workspace()), resolve=True)
    objective = make_objective(config)
    objective.load_facesets()
    assert objective.held_out == {} and objective.make_measure() is None


@pytest.mark.parametrize("then", [0, 0.9 * GAIN])
def test_a_run_that_stopped_getting_better_is_told_once(then):
    rows = [[10 * i, {"src_held_out": min(i, 5) / 10}] for i in range(6)]
    told = []
    for extra in range(2 * PATIENCE):
        rows.append([100 + extra, {"src_held_out": 0.5 + then}])
        told.append(stalled_since(rows))
    assert told.count(50) == 1 and told.count(None) == len(told) - 1
    assert told.index(50) == PATIENCE - 1
    assert stalled_since([[step, {"src_face": 0.1}] for step, _ in rows]) is None


def test_what_grows_is_not_told():
    rows = [[i, {"iou": i / 100}] for i in range(5 * PATIENCE)]
    assert all(stalled_since(rows[: i + 1]) is None for i in range(len(rows)))
