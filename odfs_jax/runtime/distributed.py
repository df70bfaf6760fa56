"""Several devices and several processes that train one model together (`jax.distributed`).

Each process holds the whole state on its own devices, draws its part of every batch, and sees the
same workspace. The main process alone writes the log, the events and the previews.
"""

import logging
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from odfs_jax.errors import UserError

AXIS = "data"  # of all devices: each has its part of a batch
AGREE_EVERY = 10  # dispatches; agreeing waits for the devices, and a stop request can wait a little


def join(hardware: Mapping[str, Any]) -> None:
    """Makes this process one of `hardware.num_processes`, where a coordinator is given.

    `coordinator=auto` asks the cluster's scheduler. Must run before the first JAX computation.
    Raises UserError when the settings do not fit or another process does not come.
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
    if not is_main_process():
        logging.getLogger("odfs_jax").setLevel(logging.WARNING)


def is_main_process() -> bool:
    """True in the one process that logs and writes files."""
    return jax.process_index() == 0


def all_devices(devices: list[jax.Device]) -> list[jax.Device]:
    """The devices of all processes, where each uses those in the places of our `devices`."""
    places = [jax.local_devices().index(device) for device in devices]
    of = {number: jax.local_devices(number) for number in range(jax.process_count())}
    return [of[number][place] for number in of for place in places]


def replicated(devices: list[jax.Device]) -> NamedSharding:
    """A full copy on each device, the form in which a training step returns its state."""
    return NamedSharding(Mesh(np.array(devices), (AXIS,)), PartitionSpec())


def split_over(devices: list[jax.Device]) -> NamedSharding:
    """The leading axis split over `devices`."""
    return NamedSharding(Mesh(np.array(devices), (AXIS,)), PartitionSpec(AXIS))


def to_global(tree: Any) -> Any:
    """Arrays over the devices of all processes, of what each process holds alike on its own.

    A single process gets `tree` back as it is.
    """
    if jax.process_count() == 1:
        return tree
    everywhere = _everywhere(tree)
    return multihost_utils.host_local_array_to_global_array(tree, everywhere.mesh, everywhere.spec)


def to_global_shapes(like: Any) -> Any:
    """The shapes and types of `like`, laid out over the devices of all processes.

    A single process gets `like` back as it is.
    """
    if jax.process_count() == 1:
        return like
    everywhere = _everywhere(like)
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=everywhere), like)


def to_local(tree: Any) -> Any:
    """This process's copy of arrays that lie on the devices of all processes.

    A single process gets `tree` back as it is.
    """
    if jax.process_count() == 1:
        return tree
    sharding = jax.tree.leaves(tree)[0].sharding
    return multihost_utils.global_array_to_host_local_array(tree, sharding.mesh, sharding.spec)


def any_process(dispatch: int, last: Any, *flags: bool) -> tuple[bool, ...]:
    """Each of `flags`, true when it is true in any process; all processes get the same.

    Several processes ask each other at every AGREE_EVERY-th `dispatch` only, and all flags are
    false in between. `last` is what that dispatch returns: the exchange waits for it, since two
    exchanges at once, in another order in another process, would block.
    """
    if jax.process_count() == 1:
        return flags
    if dispatch % AGREE_EVERY:
        return (False,) * len(flags)
    jax.block_until_ready(last)
    return tuple(bool(f) for f in multihost_utils.process_allgather(np.array(flags)).any(0))


def _everywhere(tree: Any) -> NamedSharding:
    """A copy on each process's devices, where `tree` lies on those of this one."""
    own = sorted(jax.tree.leaves(tree)[0].sharding.device_set, key=lambda device: device.id)
    return replicated(all_devices(own))
