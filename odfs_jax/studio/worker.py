"""A worker process for what is too heavy for the web server; it ends with the server.

Only the worker imports and uses JAX.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from omegaconf import OmegaConf

from odfs_jax.data.aligned_png import read_face
from odfs_jax.data.media import png
from odfs_jax.data.workspace import aligned_files
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.runtime.processes import spawn_context
from odfs_jax.runtime.progress import heard_by

PARENT_POLL = 1.0  # seconds
# Compiles in 80 % of the time; at level 0 it would be 60 %, but a merge take seven times as long.
COMPILE_FAST = "--xla_backend_optimization_level=1"
PREVIEW_QUALITY = 93  # of a merged frame's JPEG, per cent
CACHED_FROM = 0.1  # seconds of compiling from which on a program is kept for the next studio
MASK_BATCH = 8  # faces a call of a mask network
TINT = np.array([255, 0, 0], np.float32)  # RGB of what is new
TINTED = 0.5  # most of a pixel that the tint takes


class Worker:
    """One process that runs one task after the other; it starts with the first task.

    `hardware` has the fields of a `HardwareConfig`; `flags` are XLA's, for that process alone.
    """

    def __init__(self, hardware: Mapping[str, Any], flags: str = "") -> None:
        self._settings = (dict(hardware), flags)
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, work: Callable, *args: Any) -> Future:
        """The future result of `work(*args)`, a function of a module, in the worker process."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                1, spawn_context(), initializer=_prepare, initargs=self._settings
            )
        try:
            return self._pool.submit(work, *args)
        except RuntimeError:  # the process was killed, perhaps for lack of memory: start another
            self._pool.shutdown(wait=False)
            self._pool = None
            return self.submit(work, *args)

    def close(self) -> None:
        """Ends the process without waiting for its task."""
        if self._pool is not None:
            processes = list((self._pool._processes or {}).values())
            self._pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()


def _prepare(hardware: dict[str, Any], flags: str) -> None:
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL)
        os._exit(1)  # the server was killed

    threading.Thread(target=watch, daemon=True).start()
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    import jax

    from odfs_jax.runtime import devices

    devices.prepare(hardware)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", CACHED_FROM)


def read_poses(files: list[Path]) -> list[tuple[float, float, float, int] | None]:
    """(yaw, pitch, score, frame) of each face; None for a file that is not an aligned face."""
    found = []
    for path in files:
        try:
            face = read_face(path)
            found.append((face.pose.yaw, face.pose.pitch, face.score, face.source.frame))
        except BadFileError:
            found.append(None)
    return found


def read_points(files: list[Path]) -> list[list[float] | None]:
    """Frame, width, and x and y of eyes, nose, mouth and chin of each face, in its frame's pixels.

    None for a file that is not an aligned face.
    """
    found = []
    for path in files:
        try:
            source = read_face(path).source
        except BadFileError:
            found.append(None)
            continue
        points = source.landmarks
        parts = (points[36:48].mean(0), points[30], points[48:].mean(0), points[8])
        values = np.concatenate([[source.frame, np.ptp(points[:, 0])], *parts])
        found.append(np.round(values, 2).tolist())
    return found


def measure_doubt(model_dir: Path, step: int, files: list[Path]) -> list[tuple[float] | None]:
    """How far a network's mask is from the one of each face, 0 .. 1: see `curation.masks.doubt`.

    None for a file that is not an aligned face. The network is that in `model_dir`, of iteration
    `step`. Raises UserError.
    """
    from odfs_jax.curation.masks import doubt, find_masks

    masker, find = _masker(model_dir, step)
    with heard_by(lambda *_: None):  # the page shows how far it is
        masks, measured = find_masks(files, masker, find, MASK_BATCH), []
    for path in files:
        try:
            measured.append((doubt(path, masks[path], masker),) if path in masks else None)
        except BadFileError:
            measured.append(None)
    return measured


def network_mask(model_dir: Path, step: int, path: Path) -> bytes:
    """A gray PNG: the mask that a network finds in the face at `path` alone. Raises UserError."""
    from odfs_jax.curation.masks import find_masks

    with heard_by(lambda *_: None):
        masks = find_masks([path], *_masker(model_dir, step), MASK_BATCH)
    if path not in masks:
        raise BadFileError(path, "not an aligned face")
    return png.encode(masks[path])


@lru_cache(maxsize=1)
def _masker(model_dir: Path, _step: int) -> tuple[Any, Callable]:
    """The mask network and its jitted function; read again when there is a later step."""
    import jax

    from odfs_jax.curation.masks import load_masker

    masker, _ = load_masker(model_dir)
    return masker, jax.jit(masker.predict)


def sorted_faces(folder: Path, side: str, by: str) -> dict[str, list | None]:
    """The `names` of the faces by the sort key `by`, their `values` and `groups`; None for none.

    The names of the other PNGs come last and have neither. Raises UserError.
    """
    faces, order, bad = _sort(folder, side, by)
    return {
        "names": [path.name for path in (*faces, *(error.path for error in bad))],
        "values": None if order.values is None else np.round(order.values, 4).tolist(),
        "groups": None if order.groups is None else order.groups.tolist(),
    }


def contact_sheets(folder: Path, side: str, by: str) -> bytes:
    """A PNG with two contact sheets side by side: faces by name, and by the sort key `by`."""
    from odfs_jax.curation.sort import contact_sheet

    after, _, _ = _sort(folder, side, by)
    pictures = [contact_sheet(faces, len(faces)) for faces in (sorted(after), after)]
    height = pictures[0].shape[0]
    gap = np.full((height, 24, 3), 128, np.uint8)
    return png.encode(np.hstack([pictures[0], gap, pictures[1]]))


def render_preview(
    source: "PreviewSource",
    number: int,
    names: list[str],
    settings: dict[str, Any],
    tinted: bool = False,
) -> bytes:
    """A JPEG of frame `number` of dst with the faces in the files `names` swapped.

    `settings` are a `MergeConfig`. With `tinted` what is new is red, the more the more it covers.
    Raises UserError.
    """
    files = [path for name in names if (path := source.aligned / name).is_file()]
    merged = _previewer(source).preview(number, files, OmegaConf.create(settings))
    image = merged.image
    if tinted and merged.weights is not None:
        share = merged.weights[..., None].astype(np.float32) / 255 * TINTED
        image = np.rint(image + share * (TINT - image)).astype(np.uint8)
    options = (cv2.IMWRITE_JPEG_QUALITY, PREVIEW_QUALITY)
    return cv2.imencode(".jpg", image[..., ::-1], options)[1].tobytes()


def check_merges(source: "PreviewSource", merges: list[dict[str, Any]]) -> None:
    """Raises UserError for the first of `merges` (`MergeConfig`s) that conversion would refuse."""
    for settings in merges:
        _previewer(source).check(OmegaConf.create(settings))


@dataclass(frozen=True)
class PreviewSource:
    """The model and the clip of previews; `version` changes when either does."""

    model_dir: Path
    clip: Path
    aligned: Path
    version: str


@lru_cache(maxsize=1)
def _previewer(source: PreviewSource) -> Any:
    from odfs_jax.conversion.preview import FramePreviewer

    return FramePreviewer(source.model_dir, source.clip, source.aligned)


def _sort(folder: Path, side: str, by: str) -> tuple[list[Path], Any, list[BadFileError]]:
    from odfs_jax.curation.sort import sort_faces
    from odfs_jax.curation.sort_keys import SORT_KEYS

    faces, order, bad = sort_faces(
        aligned_files(folder, side), SORT_KEYS[by], f"reading {side} faces"
    )
    if not faces:
        raise UserError(f"{folder}: none of its {len(bad)} PNG files is an aligned face")
    return faces, order, bad
