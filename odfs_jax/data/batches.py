"""Which faces make up a step's batch, and getting them to the devices.

Every face is visited once an epoch, in a new random order each time. What a step gets depends
on the key and the step's number only, so a resumed run draws what an unbroken one would have.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from odfs_jax.data.faceset import Faceset

log = logging.getLogger(__name__)

DEVICE_SHARE = 0.3  # of a device's memory that the facesets may take
AHEAD = 2  # batches prepared in advance when the facesets stay on the host

Batch = dict[str, tuple[jax.Array, jax.Array]]


def draw(key: jax.Array, step: jax.Array, count: int, batch_size: int) -> jax.Array:
    """The faces of step number `step`: int32 [batch_size] in [0, count)."""
    place = step * batch_size + jnp.arange(batch_size)
    first = step * batch_size // count
    epochs = first + jnp.arange((batch_size - 1) // count + 2)  # as many as a batch can touch

    def order(epoch: jax.Array) -> jax.Array:
        return jax.random.permutation(jax.random.fold_in(key, epoch), count)

    return jax.vmap(order)(epochs)[place // count - first, place % count]


def own_part(draws: jax.Array, devices: int) -> jax.Array:
    """What this process, with its `devices`, gets of `draws` [steps, B]: [devices, steps, B/D].

    D counts the devices of all processes, in their order. A single step has no axis of its own.
    """
    everyone = devices * jax.process_count()
    first = devices * jax.process_index()
    parts = draws.reshape(len(draws), everyone, -1)[:, first : first + devices].swapaxes(0, 1)
    return parts[:, 0] if len(draws) == 1 else parts


def make_batches(
    facesets: dict[str, Faceset],
    key: jax.Array,
    batch_size: int,
    sharding: NamedSharding,
    steps: int = 1,
) -> Callable[[int], Batch]:
    """batch(step): the faces of `steps` steps from `step` on, laid out as `own_part` says.

    Their leading axis is split by `sharding`, over the devices of this process.
    The facesets live on the devices when they fit into DEVICE_SHARE of the memory, else on the
    host, from where a thread sends batches ahead of time; the log says which.
    """
    keys = {side: jax.random.fold_in(key, i) for i, side in enumerate(sorted(facesets))}
    size = sum(f.images.nbytes + f.cuts.nbytes for f in facesets.values())
    device = next(iter(sharding.device_set))
    limit = (device.memory_stats() or {}).get("bytes_limit")
    fits = limit is None or size <= DEVICE_SHARE * limit  # a CPU has no limit of its own
    counts = ", ".join(f"{len(f)} {side}" for side, f in facesets.items())
    where = "on the device" if fits else "on the host, batches are prefetched"
    log.info("facesets: %s faces, %.0f MB, %s", counts, size / 1e6, where)
    make = _from_device if fits else _from_host
    return make(facesets, keys, batch_size, sharding, steps)


def _from_device(facesets, keys, batch_size, sharding, steps=1) -> Callable[[int], Batch]:
    draw_own = _draw_own(batch_size, sharding.mesh.devices.size, steps)
    copies = NamedSharding(sharding.mesh, PartitionSpec())
    stores = {
        side: jax.device_put((faceset.images, faceset.cuts), copies)
        for side, faceset in facesets.items()
    }
    keys = jax.device_put(keys, copies)

    @partial(jax.jit, out_shardings=sharding)
    def gather(stores, keys, step):
        batch = {}
        for side, store in stores.items():
            chosen = draw_own(keys[side], step, len(store[0]))
            batch[side] = jax.tree.map(lambda a: a[chosen], store)  # noqa: B023
        return batch

    return lambda step: gather(stores, keys, jax.device_put(np.int32(step), copies))


def _from_host(facesets, keys, batch_size, sharding, steps=1) -> Callable[[int], Batch]:
    cpu = jax.local_devices(backend="cpu")[0]
    keys = jax.device_put(keys, cpu)
    chooser = jax.jit(_draw_own(batch_size, sharding.mesh.devices.size, steps), static_argnums=2)
    pool = ThreadPoolExecutor(1, "batches")
    waiting: dict[int, Future] = {}

    def send(step: int) -> Batch:
        batch = {}
        for side, faceset in facesets.items():
            number = jax.device_put(np.int32(step), cpu)
            chosen = np.asarray(chooser(keys[side], number, len(faceset)))
            batch[side] = (faceset.images[chosen], faceset.cuts[chosen])
        return jax.device_put(batch, sharding)

    def batch(step: int) -> Batch:
        for number in range(step, step + 1 + AHEAD * steps, steps):
            if number not in waiting:
                waiting[number] = pool.submit(send, number)
        return waiting.pop(step).result()

    return batch


def _draw_own(batch_size: int, devices: int, steps: int):
    def draw_own(key: jax.Array, step: jax.Array, count: int) -> jax.Array:
        numbers = step + jnp.arange(steps)
        return own_part(jax.vmap(lambda n: draw(key, n, count, batch_size))(numbers), devices)

    return draw_own
