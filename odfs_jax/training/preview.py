"""Pictures of a run: the preview, and with `debug=true` the samples that a step draws."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from odfs_jax.data import atomic
from odfs_jax.data.batches import Batch
from odfs_jax.data.faceset import Faceset
from odfs_jax.data.sampling import evenly_spread
from odfs_jax.faces.affine import jnp_invert
from odfs_jax.faces.spec import FaceSpec, to_rgb
from odfs_jax.faces.warp import crop_faces
from odfs_jax.training.objectives.base import Objective
from odfs_jax.training.step import TrainState, sample_keys

ROWS = 4  # faces of each person in the preview
SAMPLES = 5  # sets of faces, of which the preview shows one
DEBUG_ROWS = 8  # faces of each person in a debug picture
DEBUG_FOLDER = "debug"  # in the model's
QUALITY = 92  # of a debug picture's JPEG, per cent


def make_preview(
    objective: Objective, facesets: dict[str, Faceset]
) -> Callable[[dict[str, dict], int], jax.Array]:
    """preview(params, sample=0) -> uint8 RGB [ROWS * R, columns * R, 3].

    `params` are by network. Each of the SAMPLES sets (`sample` counts on from the last to the
    first) has faces from all over the facesets; `Objective.preview` says what the columns are. R is
    the largest of their sizes; smaller ones are enlarged. The call returns at once, with the
    picture still being drawn on the first device.
    """
    device = jax.local_devices()[0]
    samples = [
        jax.device_put({side: _spread(faceset, k) for side, faceset in facesets.items()}, device)
        for k in range(SAMPLES)
    ]

    @jax.jit
    def render(params: dict[str, dict], inputs: dict[str, jax.Array]) -> jax.Array:
        return grid(objective.preview(params, inputs))

    def preview(params: dict[str, dict], sample: int = 0) -> jax.Array:
        return render(jax.device_put(params, device), samples[sample % SAMPLES])

    return preview


def make_debug(folder: Path, objective: Objective) -> Callable[[int, TrainState, Batch], None]:
    """debug(number, state, batch) writes `<folder>/debug/<number>.jpg`.

    It shows the first samples of `batch` just as the step from `state` draws them: for each side
    the warped input, then for each target its face and its masks. It waits for the device, which a
    run otherwise does not.
    """

    @jax.jit
    def render(key: jax.Array, step: jax.Array, batch: Batch) -> jax.Array:
        keys = sample_keys(key, batch, dict.fromkeys(batch, 0))
        samples = objective.sample(batch, keys, step)
        columns = []
        for side in objective.sides:
            warped, targets = samples[side]
            columns.append(warped)
            for target in targets.values():
                columns += [target["face"], *(target[mask] for mask in objective.masks)]
        return grid(columns)

    def debug(number: int, state: TrainState, batch: Batch) -> None:
        device = jax.local_devices()[0]
        first = {side: _first_rows(*stored) for side, stored in batch.items()}
        key = jax.random.fold_in(state.key, state.step)
        picture = np.asarray(render(*jax.device_put((key, state.step, first), device)))
        options = (cv2.IMWRITE_JPEG_QUALITY, QUALITY)
        content = cv2.imencode(".jpg", picture[..., ::-1], options)[1].tobytes()
        atomic.write_bytes(folder / DEBUG_FOLDER / f"{number:08d}.jpg", content)

    return debug


def grid(columns: list[jax.Array]) -> jax.Array:
    """uint8 [rows * R, columns * R, 3] of pictures [rows, r, r, 1 or 3]; R is the largest r."""
    size = max(column.shape[1] for column in columns)
    shape = (len(columns[0]), size, size, 3)
    columns = [jax.image.resize(to_rgb(column), shape, "linear") for column in columns]
    grid = jnp.concatenate(jnp.concatenate(columns, axis=2), axis=0)
    return jnp.round(grid * 255).astype(jnp.uint8)


def _spread(faceset: Faceset, sample: int) -> jax.Array:
    """Inputs [ROWS, R, R, 3] of a network, not warped, from all over the faceset."""
    count = len(faceset)
    apart = max(1, round(count / (ROWS * SAMPLES)))  # faces from one sample to the next
    chosen = evenly_spread(count, ROWS) + sample * apart
    chosen %= count
    matrices, spec = faceset.store_from_model[chosen], faceset.input_spec
    finest = np.sqrt(np.linalg.det(matrices[:, :, :2])).max()  # stored pixels to one of the model's
    return _crop_inputs(faceset.images[chosen][..., :3], matrices, spec, math.ceil(finest))


@partial(jax.jit, static_argnames=("spec", "reads"))
def _crop_inputs(
    images: jax.Array, store_from_model: jax.Array, spec: FaceSpec, reads: int
) -> jax.Array:
    """Faces [N, R, R, 3] as `spec`; the matrices [N, 2, 3] map its pixels to those of `images`."""
    model_from_store = jax.vmap(jnp_invert)(store_from_model)
    return spec.to_input(crop_faces(images, model_from_store, spec.resolution, reads))


def _first_rows(images: jax.Array, matrices: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The first DEBUG_ROWS faces of the first device's first step."""
    while images.ndim > 4:  # devices, and steps where a dispatch has several
        images, matrices = images[0], matrices[0]
    return images[:DEBUG_ROWS], matrices[:DEBUG_ROWS]
