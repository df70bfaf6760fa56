"""`debug=true`: what a step shows the network and what it must give back, as pictures."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from odfs_jax.data import atomic, augment
from odfs_jax.nets.base import SwapNet
from odfs_jax.training.preview import grid
from odfs_jax.training.state import TrainState
from odfs_jax.training.step import Batch, samples

ROWS = 8  # faces of each person
QUALITY = 92  # of the JPEG, per cent
FOLDER = "debug"  # in the model's


def make_debug(
    folder: Path, net: SwapNet, settings: Mapping[str, Any]
) -> Callable[[int, TrainState, Batch], None]:
    """debug(number, state, batch) writes `<folder>/debug/<number>.jpg`.

    It has the first faces of `batch` just as the step from `state` draws them: for src and for dst
    the warped face that the network sees, then the face and the mask of each of its targets, and
    eyes and mouth where the loss counts them.
    `settings` is an `AugmentConfig`. It waits for the device, which a run otherwise does not.
    """

    @jax.jit
    def render(key: jax.Array, step: jax.Array, batch: Batch) -> jax.Array:
        now, cells = augment.at(settings, step), []
        for number, (side, (images, cuts)) in enumerate(sorted(batch.items())):
            side_key = jax.random.fold_in(key, number)
            keys = jax.vmap(jax.random.fold_in, (None, 0))(side_key, jnp.arange(len(images)))
            seen, targets = samples(net, side, keys, images, cuts, now)
            people = [seen]
            for faces, masks in targets.values():
                people += [faces, *jnp.split(masks, masks.shape[-1], axis=-1)]
            cells = people + cells  # src first
        return grid(cells)

    def debug(number: int, state: TrainState, batch: Batch) -> None:
        device = jax.local_devices()[0]
        first = {side: tuple(_rows(part) for part in parts) for side, parts in batch.items()}
        key = jax.random.fold_in(state.key, state.step)
        picture = np.asarray(render(*jax.device_put((key, state.step, first), device)))
        options = (cv2.IMWRITE_JPEG_QUALITY, QUALITY)
        content = cv2.imencode(".jpg", picture[..., ::-1], options)[1].tobytes()
        atomic.write_bytes(folder / FOLDER / f"{number:08d}.jpg", content)

    return debug


def _rows(part: jax.Array) -> jax.Array:
    """The first rows of what the first device has first; images have 4 axes, cuts 3."""
    last = 3 if part.shape[-2:] != (2, 3) else 2
    while part.ndim > last + 1:
        part = part[0]
    return part[:ROWS]
