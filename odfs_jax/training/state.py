"""What a training run is made of on the device, and how it lies on the devices."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from odfs_jax.nets.base import SwapNet

AXIS = "data"


@flax.struct.dataclass
class TrainState:
    """One logical copy, equal on all devices. `key` never changes: draws are folded from `step`."""

    params: dict
    opt: optax.OptState
    key: jax.Array
    step: jax.Array
    ema: dict | None = None  # the running mean of `params`, where one is asked for

    @property
    def weights(self) -> dict:
        """What previews and conversion use: the mean where there is one."""
        return self.params if self.ema is None else self.ema


def init_state(
    net: SwapNet,
    tx: optax.GradientTransformation,
    seed: int,
    averaged: bool = False,
) -> TrainState:
    """A fresh state, with a mean of the weights when `averaged`; `jax.eval_shape` tells its shapes.

    The mean is a copy of its own, for the step gives its state's memory away.
    """
    key = jax.random.key(seed)
    params = net.init(jax.random.fold_in(key, 0), *net.blank())["params"]
    ema = jax.tree.map(jnp.copy, params) if averaged else None
    return TrainState(params, tx.init(params), jax.random.fold_in(key, 1), jnp.int32(0), ema)


def replicated(devices: list[jax.Device]) -> NamedSharding:
    """A full copy on each device, in the form that `make_step` returns its state in."""
    return NamedSharding(Mesh(np.array(devices), (AXIS,)), PartitionSpec())


def split_over(devices: list[jax.Device]) -> NamedSharding:
    """The leading axis split over the devices."""
    return NamedSharding(Mesh(np.array(devices), (AXIS,)), PartitionSpec(AXIS))
