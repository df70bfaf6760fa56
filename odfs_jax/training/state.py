"""What a training run is made of on the device, and how it lies on the devices."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "data"


@flax.struct.dataclass
class TrainState:
    """One logical copy, equal on all devices. `key` never changes: draws are folded from `step`."""

    params: dict
    opt: optax.OptState
    key: jax.Array
    step: jax.Array


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
