"""The 68 points of detected faces, by dlib."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import dlib
import numpy as np

from odfs_jax.extraction.detection import Detection
from odfs_jax.extraction.upright import axis_of, axis_of_points, centred_crop
from odfs_jax.extraction.weights import dlib68_path
from odfs_jax.faces import align
from odfs_jax.faces.align import INNER
from odfs_jax.faces.crop import cut

# dlib's predictor starts from a box and was trained on boxes of dlib's own detector, so what is
# known of a face is turned into a square of that kind. The constants gave the least error over all
# frames of the synthetic actors (docs/accuracy.md).
BOX_PER_FACE = 1.65  # side of the box / distance from the eyes' to the mouth's centre
AGAINST_NOSE = 0.25  # share by which the box moves back from the nose of a turned head
# The same for the eyes and mouth of landmarks, when they are looked for a second time.
BOX_PER_LANDMARKS = 2.4
# MTCNN misplaces the mouth of a head in profile, and from a wrong box the predictor goes astray. So
# it starts from boxes of several sizes, eyes kept in place, and the two results nearest to each
# other are averaged: good starts end up together, bad ones do not.
BOX_SIZES = (1.15, 1.0, 0.87, 0.75)
# A box alone tells neither where the nose points nor how the head is tilted. So there the starts go
# over both, the five results nearest to each other are averaged, and the predictor starts once more
# from those.
BOX_SHIFTS = (-0.2, -0.1, 0.0, 0.1, 0.2)  # sides of the box, along the eyes
BOX_TILTS = (-15, 0, 15)  # degrees
TILTED_SIZES = (0.9, 1.1)
BELOW = 0.15  # sides by which the predictor's box lies below the given one's middle
CROP = 300  # pixels of the upright square that dlib sees
BOX = 160  # pixels of the box in its middle


@dataclass(frozen=True)
class Settings:
    """Nothing can be set; the constants above are measured."""


class Dlib68:
    """dlib's 68-point shape predictor on an upright crop of fixed size.

    Source: Kazemi and Sullivan, "One millisecond face alignment with an ensemble of regression
    trees", CVPR 2014.
    """

    name = "dlib68"

    def __init__(self, settings: Settings) -> None:
        self._predict = dlib.shape_predictor(str(dlib68_path()))

    def __call__(
        self, images: Sequence[np.ndarray], faces: Sequence[Detection]
    ) -> list[np.ndarray]:
        return [self._points(image, face) for image, face in zip(images, faces, strict=True)]

    def _points(self, image: np.ndarray, face: Detection) -> np.ndarray:
        try:
            if face.points is None and face.landmarks is None:
                face = replace(face, landmarks=self._from_box_alone(image, face))
            matrix, eyes = start(face)
        except ValueError:
            return np.full((68, 2), np.nan)
        crop, middle = cut(image, matrix, CROP), (CROP - 1) / 2
        boxes = [(eyes + (middle - eyes) * size, BOX * size) for size in BOX_SIZES]
        shapes = np.stack([self._from_box(crop, *box) for box in boxes])
        return align.transform(align.invert(matrix), agreed(shapes, 2))

    def _from_box_alone(self, image: np.ndarray, face: Detection) -> np.ndarray:
        centre = (face.box[:2] + face.box[2:]).astype(np.float64) / 2
        side, axis = float((face.box[2:] - face.box[:2]).mean()), axis_of(face)
        if not side > 1:
            raise ValueError("a box without extent")
        shapes = []
        for tilt in np.radians(BOX_TILTS):
            tilted = np.cos(tilt) * axis + np.sin(tilt) * np.array([-axis[1], axis[0]])
            matrix = centred_crop(centre, tilted, BOX / side, CROP)
            crop, back = cut(image, matrix, CROP), align.invert(matrix)
            for shift in BOX_SHIFTS:
                middle = (CROP - 1) / 2 + np.array([shift, BELOW]) * BOX
                for size in TILTED_SIZES:
                    shapes.append(align.transform(back, self._from_box(crop, middle, BOX * size)))
        return agreed(np.stack(shapes), 5)

    def _from_box(self, crop: np.ndarray, centre: np.ndarray, side: float) -> np.ndarray:
        """Points [68,2] in `crop` from the box of `side` pixels about `centre`."""
        low = np.rint(centre - (side - 1) / 2).astype(int)
        high = low + round(side) - 1
        shape = self._predict(crop, dlib.rectangle(*low.tolist(), *high.tolist()))
        return np.array([(p.x, p.y) for p in shape.parts()], np.float64)


def agreed(shapes: np.ndarray, count: int) -> np.ndarray:
    """The mean [68,2] of the `count` of `shapes` [k,68,2] that lie nearest to one of them."""
    distance = np.linalg.norm(shapes[:, None] - shapes[None], axis=-1)[..., INNER].mean(axis=-1)
    nearest = np.argsort(distance, axis=1)[:, :count]  # the shape itself among them
    spread = np.take_along_axis(distance, nearest, axis=1).sum(axis=1)
    return shapes[nearest[spread.argmin()]].mean(axis=0)


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
    centre = five.mean(axis=0) - AGAINST_NOSE * nose_offset * axis
    per_face = BOX_PER_LANDMARKS if known else BOX_PER_FACE
    matrix = centred_crop(centre, axis, BOX / (per_face * np.linalg.norm(mouth - eyes)), CROP)
    return matrix, align.transform(matrix, eyes)


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """Eyes, tip of the nose and corners of the mouth [5,2] of `landmarks` [68,2]."""
    eyes = landmarks[36:42].mean(axis=0), landmarks[42:48].mean(axis=0)
    return np.stack([*eyes, landmarks[30], landmarks[48], landmarks[54]])
