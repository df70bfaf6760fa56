"""What a training run keeps on the device: each network's parameters, optimizer state and mean."""

from collections.abc import Mapping

import flax.struct
import jax
import jax.numpy as jnp
import optax


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
