"""The faces of a step's batch, brought to the devices; `data/sampling.py` says which they are."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from odfs_jax.data.augment import mirror
from odfs_jax.data.faceset import Faceset, OnDisk
from odfs_jax.data.sampling import SAMPLINGS, Draw, Faces

log = logging.getLogger(__name__)

DEVICE_SHARE = 0.3  # of a device's memory that the facesets may take
AHEAD = 2  # batches prepared in advance when the facesets stay on the host

# side -> (images uint8 [..., S, S, 3 + M], store_from_model float32 [..., 2, 3]) as in `Faceset`
Batch = dict[str, tuple[jax.Array, jax.Array]]


def own_part(draws: jax.Array, devices: int) -> jax.Array:
    """This process's part, on its `devices`, of `draws` [steps, B]: [devices, steps, B/D].

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
    sampling: str = "uniform",
) -> Callable[[int], Batch]:
    """batch(step) -> the faces of `steps` steps from `step` on, [devices, steps, B/D, ...].

    A single step has no axis of its own. The leading axis is split by `sharding` over the devices
    of this process; D counts those of all processes. `sampling` is a key of SAMPLINGS.

    The facesets live on the devices when they fit into DEVICE_SHARE of the memory, else on the
    host or the disk, from where a thread sends batches ahead of time; the log says which.
    """
    draw = SAMPLINGS[sampling](facesets, batch_size)
    size, fits = stored_bytes(facesets, next(iter(sharding.device_set)))
    counts = ", ".join(f"{len(f)} {side}" for side, f in facesets.items())
    where = "on the device" if fits else "on the host, batches are prefetched"
    if any(isinstance(f.images, OnDisk) for f in facesets.values()):
        where = "on the disk, batches are read ahead"
    log.info("facesets: %s faces, %.0f MB, %s", counts, size / 1e6, where)
    by_faceset = {id(f): (f.images, _with_mirrored(f)) for f in facesets.values()}
    stores = {side: by_faceset[id(f)] for side, f in facesets.items()}
    make = _from_device if fits else _from_host
    return make(stores, draw, key, sharding, steps)


def stored_bytes(facesets: dict[str, Faceset], device: jax.Device) -> tuple[int, bool]:
    """(bytes of the facesets, True when they are to lie on `device`)."""
    different = {id(f): f for f in facesets.values()}.values()  # one may be that of both sides
    size = sum(f.images.nbytes + f.store_from_model.nbytes for f in different)
    if any(isinstance(f.images, OnDisk) for f in different):
        return size, False
    limit = (device.memory_stats() or {}).get("bytes_limit")
    return size, limit is None or size <= DEVICE_SHARE * limit  # a CPU has no limit of its own


def batch_shapes(
    facesets: dict[str, Faceset], batch_size: int, sharding: NamedSharding, steps: int = 1
) -> Batch:
    """The shapes and types of the batches that `make_batches` makes in a single process."""
    devices = sharding.mesh.devices.size
    lead = (
        (devices, batch_size // devices) if steps == 1 else (devices, steps, batch_size // devices)
    )

    def shape(store: np.ndarray) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*lead, *store.shape[1:]), store.dtype, sharding=sharding)

    return {side: (shape(f.images), shape(f.store_from_model)) for side, f in facesets.items()}


def _with_mirrored(faceset: Faceset) -> np.ndarray:
    """float32 [N, 2, 2, 3]: the matrix of each face as it is, and of its mirror image."""
    matrices = faceset.store_from_model
    mirror_all = jax.jit(jax.vmap(mirror, (0, None)))  # one program to compile, not eight
    mirrored = mirror_all(matrices, faceset.input_spec.resolution)
    return np.stack([matrices, np.asarray(mirrored)], axis=1)


def _take(store: tuple, faces: Faces) -> tuple:
    """(images, matrices) of `faces` out of a store, which may lie on the host or on a device."""
    (images, matrices), (chosen, mirrored) = store, faces
    return images[chosen], matrices[chosen, mirrored]


def _from_device(stores, draw, key, sharding, steps=1) -> Callable[[int], Batch]:
    draw_own = _draw_own(draw, sharding.mesh.devices.size, steps)
    copies = NamedSharding(sharding.mesh, PartitionSpec())
    sent = {id(store): jax.device_put(store, copies) for store in stores.values()}
    stores = {side: sent[id(store)] for side, store in stores.items()}
    key = jax.device_put(key, copies)

    @partial(jax.jit, out_shardings=sharding)
    def gather(stores, key, step):
        faces = draw_own(key, step)
        return {side: _take(store, faces[side]) for side, store in stores.items()}

    return lambda step: gather(stores, key, jax.device_put(np.int32(step), copies))


def _from_host(stores, draw, key, sharding, steps=1) -> Callable[[int], Batch]:
    cpu = jax.local_devices(backend="cpu")[0]
    key = jax.device_put(key, cpu)
    draw_own = jax.jit(_draw_own(draw, sharding.mesh.devices.size, steps))
    pool = ThreadPoolExecutor(1, "batches")
    waiting: dict[int, Future] = {}

    def send(step: int) -> Batch:
        faces = jax.device_get(draw_own(key, jax.device_put(np.int32(step), cpu)))
        batch = {side: _take(store, faces[side]) for side, store in stores.items()}
        return jax.device_put(batch, sharding)

    def batch(step: int) -> Batch:
        for number in range(step, step + 1 + AHEAD * steps, steps):
            if number not in waiting:
                waiting[number] = pool.submit(send, number)
        return waiting.pop(step).result()

    return batch


def _draw_own(draw: Draw, devices: int, steps: int) -> Draw:
    """`draw` of `steps` steps, this process's part of it."""

    def draw_own(key: jax.Array, step: jax.Array) -> dict[str, Faces]:
        draws = jax.vmap(draw, (None, 0))(key, step + jnp.arange(steps))
        return jax.tree.map(lambda faces: own_part(faces, devices), draws)

    return draw_own
