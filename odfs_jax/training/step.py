"""The training step: draw the samples, rebuild them, move the parameters. One pmap."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from odfs_jax.data import augment
from odfs_jax.nets.base import SwapNet
from odfs_jax.training.state import AXIS, TrainState

Batch = dict[str, tuple[jax.Array, jax.Array]]  # side -> (images [B,S,S,4], cuts [B,2,3])
Metrics = dict[str, jax.Array]


def make_step(
    net: SwapNet,
    loss: Callable[..., tuple[jax.Array, Metrics]],
    tx: optax.GradientTransformation,
    settings: Mapping[str, Any],
    devices: list[jax.Device],
    accumulate: int = 1,
    ema: float | None = None,
    steps: int = 1,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """step(state, batch) -> (state, metrics), one pmap over `devices`; the state is donated.

    The batch has a leading axis of devices: images uint8 [D, B/D, S, S, 4], cuts [D, B/D, 2, 3].
    `settings` is an `AugmentConfig`. A device goes through its share in `accumulate` equal parts,
    one after the other. `ema` is the decay of the state's mean weights, where it has them. Metrics
    are float32 scalars of the whole batch.

    With more than one of `steps` a call makes that many: the batch has them as its second axis,
    and a metric is float32 [steps].
    """
    of_batch = partial(_loss_of_batch, net, loss)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        keys = _sample_keys(jax.random.fold_in(state.key, state.step), batch)
        now = augment.at(settings, state.step)
        gradient = partial(jax.grad(of_batch, has_aux=True), state.params, now)
        found = _mean_over_parts(gradient, (batch, keys), accumulate)
        if len(devices) > 1:  # alone it would only copy the gradients: 0.4 GB of H64's 1.9
            found = jax.lax.pmean(found, AXIS)
        grads, metrics = found
        return _moved(state, grads, tx, ema), metrics

    def several(state: TrainState, batches: Batch) -> tuple[TrainState, Metrics]:
        return jax.lax.scan(step, state, batches, unroll=_unrolled(steps))

    function = step if steps == 1 else several
    return jax.pmap(
        function, AXIS, in_axes=(None, 0), out_axes=(None, None), donate_argnums=0, devices=devices
    )


def _loss_of_batch(
    net: SwapNet,
    loss: Callable[..., tuple[jax.Array, Metrics]],
    params: dict,
    now: Mapping[str, Any],
    batch: Batch,
    keys: dict[str, jax.Array],
) -> tuple[jax.Array, Metrics]:
    """The loss of freshly drawn samples of a batch, whose settings are those of `now`."""
    drawn = {side: samples(net, side, keys[side], *batch[side], now) for side in batch}
    (src, targets), (dst, targets_of_dst) = drawn["src"], drawn["dst"]
    return loss(net.apply({"params": params}, src, dst), targets | targets_of_dst)


def _moved(
    state: TrainState, grads: dict, tx: optax.GradientTransformation, ema: float | None
) -> TrainState:
    """The state a step further."""
    updates, opt = tx.update(grads, state.opt, state.params)
    params = optax.apply_updates(state.params, updates)
    mean = state.ema if ema is None else _averaged(state.ema, params, ema, state.step)
    return state.replace(params=params, opt=opt, ema=mean, step=state.step + 1)


def _mean_over_parts(function: Callable[..., Any], inputs: tuple, parts: int) -> Any:
    """The mean of function(*inputs) over `parts` equal parts of the inputs' leading axis."""
    if parts == 1:
        return function(*inputs)
    pieces = jax.tree.map(lambda a: a.reshape(parts, -1, *a.shape[1:]), inputs)
    first = jax.tree.map(lambda a: a[0], pieces)
    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(function, *first))

    def add(total: Any, piece: tuple) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, function(*piece)), None

    total, _ = jax.lax.scan(add, zeros, pieces, unroll=_unrolled(parts))
    return jax.tree.map(lambda x: x / parts, total)


def _unrolled(rounds: int) -> int:
    """How much of a loop to write out: the gradient of a convolution in one is slow on a CPU."""
    return rounds if jax.default_backend() == "cpu" else 1


def _averaged(mean: dict, params: dict, decay: float, step: jax.Array) -> dict:
    """The running mean of the weights after one more step; a short one at the start of a run."""
    count = step.astype(jnp.float32)
    share = 1 - jnp.minimum(decay, (1 + count) / (10 + count))
    return jax.tree.map(lambda m, p: m + share * (p - m), mean, params)


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


def samples(
    net: SwapNet,
    side: str,
    keys: jax.Array,
    images: jax.Array,
    cuts: jax.Array,
    settings: Mapping[str, Any],
) -> tuple[jax.Array, dict[str, tuple[jax.Array, jax.Array]]]:
    """(faces as `net` sees them, {name of its output: (faces, masks) that it must give back})."""
    views = {"seen": net.input_specs[side], "rebuilt": net.target_specs[side]}

    def one(key: jax.Array, image: jax.Array, cut: jax.Array):
        return augment.sample(key, image, cut, settings=settings, **views)

    return jax.vmap(one)(keys, images, cuts)
