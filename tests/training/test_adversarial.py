"""A discriminator beside the autoencoder; what any second network gets: test_second_network.py."""

import logging
from contextlib import closing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from omegaconf import OmegaConf

from odfs_jax.data.batches import make_batches
from odfs_jax.errors import UserError
from odfs_jax.runtime.distributed import replicated, split_over
from odfs_jax.training.checkpoint import Checkpoints, start
from odfs_jax.training.objectives import make_objective
from odfs_jax.training.objectives.adversarial import StepInTwoParts, roughness
from odfs_jax.training.step import sample_keys

BATCH = 4
MODELS = ("h64", "miaef128", "avatar", "saehd", "amp")  # a face in gray, two sizes, random codes
SMALLEST = ("discriminator.patch_size=3", "discriminator.dims=4")  # one layer


@pytest.fixture(scope="module")
def tiny(make_workspace, configure):
    """(settings of a model without and with a discriminator, facesets) of a tiny run."""
    workspace = make_workspace()

    def settings(*more):
        settings = (f"batch_size={BATCH}", "data.brows=false", *SMALLEST)
        config = configure(workspace, *settings, *more)
        return OmegaConf.to_container(config)

    plain = settings()
    return plain, settings("discriminator=patch"), make_objective(plain).load_facesets()


def changed(config, **own):
    return config | {"discriminator": config["discriminator"] | own}


@pytest.fixture(scope="module")
def run_steps(tiny):
    """run(config, count, devices, state): the state after steps, and the metrics of each.

    The step of a configuration and a number of devices is made once.
    """
    *_, facesets = tiny
    made = {}

    def run(config, count, devices=1, state=None):
        key = (str(config["discriminator"]), devices)
        devices = jax.devices()[:devices]
        if key not in made:
            objective = make_objective(config)
            made[key] = objective, objective.make_step(devices)
        objective, step = made[key]
        if state is None:
            state = jax.jit(objective.init_state, out_shardings=replicated(devices))()
        batches = make_batches(facesets, jax.random.key(0), BATCH, split_over(devices))
        found, first = [], int(state.step)
        for number in range(first, first + count):
            state, metrics = step(state, batches(number))
            found.append({name: float(value) for name, value in metrics.items()})
        return state, found

    return run


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.fixture(scope="module")
def begun(tiny, run_steps):
    """(state, metrics) of four steps with a discriminator."""
    _, config, _ = tiny
    return run_steps(config, 4)


@pytest.mark.slow
def test_until_it_begins_it_changes_no_bit(tiny, run_steps):
    plain, config, _ = tiny
    state, metrics = run_steps(changed(config, start=2), 2)
    expected, without = run_steps(plain, 2)
    assert bits(state.nets["autoencoder"]) == bits(expected.nets["autoencoder"])
    fresh = jax.jit(make_objective(config).init_state)().nets["discriminator"]
    assert bits(state.nets["discriminator"]) == bits(fresh)
    for ours, theirs in zip(metrics, without, strict=True):
        assert {name: ours[name] for name in theirs} == theirs and ours["discriminator"] == 0


@pytest.mark.parametrize(
    ("first", "steps", "calls"), [(0, 1, "bba"), (0, 2, "baa"), (5, 1, "aaa"), (1, 1, "baa")]
)
def test_it_begins_with_the_call_that_holds_its_first_iteration(first, steps, calls):
    class State:
        step = first

    called = []
    before, after = ((lambda *_, name=name: called.append(name)) for name in "ba")
    step = StepInTwoParts(before, after, 2, {"steps_per_dispatch": steps})
    for _ in calls:
        step(State, None)
    assert "".join(called) == calls


@pytest.mark.slow  # test_second_network.py looks at this with a smaller network
def test_two_devices_learn_the_same(tiny, run_steps, begun):
    _, config, _ = tiny
    state, metrics = run_steps(config, 4, devices=2)
    for ours, theirs in zip(metrics, begun[1], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    copies = [
        [np.asarray(leaf.addressable_data(n)).tobytes() for leaf in jax.tree.leaves(state.nets)]
        for n in (0, 1)
    ]
    assert copies[0] == copies[1]


@pytest.mark.slow
def test_stopped_and_resumed_is_unbroken(tiny, run_steps, begun, save_state, tmp_path):
    _, config, _ = tiny
    state, _ = run_steps(config, 2)
    save_state(tmp_path, state, config)
    with closing(Checkpoints(tmp_path)) as checkpoints:
        resumed, _ = start(checkpoints, make_objective(config), jax.devices()[:1])
    resumed, _ = run_steps(config, 2, state=resumed)
    assert bits(resumed.nets) == bits(begun[0].nets)


@pytest.mark.slow
def test_a_checkpoint_without_one_begins_it_fresh(tiny, run_steps, save_state, tmp_path, caplog):
    plain, config, _ = tiny
    state, _ = run_steps(plain, 1)
    save_state(tmp_path, state, plain)
    caplog.clear()
    with (
        closing(Checkpoints(tmp_path)) as checkpoints,
        caplog.at_level(logging.INFO, logger="odfs_jax"),
    ):
        resumed, _ = start(checkpoints, make_objective(config), jax.devices()[:1])
    assert caplog.messages == [
        f"{tmp_path}: resuming at iteration 1",
        "discriminator: not in the checkpoint, begins fresh",
    ]
    fresh = jax.jit(make_objective(config).init_state)().params["discriminator"]
    assert bits(resumed.params["discriminator"]) == bits(fresh)


def drawn(objective, facesets):
    """(parameters, a batch of two faces a side, their keys)."""
    params = jax.jit(objective.init_params)(jax.random.key(0))
    batch = {
        side: (jnp.asarray(f.images[:2]), jnp.asarray(f.store_from_model[:2]))
        for side, f in facesets.items()
    }
    return params, batch, sample_keys(jax.random.key(1), batch, dict.fromkeys(batch, 0))


def test_what_each_network_minimizes(tiny):
    """The sums of the original, written out with numpy from what the two networks return."""
    plain, config, facesets = tiny
    config = changed(config, name="unet", power=0.5, r1=2.0)
    objective = make_objective(config)
    params, batch, keys = drawn(objective, facesets)

    @jax.jit
    def run(params):
        losses, metrics = objective.losses(params, batch, keys, jnp.int32(9))
        alone, _ = make_objective(plain).losses(params, batch, keys, jnp.int32(9))
        targets, outputs = objective.rebuild(params, batch, keys, jnp.int32(9))
        target, made = targets["src"], outputs["src"][0]
        judge = lambda faces: objective.nets["discriminator"].apply(  # noqa: E731
            {"params": params["discriminator"]}, faces
        )
        true, fake = (face * target["mask"] for face in (target["face"], made))
        one = lambda faces: sum(x.mean() for x in judge(faces[None]))  # noqa: E731
        slopes = jax.vmap(jax.jacrev(one))(true)
        return losses, alone, metrics, target, made, judge(true), judge(fake), slopes

    losses, alone, metrics, target, made, of_true, of_fake, slopes = run(params)

    def bce(label, logits):
        p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
        return -np.log(p if label else 1 - p).mean()

    deceived = sum(bce(1, logits) for logits in of_fake)
    told_apart = sum(bce(1, x) + bce(0, y) for x, y in zip(of_true, of_fake, strict=True)) / 2
    penalty = (np.asarray(slopes, np.float64) ** 2).sum((1, 2, 3)).mean()
    assert float(metrics["src_deceived"]) == pytest.approx(deceived, rel=1e-5)
    assert float(metrics["discriminator/r1"]) == pytest.approx(penalty, rel=1e-4)
    assert float(losses["discriminator"]) == pytest.approx(told_apart + penalty, rel=1e-4)
    outside = (1 - target["mask"]) * (target["face"] - made)
    calm = 1e-6 * float(roughness(made).mean()) + 0.02 * float((outside**2).mean())
    added = float(losses["autoencoder"]) - float(alone["autoencoder"])
    assert added == pytest.approx(0.5 * deceived + calm, rel=1e-3)
    rough = np.diff(made, axis=1) ** 2
    expected = rough.sum((1, 2, 3)) + (np.diff(made, axis=2) ** 2).sum((1, 2, 3))
    np.testing.assert_allclose(roughness(made), expected, rtol=1e-4)


def test_of_swap_it_judges_the_new_face_and_moves_srcs_decoder(tiny):
    _, config, facesets = tiny
    config = changed(config, name="patch", power=0.5, of_swap=True)
    objective = make_objective(config)
    params, batch, keys = drawn(objective, facesets)

    @jax.jit
    def run(params):
        def deceived(own):
            _, metrics = objective.losses(params | {"autoencoder": own}, batch, keys, jnp.int32(9))
            return metrics["src_deceived"]

        value, slopes = jax.value_and_grad(deceived)(params["autoencoder"])
        *_, dst = objective.sample(batch, keys, jnp.int32(9)).values()
        face, mask, _ = objective.net.apply(
            {"params": params["autoencoder"]}, dst[0], method="swap"
        )
        logits = objective.nets["discriminator"].apply(
            {"params": params["discriminator"]}, face * jnp.round(mask)
        )
        return value, slopes, logits

    value, slopes, logits = run(params)
    expected = sum(np.logaddexp(0, -np.asarray(x, np.float64)).mean() for x in logits)
    assert float(value) == pytest.approx(expected, rel=1e-5)
    moved = {
        name
        for name, part in slopes.items()
        if any(np.any(slope) for slope in jax.tree.leaves(part))
    }
    assert moved == {"decoder_src"}


def test_of_swap_needs_a_new_face_like_srcs(configure):
    config = configure(
        Path("workspace"), "model=avatar", "discriminator=patch", "discriminator.of_swap=true"
    )
    with pytest.raises(UserError, match=r"discriminator\.of_swap: not with this network's faces"):
        make_objective(OmegaConf.to_container(config))


@pytest.mark.parametrize(
    "model", [pytest.param(m, marks=[pytest.mark.slow] * (m != "saehd")) for m in MODELS]
)
def test_every_kind_of_model_may_have_one(tiny, configure, model):
    """Traced only: it judges the largest face of src, gray or in color."""
    small = ("model.args.small_resolution=16",) if model == "avatar" else ()
    config = OmegaConf.to_container(
        configure(Path("workspace"), f"model={model}", "discriminator=patch", *small)
    )
    objective = make_objective(config)
    state = jax.eval_shape(objective.init_state)
    channels = 4 if len(objective.masks) == 1 else 5
    batch = {
        side: (
            jax.ShapeDtypeStruct((2, 64, 64, channels), jnp.uint8),
            jax.ShapeDtypeStruct((2, 2, 3), jnp.float32),
        )
        for side in ("src", "dst")
    }
    keys = jax.eval_shape(lambda: {side: jax.random.split(jax.random.key(0)) for side in batch})
    losses, metrics = jax.eval_shape(objective.losses, state.params, batch, keys, state.step)
    assert set(losses) == {"autoencoder", "discriminator"} and "src_deceived" in metrics


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ("discriminator.name=gan",),
            r"discriminator\.name=gan: expected one of none, patch, unet",
        ),
        (
            ("discriminator=unet", "discriminator.patch_size=640"),
            r"discriminator\.patch_size=640: faces of 32 pixels cannot be halved",
        ),
    ],
)
def test_mistakes_name_the_key(configure, settings, message):
    config = configure(Path("workspace"), *settings)
    with pytest.raises(UserError, match=message):
        make_objective(OmegaConf.to_container(config))
