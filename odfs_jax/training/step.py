"""The state of a training run and the step that changes it, for any number of networks.

A step knows no picture and no loss, only their sums.

The objective (`training/objectives/`) says what each network minimizes. A step makes one forward
pass, one backward pass a network, and one update of each network by an optimizer of its own.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from odfs_jax.data.batches import Batch
from odfs_jax.runtime.distributed import AXIS

Metrics = dict[str, jax.Array]
# (params by network, batch, a key for each sample of each side, iteration)
#     -> ({network: the scalar that it alone minimizes}, metrics)
Losses = Callable[
    [dict[str, dict], Batch, dict[str, jax.Array], jax.Array], tuple[dict[str, jax.Array], Metrics]
]


@flax.struct.dataclass
class NetState:
    """One network: its parameters, the state of its own optimizer, and the parameters' mean."""

    params: dict
    opt: optax.OptState
    ema: dict | None = None  # running mean of `params`, where one is asked for

    @property
    def eval_params(self) -> dict:
        """The parameters for previews and conversion: the mean where there is one."""
        return self.params if self.ema is None else self.ema


@flax.struct.dataclass
class TrainState:
    """All of a run, one logical copy, equal on all devices."""

    nets: dict[str, NetState]  # by name
    key: jax.Array  # never changes: a step's draws come from it and the step's number
    step: jax.Array  # int32, iterations done

    @property
    def params(self) -> dict[str, dict]:
        """{name of a network: its parameters}."""
        return {name: net.params for name, net in self.nets.items()}

    @property
    def eval_params(self) -> dict[str, dict]:
        """{name of a network: its parameters for previews and conversion}."""
        return {name: net.eval_params for name, net in self.nets.items()}


def init_state(
    params: Mapping[str, dict],
    optimizers: Mapping[str, optax.GradientTransformation],
    averaged: tuple[str, ...],
    key: jax.Array,
) -> TrainState:
    """The state of a run that begins with `params`; networks in `averaged` get a running mean.

    `jax.eval_shape` of it tells its shapes.
    """
    nets = {}
    for name, values in params.items():
        # A copy of its own, since a step reuses the memory of its state.
        ema = jax.tree.map(jnp.copy, values) if name in averaged else None
        nets[name] = NetState(values, optimizers[name].init(values), ema)
    return TrainState(nets, key, jnp.int32(0))


# (key of the step, its number, an optimizer's updates) -> what is applied of them
Thin = Callable[[jax.Array, jax.Array, optax.Updates], optax.Updates]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_step(
    losses: Losses,
    optimizers: Mapping[str, optax.GradientTransformation],
    devices: list[jax.Device],
    *,
    accumulate: int = 1,
    ema: float | None = None,
    steps: int = 1,
    thin: Thin | None = None,
) -> Step:
    """step(state, batch) -> (state, metrics), one pmap over `devices`; the state is donated.

    The batch has a leading axis of devices: images uint8 [D, B/D, S, S, C], matrices float32
    [D, B/D, 2, 3]. Metrics are float32 scalars of the whole batch: those of
    `losses`, and as "total/NAME" what each network minimizes.

    Args:
        losses: what each network minimizes; a mean over the batch. All networks are updated from
            the same old parameters. One that is not among them stays as it is.
        optimizers: by the name of the network.
        devices: those of all processes.
        accumulate: equal parts of a device's share that it goes through one after the other.
        ema: decay of the mean of the parameters, for networks that have one.
        thin: what changes each update of an optimizer before it is applied, if anything.
        steps: how many steps a call makes. With more than one, the batch has them as its second
            axis, and a metric is float32 [steps].
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        first = {
            side: jax.lax.axis_index(AXIS) * len(images) for side, (images, _) in batch.items()
        }
        key = jax.random.fold_in(state.key, state.step)
        keys = sample_keys(key, batch, first)

        def gradients(batch: Batch, keys: dict[str, jax.Array]) -> tuple[dict[str, dict], Metrics]:
            def loss_fn(params: dict[str, dict]) -> tuple[dict[str, jax.Array], Metrics]:
                return losses(params, batch, keys, state.step)

            values, pullback, metrics = jax.vjp(loss_fn, state.params, has_aux=True)
            metrics = metrics | {f"total/{name}": value for name, value in values.items()}
            grads = {}
            for name in values:
                one_hot = {other: jnp.float32(other == name) for other in values}
                grads[name] = pullback(one_hot)[0][name]
            return grads, metrics

        grads, metrics = _mean_over_parts(gradients, (batch, keys), accumulate)
        if len(devices) > 1:  # alone it would only copy the gradients: 0.4 GB of H64's 1.9
            grads, metrics = jax.lax.pmean((grads, metrics), AXIS)
        thinned = (lambda x: x) if thin is None else partial(thin, key, state.step)
        nets = {
            name: _apply_gradients(net, grads[name], optimizers[name], ema, state.step, thinned)
            if name in grads
            else net
            for name, net in state.nets.items()
        }
        return state.replace(nets=nets, step=state.step + 1), metrics

    def multi_step(state: TrainState, batches: Batch) -> tuple[TrainState, Metrics]:
        return jax.lax.scan(step, state, batches, unroll=_unrolled(steps))

    function = step if steps == 1 else multi_step
    return jax.pmap(
        function, AXIS, in_axes=(None, 0), out_axes=(None, None), donate_argnums=0, devices=devices
    )


def sample_keys(key: jax.Array, batch: Batch, first: Mapping[str, Any]) -> dict[str, jax.Array]:
    """A key for every sample of every side of `batch`, by its place in the whole batch.

    `first` is the place of a side's first sample. The keys are the same on any number of devices.
    """
    keys = {}
    for number, (side, (images, _)) in enumerate(sorted(batch.items())):
        places = first[side] + jnp.arange(len(images))
        side_key = jax.random.fold_in(key, number)
        keys[side] = jax.vmap(jax.random.fold_in, (None, 0))(side_key, places)
    return keys


def _apply_gradients(
    net: NetState,
    grads: dict,
    optimizer: optax.GradientTransformation,
    ema: float | None,
    step: jax.Array,
    thinned: Callable[[optax.Updates], optax.Updates],
) -> NetState:
    updates, opt = optimizer.update(grads, net.opt, net.params)
    params = optax.apply_updates(net.params, thinned(updates))
    mean = net.ema if net.ema is None else _update_mean(net.ema, params, ema, step)
    return NetState(params, opt, mean)


def _update_mean(mean: dict, params: dict, decay: float, step: jax.Array) -> dict:
    """The running mean of the parameters after one more step; short at the start of a run."""
    count = step.astype(jnp.float32)
    share = 1 - jnp.minimum(decay, (1 + count) / (10 + count))
    return jax.tree.map(lambda m, p: m + share * (p - m), mean, params)


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
