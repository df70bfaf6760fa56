"""`python scripts/masks.py data=dst action=apply`, or remove, fetch, export.

The network's masks go into the aligned PNGs, one file after the other, each replaced as a whole: a
run that was stopped goes on where it ended. Along a track, each pixel is the median of the frame,
the one before and the one after. A flicker of one frame is gone with that, and an edge that moves
stays where it is.
"""

import logging
import math
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import jax
import numpy as np
from omegaconf import DictConfig

from odfs_jax.data import atomic
from odfs_jax.data.aligned_png import FaceData, read_face, read_image_and_face, rewrite_data
from odfs_jax.data.lock import locked, require_empty
from odfs_jax.data.media import png
from odfs_jax.data.media.frame_io import OUTPUTS, open_frames, open_mask_writer
from odfs_jax.data.parallel import read_files
from odfs_jax.data.stored_masks import BY_HAND, encode_mask, is_drawn, stored_mask
from odfs_jax.data.workspace import aligned_files, find_input
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.faces.align import alignment_matrix
from odfs_jax.faces.crop import crop_face
from odfs_jax.faces.hull import face_mask
from odfs_jax.faces.types import FaceType
from odfs_jax.inference import Masker, make_masker
from odfs_jax.runtime import devices
from odfs_jax.runtime.output import say
from odfs_jax.runtime.progress import progress
from odfs_jax.saved_model import find_model, load_model

log = logging.getLogger(__name__)

SIZE = 256  # of a stored mask, pixels a side; a smaller picture has its own
SAME = 0.5  # of a face's width: how far its middle may move from one frame to the next
FAINT = 8  # values below are 0: less than what can be seen of a blend
BLOCK = 256  # faces whose masks are found, then written: what a stopped run loses at most
MAX_FRAME = 1 << 28  # pixels of a frame that a mask is exported for


def masks(config: DictConfig) -> None:
    """Applies, removes, fetches or exports the masks of a `MasksConfig`. Raises UserError."""
    if config.action not in ACTIONS:
        raise UserError(f"action={config.action}: expected one of {', '.join(ACTIONS)}")
    if config.batch_size < 1:
        raise UserError(f"batch_size={config.batch_size}: expected at least 1")
    if config.folder is not None and len(config.data.sides) > 1:
        raise UserError(f"folder={config.folder}: one folder for one side; choose data=src or dst")
    for side in config.data.sides:
        folder = Path(config.data[side].aligned)
        ACTIONS[config.action](folder, aligned_files(folder, side), config)


# ---- apply ----


def _apply(folder: Path, files: list[Path], config: DictConfig) -> None:
    devices.prepare(config.hardware)
    model_dir = find_model(Path(config.workspace) / "models", config.mask_model, masks=True)
    apply_network(folder, files, model_dir, config.batch_size, config.precision)


def apply_network(
    folder: Path,
    files: list[Path],
    model_dir: Path,
    batch_size: int = 16,
    precision: str = "float32",
) -> None:
    """Writes what the mask network in `model_dir` sees into the aligned PNGs `files` of `folder`.

    Holds the lock of `folder`, and prints how many masks were written. Raises UserError.
    """
    masker, maker = load_masker(model_dir, precision)
    start = time.monotonic()
    with locked(folder, "applying masks"):
        written, there, bad = apply(files, masker, maker, batch_size)
    for error in bad:
        log.warning("skipped: %s", error)
    kept = f", {there} were there already" if there else ""
    seconds = time.monotonic() - start
    say(f"{folder}: {written} masks written in {seconds:.0f} s{kept}, {len(bad)} files skipped")


def load_masker(model_dir: Path, precision: str = "float32") -> tuple[Masker, str]:
    """The mask network in `model_dir`, and its name as the maker of masks. Raises UserError."""
    model = load_model(model_dir)
    masker = make_masker(model.config, model.params, precision)
    return masker, f"{model_dir.stem if model_dir.is_file() else model_dir.name} {model.step}"


def apply(
    files: list[Path], masker: Masker, maker: str, batch_size: int
) -> tuple[int, int, list[BadFileError]]:
    """Writes the masks that `masker` finds into the aligned PNGs `files`.

    A face whose mask was made by `maker`, or painted by hand, keeps it. Polygons stay, and still
    count before the mask. Returns (how many were written, how many were there, the errors of files
    that cannot be used).
    """
    found, bad = read_files(files, read_face, "reading faces")
    faces = dict(found)
    near = neighbors(faces)
    todo = [path for path in near if faces[path].mask_maker not in (maker, BY_HAND)]
    find = jax.jit(masker.predict)
    written, known = 0, {}
    for start in progress(range(0, len(todo), BLOCK), -(-len(todo) // BLOCK), "masks", "block"):
        block = todo[start : start + BLOCK]
        needed = list(dict.fromkeys(path for own in block for path in near[own]))
        known = {path: known[path] for path in needed if path in known}
        pictures, unread = read_files(
            [path for path in needed if path not in known],
            partial(_picture, masker=masker),
            "reading pictures",
        )
        bad += [error for error in unread if error not in bad]
        known |= _find(pictures, masker, find, batch_size)
        for own in block:
            if own in known:
                area = np.median([known[p] for p in near[own] if p in known], axis=0)
                mask = _on_picture(area, own, faces[own], masker)
                changed = replace(faces[own], mask=encode_mask(mask), mask_maker=maker)
                rewrite_data(own, changed)
                written += 1
    return written, len(faces) - len(todo), bad


def find_masks(
    files: list[Path], masker: Masker, find: Callable, batch_size: int
) -> dict[Path, np.ndarray]:
    """uint8 [S, S] for each of `files`: the mask that `masker` finds in that picture alone.

    `find` is its `predict`, jitted. Files that are no aligned faces are left out.
    """
    pictures, _ = read_files(files, partial(_picture, masker=masker), "reading pictures")
    return {
        path: _on_picture(area, path, read_face(path), masker)
        for path, area in _find(pictures, masker, find, batch_size).items()
    }


def doubt(path: Path, found: np.ndarray, masker: Masker) -> float:
    """How far `found`, a mask of `find_masks`, is from that of the face at `path`, 0 .. 1.

    1 less the intersection over union of both, within the network's view; the face's own is what
    is stored, or else the hull. Raises BadFileError.
    """
    face = read_face(path)
    try:
        own = stored_mask(face)
    except ValueError as error:
        raise BadFileError(path, str(error)) from error
    if own is None:
        own = face_mask(face.landmarks, *face.shape, brows=True)
    all_of_it = np.ones((masker.spec.resolution, masker.spec.resolution), np.float32)
    view = _on_picture(all_of_it, path, face, masker)
    own = np.minimum(cv2.resize(own, view.shape[::-1], interpolation=cv2.INTER_AREA), view)
    both, either = np.minimum(own, found).sum(), np.maximum(own, found).sum()
    return float(1 - both / either) if either else 0.0


def neighbors(faces: Mapping[Path, FaceData]) -> dict[Path, list[Path]]:
    """For each face itself, and the same one a frame before and a frame after; in time's order.

    Where one of the two is not there, neither counts: the median of two is a blend.
    """
    by_frame: dict[tuple[str, int], list[Path]] = defaultdict(list)
    order = sorted(faces, key=lambda path: (faces[path].source.file, faces[path].source.frame))
    for path in order:
        by_frame[faces[path].source.file, faces[path].source.frame].append(path)

    def nearest(path: Path, step: int) -> Path | None:
        own = faces[path].source
        middle, width = own.landmarks.mean(0), np.ptp(own.landmarks[:, 0])
        apart = {
            other: np.linalg.norm(faces[other].source.landmarks.mean(0) - middle)
            for other in by_frame.get((own.file, own.frame + step), [])
        }
        best = min(apart, key=apart.__getitem__, default=None)
        return best if best is not None and apart[best] <= SAME * width else None

    near = {}
    for path in order:
        around = [nearest(path, step) for step in (-1, 1)]
        near[path] = [path] if None in around else [around[0], path, around[1]]
    return near


def _picture(path: Path, masker: Masker) -> np.ndarray:
    """uint8 [R, R, 3]: the face as the mask network takes it."""
    image, face = read_image_and_face(path)
    return crop_face(image, _model_from_image(path, face, masker), masker.spec.resolution)


def _find(
    pictures: list[tuple[Path, np.ndarray]], masker: Masker, find: Callable, batch_size: int
) -> dict[Path, np.ndarray]:
    """The masks float32 [R, R] of `pictures`, in batches of one shape."""
    found = {}
    for start in range(0, len(pictures), batch_size):
        paths, batch = zip(*pictures[start : start + batch_size], strict=True)
        full = np.stack(batch + batch[-1:] * (batch_size - len(batch)))
        areas = np.asarray(find(masker.params, full.astype(np.float32) / 255))[..., 0]
        found |= dict(zip(paths, areas, strict=False))
    return found


def _on_picture(area: np.ndarray, path: Path, face: FaceData, masker: Masker) -> np.ndarray:
    """uint8 [S, S]: the mask float [R, R] of the network's view as it lies on the aligned picture.

    It is 0 beyond the view.
    """
    size = min(SIZE, face.size)
    factor, edge = face.size / size, (face.size / size - 1) / 2
    image_from_mask = np.array([[factor, 0, edge], [0, factor, edge], [0, 0, 1]])
    model_from_mask = _model_from_image(path, face, masker) @ image_from_mask
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    mask = cv2.warpAffine(area, model_from_mask, (size, size), flags=flags)
    mask = np.rint(mask * 255).astype(np.uint8)
    return np.where(mask < FAINT, 0, mask).astype(np.uint8)


def _model_from_image(path: Path, face: FaceData, masker: Masker) -> np.ndarray:
    """The matrix [2, 3] from an aligned picture to the network's view. Raises BadFileError."""
    if face.face_type is FaceType.MARK_ONLY:
        raise BadFileError(path, "a whole frame (mark_only), not an aligned face")
    try:
        return alignment_matrix(face.landmarks, masker.spec.face_type, masker.spec.resolution)
    except ValueError as error:
        raise BadFileError(path, str(error)) from error


# ---- remove, fetch ----


def _remove(folder: Path, files: list[Path], config: DictConfig) -> None:
    """Takes the masks out of the PNGs; what somebody drew or painted stays."""
    removed = 0
    with locked(folder, "removing masks"):
        found, bad = read_files(files, read_face, "reading faces")
        for path, face in progress(found, len(found), "removing", "face"):
            if face.mask is not None and face.mask_maker != BY_HAND:
                rewrite_data(path, replace(face, mask=None, mask_maker=None))
                removed += 1
    for error in bad:
        log.warning("skipped: %s", error)
    say(f"{folder}: {removed} masks removed, {len(bad)} files skipped")


def _fetch(folder: Path, files: list[Path], config: DictConfig) -> None:
    """Copies the faces that somebody drew on; all of them, or none."""
    target = _target(folder, "labelled", config)
    require_empty(target)
    found, bad = read_files(files, read_face, "reading faces")
    drawn = [path for path, face in found if is_drawn(face)]
    for error in bad:
        log.warning("skipped: %s", error)
    if not drawn:
        raise UserError(f"{folder}: none of its {len(found)} faces has anything drawn on it")
    with atomic.replacing_folder(target) as temporary:
        for path in progress(drawn, len(drawn), "fetching", "face"):
            shutil.copyfile(path, temporary / path.name)
    say(f"{target}: {len(drawn)} of {len(found)} faces")


# ---- export ----


def _export(folder: Path, files: list[Path], config: DictConfig) -> None:
    """A gray picture for each frame that has faces, their masks where they lie in it; or a clip."""
    target = _target(folder, "masks", config)
    if target.suffix.lower() in OUTPUTS:
        _export_clip(target, files, config)
        return
    require_empty(target)
    found, bad = read_files(files, read_face, "reading faces")
    frames = _by_frame(found)
    clips = {file for file, _ in frames}
    with atomic.replacing_folder(target) as temporary:
        for (file, number), own in progress(sorted(frames.items()), len(frames), "export", "frame"):
            source = own[0][1].source
            plate = _plate(own, (source.height, source.width), bad)
            one_clip = source.pts is not None and len(clips) == 1
            name = f"{number:06d}" if one_clip else f"{Path(file).stem}_{number:06d}"
            (temporary / f"{name}.png").write_bytes(png.encode(plate))
    for error in bad:
        log.warning("skipped: %s", error)
    say(f"{target}: {len(frames)} pictures, {len(bad)} files skipped")


def _export_clip(target: Path, files: list[Path], config: DictConfig) -> None:
    """A gray clip with all frames of the side's clip: black where there is no face."""
    if target.exists():
        raise UserError(f"{target}: there is such a file; move it, or give another folder=")
    (side,) = config.data.sides
    clip = find_input(config.workspace, side, config.data[side])
    found, bad = read_files(files, read_face, "reading faces")
    frames, count = _by_frame(found), 0
    with open_frames(clip) as source, open_mask_writer(target, source) as writer:
        for frame in progress(source, source.count, "export"):
            own = frames.pop((frame.file, frame.index), [])
            plate = _plate(own, frame.image.shape[:2], bad)
            writer.write(replace(frame, weights=plate).mask())
            count += 1
    bad += [
        BadFileError(path, f"frame {number} of {file} is not in {clip.name}")
        for (file, number), own in frames.items()
        for path, _ in own
    ]
    for error in bad:
        log.warning("skipped: %s", error)
    say(f"{target}: {count} frames, {len(bad)} files skipped")


def _by_frame(
    found: list[tuple[Path, FaceData]],
) -> dict[tuple[str, int], list[tuple[Path, FaceData]]]:
    """The faces of each frame, by its file and number."""
    frames: dict[tuple[str, int], list[tuple[Path, FaceData]]] = defaultdict(list)
    for path, face in found:
        frames[face.source.file, face.source.frame].append((path, face))
    return frames


def _plate(
    faces: list[tuple[Path, FaceData]], shape: tuple[int, int], bad: list[BadFileError]
) -> np.ndarray:
    """uint8 of `shape`: the masks of a frame's `faces`; those that cannot be drawn go to `bad`."""
    plate = np.zeros(shape, np.uint8)
    for path, face in faces:
        try:
            mask = mask_in_frame(face)
            if mask.shape != shape:
                raise ValueError(f"a frame of {mask.shape[1]}x{mask.shape[0]} pixels")
            plate = np.maximum(plate, mask)
        except ValueError as error:
            bad.append(BadFileError(path, str(error)))
    return plate


def mask_in_frame(face: FaceData) -> np.ndarray:
    """uint8 [H, W]: the mask of `face`, or its hull, in its frame. Raises ValueError."""
    mask = stored_mask(face)
    if mask is None:
        mask = face_mask(face.landmarks, *face.shape, brows=True)
    if face.face_type is FaceType.MARK_ONLY:
        return mask
    height, width = face.source.height, face.source.width
    if height * width > MAX_FRAME:
        raise ValueError(f"a frame of {width}x{height}, more than {MAX_FRAME} pixels")
    image_from_frame = alignment_matrix(face.source.landmarks, face.face_type, face.size)
    smaller = max(1, round(math.sqrt(np.linalg.det(image_from_frame[:, :2]))))
    if smaller > 1:  # the frame is coarser: averaged first, so that edges stay smooth
        size = max(1, face.size // smaller)
        mask = cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA)
        image_from_frame = alignment_matrix(face.source.landmarks, face.face_type, size)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(mask, image_from_frame, (width, height), flags=flags)


def _target(folder: Path, what: str, config: DictConfig) -> Path:
    return Path(config.folder) if config.folder else folder.with_name(f"{folder.name}_{what}")


ACTIONS = {"apply": _apply, "remove": _remove, "fetch": _fetch, "export": _export}
