"""A faceset in memory: every aligned face of a person, ready to be put on the device."""

import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from odfs_jax.data.aligned_png import FaceData, read_face, read_image_and_face
from odfs_jax.data.parallel import READING, read_files
from odfs_jax.data.stored_masks import stored_mask
from odfs_jax.data.workspace import aligned_files
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.faces import crop
from odfs_jax.faces.affine import invert, transform
from odfs_jax.faces.align import alignment_matrix, frontal_eyes
from odfs_jax.faces.hull import eyes_mouth_mask, face_mask
from odfs_jax.faces.spec import FaceSpec
from odfs_jax.faces.types import FaceType

log = logging.getLogger(__name__)

OVERSAMPLING = 2  # stored pixels for a model pixel: fine enough to resample, coarse enough to fit
MASKS = {"mask": face_mask, "eyes_mouth": eyes_mouth_mask}  # (landmarks, height, width) -> uint8


class OnDisk:
    """Stored faces as `Faceset.images`, each read from its file whenever it is taken."""

    dtype = np.dtype(np.uint8)

    def __init__(
        self, files: Sequence[Path], load: Callable[[Path], np.ndarray], shape: tuple[int, int, int]
    ) -> None:
        """`load` reads a face of `shape` [S, S, 3 + M]. It may raise what reading a file does."""
        self.shape = (len(files), *shape)
        self.nbytes = math.prod(self.shape)
        self._files, self._load = files, load
        self._pool = ThreadPoolExecutor(thread_name_prefix="faces")

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, chosen: np.ndarray) -> np.ndarray:
        """The faces of the numbers `chosen` [...], which are read at once: [..., S, S, 3 + M]."""
        files = [self._files[number] for number in np.ravel(chosen)]
        faces = np.stack(list(self._pool.map(self._read, files)))
        return faces.reshape(*np.shape(chosen), *self.shape[1:])

    def part(self, chosen: np.ndarray) -> "OnDisk":
        """The faces of the numbers `chosen` [n]; none is read."""
        return OnDisk([self._files[number] for number in chosen], self._load, self.shape[1:])

    def _read(self, path: Path) -> np.ndarray:
        with READING.scope():
            return self._load(path)


@dataclass(frozen=True)
class Faceset:
    """Faces on the host."""

    images: np.ndarray | OnDisk  # uint8 [N, S, S, 3 + M]: RGB, then `masks`, 0 to 255
    store_from_model: np.ndarray  # float32 [N, 2, 3]: pixels of `input_spec` to those of `images`
    yaws: np.ndarray  # float32 [N], degrees, > 0: towards the picture's right
    input_spec: FaceSpec  # how the network takes the faces in
    masks: tuple[str, ...] = ("mask",)  # the names of the M masks, keys of MASKS
    ranks: np.ndarray | None = None  # int [N]: the place of each face in time; None: not known
    landmarkers: frozenset[str] = frozenset()  # what found the points of the faces

    def __len__(self) -> int:
        return len(self.images)

    def part(self, chosen: np.ndarray) -> "Faceset":
        """The faces of the numbers `chosen` [n], in that order."""
        images = (
            self.images.part(chosen) if isinstance(self.images, OnDisk) else self.images[chosen]
        )
        ranks = None if self.ranks is None else self.ranks[chosen]
        matrices, yaws = self.store_from_model[chosen], self.yaws[chosen]
        return replace(self, images=images, store_from_model=matrices, yaws=yaws, ranks=ranks)


def load_faceset(
    folder: Path,
    side: str,
    input_spec: FaceSpec,
    target_specs: Collection[FaceSpec] = (),
    masks: Sequence[str] = ("mask",),
    *,
    brows: bool = False,
    limit: float = math.inf,
) -> Faceset:
    """Reads the aligned faces of `side` for a network that takes them in as `input_spec`.

    They are stored as finely as `input_spec` and `target_specs`, what the network gives back of
    them, need. `masks` are keys of MASKS, each a channel after RGB. "mask" is the mask that a file
    holds, where it holds one, in place of the hull; with `brows` the hull reaches over the brows
    (`hull.face_mask`).

    Faces of more than `limit` bytes are not kept: see `OnDisk`.

    A file that cannot be used is named, skipped and counted. Raises UserError when none is left,
    or when the model needs a larger face type than the files show.
    """
    files = aligned_files(folder, side)
    load = partial(_load, views=(input_spec, *target_specs), masks=masks, brows=brows)
    kept = 0

    def load_within(path: Path) -> tuple[np.ndarray | None, tuple, np.ndarray, FaceData]:
        nonlocal kept
        image, matrix, face = load(path)
        kept += image.nbytes  # threads may miss each other's: it need not be exact
        return image if kept <= limit else None, image.shape, matrix, face

    read, bad = read_files(files, load_within, f"reading {side} faces")
    for error in bad:
        log.warning("skipped %s", error)
    if not read:
        raise UserError(f"{folder}: none of the {len(bad)} PNG files is a usable aligned face")
    if bad:
        log.warning("%s: %d of %d files skipped", folder, len(bad), len(files))
    usable, loaded = zip(*read, strict=True)
    pictures, shapes, matrices, faces = zip(*loaded, strict=True)
    size = max(shape[0] for shape in shapes)
    pairs = zip(matrices, shapes, strict=True)
    matrices = np.stack([_rescaled(matrix, shape[0], size) for matrix, shape in pairs])
    if len(read) * size**2 * shapes[0][2] > limit or any(p is None for p in pictures):
        shape = (size, size, shapes[0][2])
        images = OnDisk(usable, lambda path: _resized(load(path)[0], size), shape)
    else:
        images = np.stack([_resized(picture, size) for picture in pictures])
    yaws = np.array([face.pose.yaw for face in faces], np.float32)
    times = [(face.source.file, face.source.frame) for face in faces]
    ranks = np.argsort(sorted(range(len(times)), key=times.__getitem__))
    landmarkers = frozenset(face.landmarker for face in faces)
    return Faceset(images, matrices, yaws, input_spec, tuple(masks), ranks, landmarkers)


def warn_unless_alike(landmarkers: Mapping[str, Collection[str]], cure: str) -> None:
    """Logs that faces do not lie alike where no landmarker found the points of all of them.

    `landmarkers` are the names of those that found them, by whose faces they are; `cure` is what
    the user can do.
    """
    if frozenset.intersection(*map(frozenset, landmarkers.values())):
        return
    found = (f"{whose}'s by {' and '.join(sorted(by))}" for whose, by in landmarkers.items())
    log.warning("points were found %s: faces do not lie alike; %s", ", ".join(found), cure)


def read_eyes(folder: Path, side: str, face_type: FaceType) -> np.ndarray:
    """`frontal_eyes` [12, 2] of the aligned faces of `side`, from what the files carry.

    Files that cannot be used are left out without a word, for `load_faceset` names them. Raises
    UserError when none is left.
    """
    landmarks, yaws = [], []
    for path in aligned_files(folder, side):
        try:
            face = read_face(path)
            alignment_matrix(face.landmarks, face_type, 1)
        except (BadFileError, ValueError):
            continue
        landmarks.append(face.landmarks)
        yaws.append(face.pose.yaw)
    if not yaws:
        raise UserError(f"{folder}: no usable aligned face")
    return frontal_eyes(landmarks, yaws, face_type)


def stored_size(face: FaceData, views: Collection[FaceSpec]) -> int:
    """Side in pixels at which `face` is kept: OVERSAMPLING times the finest view; not enlarged."""
    finest = max(view.face_side for view in views)
    return min(face.size, round(OVERSAMPLING * finest / (1 - 2 * face.face_type.padding)))


def _load(
    path: Path, views: tuple[FaceSpec, ...], masks: Sequence[str], brows: bool
) -> tuple[np.ndarray, np.ndarray, FaceData]:
    """(image uint8 [S, S, 3 + M], store_from_model [2, 3] of the first view, data) of one file."""
    image, face = read_image_and_face(path)
    needed = max((view.face_type for view in views), key=lambda face_type: face_type.padding)
    if not face.face_type.contains(needed):
        raise UserError(
            f"{path}: a {face.face_type} face, the model needs {needed}; "
            f"extract again with face_type={needed}, or train with model.face_type={face.face_type}"
        )
    try:
        stored = stored_mask(face)
        if stored is not None:
            image = np.dstack([image, stored])
        if not face.face_type.turns:
            image, face = _turned(image, face, needed, views)
        model_from_image = alignment_matrix(face.landmarks, views[0].face_type, views[0].resolution)
    except ValueError as error:
        raise BadFileError(path, str(error)) from error
    draw = MASKS | {"mask": partial(face_mask, brows=brows)}
    if stored is not None:
        draw["mask"] = lambda *_: image[..., 3]
    areas = [draw[mask](face.landmarks, face.size, face.size) for mask in masks]
    layers = np.concatenate([image[..., :3], np.stack(areas, axis=-1)], axis=-1)
    size = stored_size(face, views)
    matrix = _rescaled(invert(model_from_image), layers.shape[0], size)
    return _resized(layers, size), matrix, face


def _turned(
    image: np.ndarray, face: FaceData, face_type: FaceType, views: Collection[FaceSpec]
) -> tuple[np.ndarray, FaceData]:
    """The face cropped as `face_type`, which turns with the head, no finer than it is kept."""
    unit = alignment_matrix(face.landmarks, face_type, 1)
    size = max(1, round(1 / math.sqrt(np.linalg.det(unit[:, :2]))))  # pixels that there are
    size = stored_size(replace(face, face_type=face_type, size=size), views)
    matrix = alignment_matrix(face.landmarks, face_type, size)
    landmarks = transform(matrix, face.landmarks)
    changed = replace(face, face_type=face_type, size=size, landmarks=landmarks)
    return crop.crop_face(image, matrix, size), changed


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    """The picture [S, S, C] at `size` pixels."""
    old = image.shape[0]
    if old == size:
        return image
    method = cv2.INTER_AREA if size < old else cv2.INTER_LINEAR
    layers = [  # one by one, for OpenCV averages four channels at the most
        cv2.resize(layer, (size, size), interpolation=method) for layer in np.moveaxis(image, -1, 0)
    ]
    return np.stack(layers, axis=-1)


def _rescaled(store_from_model: np.ndarray, old: int, size: int) -> np.ndarray:
    """The matrix to the pixels of a picture that was resized from `old` to `size` pixels."""
    if old == size:
        return store_from_model.astype(np.float32)
    factor = size / old
    matrix = store_from_model * factor
    matrix[:, 2] += (factor - 1) / 2  # resizing keeps the picture's edges, not its pixel centers
    return matrix.astype(np.float32)
