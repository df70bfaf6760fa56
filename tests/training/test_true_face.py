"""True face and styles in an objective: what each network minimizes, and which weights move."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from omegaconf import OmegaConf

from odfs_jax.errors import UserError
from odfs_jax.nets.discriminator import CodeDiscriminator
from odfs_jax.training.objectives import make_objective
from odfs_jax.training.objectives.autoencoder import decoders_only
from odfs_jax.training.step import sample_keys

TINY = ("batch_size=2", "data.brows=false", "discriminator.patch_size=3", "discriminator.dims=4")


@pytest.fixture(scope="module")
def settings(configure):
    return lambda *more: OmegaConf.to_container(configure(Path("workspace"), *TINY, *more))


@pytest.mark.parametrize(
    ("side", "logits", "count"), [(8, 3, 2_229_505), (12, 4, 2_229_505), (16, 3, 6_949_633)]
)
def test_the_sizes_of_the_original(side, logits, count):
    def run(key, code):
        return CodeDiscriminator().init_with_output(key, code)

    found, variables = jax.eval_shape(run, jax.random.key(0), jnp.zeros((1, side, side, 256)))
    assert found.shape == (1, logits, logits, 1)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == count


def test_what_each_network_minimizes(settings):
    """A face's discriminator, one of codes, and both styles at once, against sums by hand."""
    config = settings(
        "discriminator=patch", "loss.true_face=0.25", "loss.face_style=4", "loss.background_style=2"
    )
    objective = make_objective(config)
    assert set(objective.nets) == {"autoencoder", "discriminator", "code_discriminator"}
    params = jax.jit(objective.init_params)(jax.random.key(0))
    rng = np.random.default_rng(0)
    matrix = np.float32([[[2, 0, 0.5], [0, 2, 0.5]]] * 2)
    batch = {
        side: (rng.integers(0, 256, (2, 64, 64, 4), dtype=np.uint8), matrix)
        for side in ("src", "dst")
    }
    keys = sample_keys(jax.random.key(1), batch, dict.fromkeys(batch, 0))

    @jax.jit
    def run(params):
        losses, metrics = objective.losses(params, batch, keys, jnp.int32(9))
        _, outputs = objective.rebuild(params, batch, keys, jnp.int32(9))
        codes = outputs["codes"]
        judge = lambda codes: objective.nets["code_discriminator"].apply(  # noqa: E731
            {"params": params["code_discriminator"]}, codes
        )
        return losses, metrics, judge(codes["src"]), judge(codes["dst"])

    losses, metrics, of_src, of_dst = run(params)

    def bce(label, logits):
        p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
        return -np.log(p if label else 1 - p).mean()

    told_apart = 0.5 * (bce(1, of_dst) + bce(0, of_src))
    assert float(losses["code_discriminator"]) == pytest.approx(told_apart, rel=1e-5)
    assert float(metrics["src_code_deceived"]) == pytest.approx(bce(1, of_src), rel=1e-5)
    added = 0.25 * bce(1, of_src) + 0.1 * float(metrics["src_deceived"])
    added += 4 * float(metrics["swap_style"]) + 2 * float(metrics["swap_background"])
    rebuilt = (f"{side}_{part}" for side in ("src", "dst") for part in ("face", "mask"))
    found = float(losses["autoencoder"]) - sum(float(metrics[name]) for name in rebuilt)
    assert found == pytest.approx(added, rel=2e-2)  # and what keeps the rim calm


def test_before_a_face_is_judged_codes_are(settings):
    config = settings("discriminator=patch", "discriminator.start=9", "loss.true_face=0.1")
    objective = make_objective(config)
    state = jax.eval_shape(objective.init_state)
    batch = {
        side: (
            jax.ShapeDtypeStruct((2, 64, 64, 4), jnp.uint8),
            jax.ShapeDtypeStruct((2, 2, 3), jnp.float32),
        )
        for side in ("src", "dst")
    }
    keys = jax.eval_shape(lambda: {side: jax.random.split(jax.random.key(0)) for side in batch})
    arguments = state.params, batch, keys, state.step
    before, metrics = jax.eval_shape(objective.losses_before, *arguments)
    after, same = jax.eval_shape(objective.losses, *arguments)
    assert set(before) == {"autoencoder", "code_discriminator"}
    assert set(after) == {*before, "discriminator"} and metrics == same


def test_a_faces_style_moves_decoders_only():
    parts = ("encoder", "shared", "inter_AB", "inter", "large_shared", "decoder", "decoder_src")
    params = {name: {"kernel": jnp.ones(2)} for name in (*parts, "common_a", "rgb")}

    def loss(params):
        return sum(part["kernel"].sum() for part in decoders_only(params).values())

    moved = {name for name, part in jax.grad(loss)(params).items() if part["kernel"].any()}
    assert moved == {"decoder", "decoder_src", "common_a", "rgb"}


def test_a_network_that_does_not_rebuild_what_it_swaps_has_no_styles(settings):
    with pytest.raises(UserError, match=r"loss\.face_style"):
        make_objective(
            settings("model=avatar", "model.args.small_resolution=16", "loss.face_style=1")
        )
