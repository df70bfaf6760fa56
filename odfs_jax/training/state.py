"""What a training run is made of on the device, and the step that moves it on."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from odfs_jax.data import augment
from odfs_jax.errors import UserError

AXIS = "data"
Batch = dict[str, tuple[jax.Array, jax.Array]]  # side -> (images [B,S,S,4], cuts [B,2,3])
Metrics = dict[str, jax.Array]


@flax.struct.dataclass
class TrainState:
    """One logical copy, equal on all devices. `key` never changes: draws are folded from `step`."""

    params: dict
    opt: optax.OptState
    key: jax.Array
    step: jax.Array


def make_optimizer(config: Mapping[str, Any], iterations: int) -> optax.GradientTransformation:
    """The optimiser of an `OptimizerConfig`. Raises UserError naming the key that does not fit."""
    if config["name"] != "adam":
        raise UserError(f"optimizer.name={config['name']}: expected adam")
    limit = config["clip_norm"]
    return optax.chain(
        optax.identity() if limit is None else optax.clip_by_global_norm(limit),
        optax.adam(_schedule(config, iterations), b1=config["b1"], b2=config["b2"]),
    )


def _schedule(config: Mapping[str, Any], iterations: int) -> optax.Schedule:
    rate, warmup = config["learning_rate"], config["warmup"]
    if config["schedule"] == "constant":
        return optax.join_schedules(
            [optax.linear_schedule(0.0, rate, max(1, warmup)), optax.constant_schedule(rate)],
            [warmup],
        )
    if config["schedule"] != "cosine":
        raise UserError(f"optimizer.schedule={config['schedule']}: expected constant or cosine")
    if iterations <= warmup:
        raise UserError(
            f"optimizer.schedule=cosine ends at the target iteration: expected iterations above "
            f"optimizer.warmup={warmup}, found iterations={iterations}"
        )
    return optax.warmup_cosine_decay_schedule(0.0, rate, warmup, iterations)


def init_state(
    net: nn.Module, tx: optax.GradientTransformation, resolution: int, seed: int
) -> TrainState:
    """A fresh state; trace it with `jax.eval_shape` to learn its shapes only."""
    key = jax.random.key(seed)
    face = jnp.zeros((1, resolution, resolution, 3))
    params = net.init(jax.random.fold_in(key, 0), face, face)["params"]
    return TrainState(params, tx.init(params), jax.random.fold_in(key, 1), jnp.int32(0))


def replicated(devices: list[jax.Device]) -> NamedSharding:
    """A full copy on each device, in the form that `make_step` returns its state in."""
    return NamedSharding(Mesh(np.array(devices), (AXIS,)), PartitionSpec())


def split_over(devices: list[jax.Device]) -> NamedSharding:
    """The leading axis split over the devices."""
    return NamedSharding(Mesh(np.array(devices), (AXIS,)), PartitionSpec(AXIS))


def make_step(
    net: nn.Module,
    loss: Callable[..., tuple[jax.Array, Metrics]],
    tx: optax.GradientTransformation,
    settings: Mapping[str, Any],
    devices: list[jax.Device],
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """step(state, batch) -> (state, metrics), one pmap over `devices`; the state is donated.

    The batch has a leading axis of devices: images uint8 [D, B/D, S, S, 4], cuts [D, B/D, 2, 3].
    `settings` is an `AugmentConfig`. Metrics are float32 scalars of the whole batch.
    """

    def batch_loss(params: dict, batch: Batch, keys: dict[str, jax.Array]):
        samples = {side: _samples(net, keys[side], *batch[side], settings) for side in batch}
        outputs = net.apply({"params": params}, samples["src"][0], samples["dst"][0])
        return loss(outputs, {side: sample[1:] for side, sample in samples.items()})

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        keys = _sample_keys(jax.random.fold_in(state.key, state.step), batch)
        grads, metrics = jax.grad(batch_loss, has_aux=True)(state.params, batch, keys)
        grads, metrics = jax.lax.pmean((grads, metrics), AXIS)
        updates, opt = tx.update(grads, state.opt, state.params)
        params = optax.apply_updates(state.params, updates)
        return state.replace(params=params, opt=opt, step=state.step + 1), metrics

    return jax.pmap(
        step, AXIS, in_axes=(None, 0), out_axes=(None, None), donate_argnums=0, devices=devices
    )


def _sample_keys(key: jax.Array, batch: Batch) -> dict[str, jax.Array]:
    """A key for every sample, by its place in the whole batch: the same on any device count."""
    keys = {}
    for number, (side, (images, _)) in enumerate(sorted(batch.items())):
        count = len(images)
        places = jax.lax.axis_index(AXIS) * count + jnp.arange(count)
        keys[side] = jax.vmap(jax.random.fold_in, (None, 0))(
            jax.random.fold_in(key, number), places
        )
    return keys


def _samples(net: nn.Module, keys, images, cuts, settings):
    def one(key: jax.Array, image: jax.Array, cut: jax.Array):
        return augment.sample(key, image, cut, resolution=net.resolution, settings=settings)

    return jax.vmap(one)(keys, images, cuts)
