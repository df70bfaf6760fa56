"""The training step: draw the samples, rebuild them, move the parameters. One pmap."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from odfs_jax.data import augment
from odfs_jax.training.state import AXIS, TrainState

Batch = dict[str, tuple[jax.Array, jax.Array]]  # side -> (images [B,S,S,4], cuts [B,2,3])
Metrics = dict[str, jax.Array]


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
