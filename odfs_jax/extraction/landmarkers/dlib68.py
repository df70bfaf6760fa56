"""The 68 points of detected faces, by dlib's shape predictor, computed on the device in batches."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from odfs_jax.extraction.detection import Detection, axis_of, axis_of_points, crop_from_frame
from odfs_jax.extraction.landmarkers.dlib_trees import read_trees
from odfs_jax.faces import affine
from odfs_jax.faces.align import INNER
from odfs_jax.faces.crop import crop_face_fast
from odfs_jax.faces.landmarks68 import five_points
from odfs_jax.nets.detectors.regression_trees import Stages, placed, refine

# dlib's predictor starts from a box and was trained on boxes of dlib's own detector, so what is
# known of a face is turned into a square of that kind. The constants gave the least error over all
# frames of the synthetic actors (docs/accuracy.md).
BOX_PER_FACE = 1.65  # side of the box / distance from the eyes' to the mouth's center
AGAINST_NOSE = 0.25  # share by which the box moves back from the nose of a turned head
# The same for the eyes and mouth of landmarks, when they are looked for a second time.
BOX_PER_LANDMARKS = 2.4
# MTCNN misplaces the mouth of a head in profile, and from a wrong box the predictor goes astray. So
# it starts from boxes of several sizes, eyes kept in place, and the two results nearest to each
# other are averaged: good starts end up together, bad ones do not.
BOX_SIZES = (1.15, 1.0, 0.87, 0.75)
# A box alone tells neither where the nose points nor how the head is tilted. So there the starts go
# over both, the results nearest to each other are averaged, and the predictor starts once more
# from those.
BOX_SHIFTS = (-0.2, -0.1, 0.0, 0.1, 0.2)  # sides of the box, along the eyes
BOX_TILTS = (-15, 0, 15)  # degrees
TILTED_SIZES = (0.9, 1.1)
TILTED_KEPT = 5  # results that are averaged
BELOW = 0.15  # sides by which the predictor's box lies below the given one's middle
CROP = 240  # pixels of the upright square that the predictor sees
BOX = 128  # pixels of the box in its middle
EARLY = 3  # stages after which only the starts go on that agree
SIZES = (1, 8, 16, 32)  # crops a call; the shapes of a call with another number are filled up


@dataclass(frozen=True)
class Dlib68Settings:
    """Nothing can be set; the constants above are measured."""


class Crop(NamedTuple):
    """An upright picture of a face, and the boxes in it that the predictor starts from."""

    face: int  # which one
    pixels: np.ndarray  # uint8 [CROP, CROP], gray
    crop_from_frame: np.ndarray  # float64 [2, 3]
    squares: np.ndarray  # float32 [M, 3]: left, top and side of each box


class Trees(NamedTuple):
    """The predictor on the device."""

    mean: jax.Array  # float32 [68, 2]
    early: Stages  # the first EARLY stages
    late: Stages


FindCrops = Callable[[int, np.ndarray, Detection], list[Crop]]  # of a face's number, frame and data
Find = Callable[[Trees, np.ndarray, np.ndarray], jax.Array]  # in pixels and squares: [N,k,68,2]


class Dlib68Landmarker:
    """dlib's 68-point shape predictor. Several threads may call it."""

    name = "dlib68"

    def __init__(self, settings: Dlib68Settings) -> None:
        mean, stages = read_trees()
        early, late = Stages(*(a[:EARLY] for a in stages)), Stages(*(a[EARLY:] for a in stages))
        self.trees = jax.device_put(Trees(mean, early, late))

    def __call__(
        self, images: Sequence[np.ndarray], faces: Sequence[Detection]
    ) -> list[np.ndarray]:
        faces = list(faces)
        for face, shapes in self._shapes(all_starts, tilted_crops, images, faces):
            best = np.asarray(agreeing(shapes.astype(np.float32), TILTED_KEPT))
            faces[face] = replace(faces[face], landmarks=shapes[best].mean(axis=0))
        points = [np.full((68, 2), np.nan) for _ in faces]
        for face, shapes in self._shapes(two_that_agree, upright_crops, images, faces):
            points[face] = shapes.mean(axis=0)
        return points

    def _shapes(
        self,
        find: Find,
        find_crops: FindCrops,
        images: Sequence[np.ndarray],
        faces: Sequence[Detection],
    ) -> Iterator[tuple[int, np.ndarray]]:
        """(its number, [k,68,2] that `find` gives, in pixels of its image) of each face cut out."""
        pairs = zip(images, faces, strict=True)
        crops = [crop for i, pair in enumerate(pairs) for crop in find_crops(i, *pair)]
        running, done = [], 0
        while done < len(crops):
            size = next((size for size in SIZES if size >= len(crops) - done), SIZES[-1])
            batch = crops[done : done + size]
            filled = batch + batch[-1:] * (size - len(batch))
            pixels = np.stack([crop.pixels for crop in filled])
            squares = np.stack([crop.squares for crop in filled])
            running.append((find(self.trees, pixels, squares), len(batch)))
            done += len(batch)
        found = [shapes for part, count in running for shapes in np.asarray(part)[:count]]
        for face, own in groupby(zip(crops, found, strict=True), lambda pair: pair[0].face):
            yield (
                face,
                np.concatenate(
                    [affine.transform(affine.invert(c.crop_from_frame), s) for c, s in own]
                ),
            )


@jax.jit
def all_starts(trees: Trees, pictures: jax.Array, squares: jax.Array) -> jax.Array:
    """Refined points float32 [N,M,68,2], in pixels, from every start.

    `pictures` are uint8 [N,H,W], `squares` float32 [N,M,3] (left, top, side): the starts in each.
    """
    shapes = _refined(trees.early, trees.mean, None, pictures, squares)
    return _in_pixels(_refined(trees.late, trees.mean, shapes, pictures, squares), squares)


@jax.jit
def two_that_agree(trees: Trees, pictures: jax.Array, squares: jax.Array) -> jax.Array:
    """Refined points float32 [N,2,68,2], in pixels, from two starts of each picture.

    They are the two whose points lie nearest to each other after the early stages. `pictures` are
    uint8 [N,H,W], `squares` float32 [N,M,3] (left, top, side): the starts in each.
    """
    shapes = _refined(trees.early, trees.mean, None, pictures, squares)
    best = jax.vmap(lambda own: agreeing(own, 2))(_in_pixels(shapes, squares))
    count, starts, _ = squares.shape
    first = starts * jnp.arange(count, dtype=best.dtype)[:, None]
    squares = jnp.take_along_axis(squares, best[..., None], axis=1)
    shapes = shapes[..., (first + best).reshape(-1)]
    return _in_pixels(_refined(trees.late, trees.mean, shapes, pictures, squares), squares)


def _refined(
    stages: Stages,
    mean: jax.Array,
    shapes: jax.Array | None,
    pictures: jax.Array,
    squares: jax.Array,
) -> jax.Array:
    """`shapes` [68,2,N*M], None: the mean one, after the `stages`."""
    flat = squares.reshape(-1, 3).T
    if shapes is None:
        shapes = jnp.broadcast_to(mean[..., None], (*mean.shape, flat.shape[-1]))
    return refine(stages, mean, shapes, flat, pictures)


def _in_pixels(shapes: jax.Array, squares: jax.Array) -> jax.Array:
    """`shapes` [68,2,N*M] in pixels of their pictures: [N,M,68,2]."""
    points = placed(shapes, squares.reshape(-1, 3).T)
    return points.reshape(*squares.shape[:2], *points.shape[1:])


def agreeing(shapes: jax.Array, count: int) -> jax.Array:
    """Which `count` of `shapes` [k,68,2] lie nearest to one of them, that one first."""
    away = shapes[:, None, INNER] - shapes[None, :, INNER]
    distance = jnp.sqrt((away**2).sum(axis=-1)).mean(axis=-1)
    nearest = jnp.argsort(distance, axis=1)[:, :count]  # the shape itself among them
    spread = jnp.take_along_axis(distance, nearest, axis=1).sum(axis=1)
    return nearest[jnp.argmin(spread)]


def upright_crops(number: int, image: np.ndarray, face: Detection) -> list[Crop]:
    """One of a face whose points or landmarks are known; none where eyes and mouth coincide."""
    if face.points is None and face.landmarks is None:
        return []
    try:
        matrix, eyes = start(face)
    except ValueError:
        return []
    middle = (CROP - 1) / 2
    squares = [_square(eyes + (middle - eyes) * size, BOX * size) for size in BOX_SIZES]
    return [Crop(number, _gray(image, matrix), matrix, np.stack(squares))]


def tilted_crops(number: int, image: np.ndarray, face: Detection) -> list[Crop]:
    """One for each of BOX_TILTS of a face of which only a box is known, if it has an extent."""
    side = float((face.box[2:] - face.box[:2]).mean())
    if face.points is not None or face.landmarks is not None or not side > 1:
        return []
    center, axis = (face.box[:2] + face.box[2:]).astype(np.float64) / 2, axis_of(face)
    middles = [(CROP - 1) / 2 + np.array([shift, BELOW]) * BOX for shift in BOX_SHIFTS]
    squares = np.stack([_square(m, BOX * size) for m in middles for size in TILTED_SIZES])
    crops = []
    for tilt in np.radians(BOX_TILTS):
        tilted = np.cos(tilt) * axis + np.sin(tilt) * np.array([-axis[1], axis[0]])
        matrix = crop_from_frame(center, tilted, BOX / side, CROP)
        crops.append(Crop(number, _gray(image, matrix), matrix, squares))
    return crops


def _square(center: np.ndarray, side: float) -> np.ndarray:
    """float32 (left, top, side) of a box; dlib's reach from its first to its last pixel."""
    return np.array([*(center - (side - 1) / 2), side - 1], np.float32)


def _gray(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The upright square uint8 [CROP, CROP] in dlib's gray, the mean of the three colors."""
    return cv2.transform(crop_face_fast(image, matrix, CROP), np.full((1, 3), 1 / 3))


def start(face: Detection) -> tuple[np.ndarray, np.ndarray]:
    """Matrix [2,3] from the frame to the upright crop around `face`, and the eyes [2] in the crop.

    From landmarks if it has them, else from its five points. Raises ValueError when eyes and mouth
    coincide.
    """
    known = face.landmarks is not None
    five = five_points(face.landmarks) if known else face.points.astype(np.float64)
    axis = axis_of_points(five)
    left, right, nose, *mouth = five
    eyes, mouth = (left + right) / 2, np.mean(mouth, axis=0)
    nose_offset = (nose - (eyes + mouth) / 2) @ axis
    center = five.mean(axis=0) - AGAINST_NOSE * nose_offset * axis
    per_face = BOX_PER_LANDMARKS if known else BOX_PER_FACE
    matrix = crop_from_frame(center, axis, BOX / (per_face * np.linalg.norm(mouth - eyes)), CROP)
    return matrix, affine.transform(matrix, eyes)
