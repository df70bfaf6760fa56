"""Several processes, on one host or several, that train one model together (`jax.distributed`).

Each process holds the whole state on its own devices, draws its part of every batch, and sees the
same workspace. The first one speaks for all: it writes the log, the events and the previews.
"""

import logging
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from odfs_jax.errors import UserError
from odfs_jax.training.state import AXIS

AGREE_EVERY = 10  # dispatches; agreeing waits for the devices, a stop request can wait a little


def join(hardware: Mapping[str, Any]) -> None:
    """Makes this process one of `hardware.num_processes`, where a coordinator is given.

    `coordinator=auto` asks the cluster's scheduler. Must run before the first JAX computation.
    Raises UserError when the settings do not fit or the others do not come.
    """
    names = ("coordinator", "num_processes", "process_id")
    address, count, number = (hardware[name] for name in names)
    if address is None:
        if count is not None or number is not None:
            raise UserError("hardware.coordinator=null: several processes need host:port or auto")
        return
    given = {}
    if address != "auto":
        if count is None or number is None or not 0 <= number < count:
            raise UserError(
                f"hardware.coordinator={address}: expected hardware.process_id from 0 to "
                f"hardware.num_processes - 1, found {number} and {count}"
            )
        given = {"coordinator_address": address, "num_processes": count, "process_id": number}
    try:
        jax.distributed.initialize(**given)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"hardware.coordinator={address}: {reason}") from error
    if not leads():
        logging.getLogger("odfs_jax").setLevel(logging.WARNING)


def leads() -> bool:
    """True in the process that speaks for all."""
    return jax.process_index() == 0


def everyones(devices: list[jax.Device]) -> list[jax.Device]:
    """The devices of all processes, when each uses its own in the places of our `devices`."""
    places = [jax.local_devices().index(device) for device in devices]
    of = {number: jax.local_devices(number) for number in range(jax.process_count())}
    return [of[number][place] for number in of for place in places]


def as_one(tree: Any) -> Any:
    """What every process holds alike on devices of its own, as arrays over those of all.

    With one process this and the next two give back what they get.
    """
    if jax.process_count() == 1:
        return tree
    everywhere = _everywhere(tree)
    return multihost_utils.host_local_array_to_global_array(tree, everywhere.mesh, everywhere.spec)


def shapes_as_one(like: Any) -> Any:
    """The shapes and types of `like`, to be made as `as_one` would have them."""
    if jax.process_count() == 1:
        return like
    everywhere = _everywhere(like)
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=everywhere), like)


def as_own(tree: Any) -> Any:
    """The reverse of `as_one`."""
    if jax.process_count() == 1:
        return tree
    sharding = jax.tree.leaves(tree)[0].sharding
    return multihost_utils.global_array_to_host_local_array(tree, sharding.mesh, sharding.spec)


def agree(turn: int, last: Any, *wishes: bool) -> tuple[bool, ...]:
    """Each of `wishes` that any process has; several processes ask every AGREE_EVERY turns.

    `last` is what the turn gives: two exchanges at once, in another order elsewhere, would block.
    """
    if jax.process_count() == 1:
        return wishes
    if turn % AGREE_EVERY:
        return (False,) * len(wishes)
    jax.block_until_ready(last)
    return tuple(bool(w) for w in multihost_utils.process_allgather(np.array(wishes)).any(0))


def _everywhere(tree: Any) -> NamedSharding:
    """A copy on each process's devices, where `tree` lies on those of this one."""
    own = sorted(jax.tree.leaves(tree)[0].sharding.device_set, key=lambda device: device.id)
    return NamedSharding(Mesh(np.array(everyones(own)), (AXIS,)), PartitionSpec())
