"""What every detector finds and which way it stands; what detectors and landmarkers keep to."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import cv2
import numpy as np

from odfs_jax.data.media.frames import Frame
from odfs_jax.faces import align
from odfs_jax.faces.align import INNER, MEAN_FACE

MAX_PIXELS = 16 << 20  # of all frames of a call; an integral image takes 12 bytes a pixel
MAX_WAITING = 32  # frames of different sizes that wait for others of their size, and
MAX_WAITING_BYTES = 1 << 29  # of their pictures


@dataclass(frozen=True)
class Detection:
    """One face of a frame; all in frame pixels.

    `box` is (left, top, right, bottom); `points` [5,2] are the eye at the picture's left, the other
    eye, nose, corners of the mouth likewise, or None where the detector has none; `score` is 0..1.
    `landmarks` [68,2] (float64) and the name of their `landmarker` are there once they are found.
    `turned` tells by how many degrees (0, 90, 180, 270) the picture had to be turned, against the
    clock, for the detector to see this face upright.
    """

    box: np.ndarray
    points: np.ndarray | None
    score: float
    landmarks: np.ndarray | None = None
    landmarker: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)  # goes into the data of the aligned PNG
    turned: int = 0

    @property
    def rect(self) -> tuple[float, float, float, float]:
        """`box` as it is written down: floats, rounded to a thousandth of a pixel."""
        left, top, right, bottom = (round(float(edge), 3) for edge in self.box)
        return left, top, right, bottom


@dataclass
class FrameBatch:
    """Frames of one size for a call of a detector.

    The first `context` of them were the last ones of an earlier batch, which their faces belong to.
    """

    frames: list[Frame]
    context: int = 0


class Detector(ABC):
    """Finds faces. `name` is written into the aligned PNG, `batch_size` frames go into a call.

    `radius` is how many frames of a clip to either side of a frame have a say in what is found in
    it; 0: each frame is looked at by itself.
    """

    name: str
    batch_size: int
    radius: int = 0

    @abstractmethod
    def __call__(self, frames: Sequence[Frame]) -> list[list[Detection]]:
        """The faces of each of at most `frames_per_call` frames of one size, the largest first."""

    def frames_per_call(self, height: int, width: int) -> int:
        """How many frames of this size a call takes: `batch_size`, fewer of very large ones."""
        return max(1, min(self.batch_size, MAX_PIXELS // (height * width)))

    def batches(self, frames: Iterable[Frame]) -> Generator[FrameBatch]:
        """`frames` in batches of one size, as a call takes them."""
        return batches_of_one_size(frames, self.frames_per_call)


class Landmarker(Protocol):
    """Finds the 68 points of faces. `name` is written into the aligned PNG."""

    name: str

    def __call__(
        self, images: Sequence[np.ndarray], faces: Sequence[Detection]
    ) -> list[np.ndarray]:
        """Points [68,2] (float64, pixels of the image) of each face, faces[i] in images[i].

        The images are uint8 RGB [H,W,3]; a picture with several faces comes several times. NaN
        where a face cannot be one: without extent, or with eyes and mouth in one place.
        """
        ...


def batches_of_one_size(
    frames: Iterable[Frame],
    frames_per_call: Callable[[int, int], int],
    ends_batch: Callable[[Sequence[Frame], int], bool] = lambda frames, most: False,
) -> Generator[FrameBatch]:
    """Batches of at most `frames_per_call(height, width)` frames, each of the `frames` in one.

    Pictures of a folder may differ in size: those of other sizes wait for more of theirs. A batch
    also ends where `ends_batch` is true of its frames and the most it may have; the next one of the
    same size then begins with its last frame as context.
    """
    waiting: dict[tuple[int, ...], FrameBatch] = {}
    for frame in frames:
        shape = frame.image.shape
        most = frames_per_call(*shape[:2])
        batch = waiting.setdefault(shape, FrameBatch([]))
        batch.frames.append(frame)
        if ends_batch(batch.frames, most):
            yield waiting.pop(shape)
            waiting[shape] = FrameBatch([frame], context=1)
        elif len(batch.frames) == most:
            yield waiting.pop(shape)
        elif len(waiting) > 1 and _is_much(waiting.values()):
            # many sizes must not fill memory
            yield waiting.pop(max(waiting, key=lambda shape: len(waiting[shape].frames)))
    yield from (batch for batch in waiting.values() if len(batch.frames) > batch.context)


def _is_much(batches: Iterable[FrameBatch]) -> bool:
    frames = [frame for batch in batches for frame in batch.frames]
    return len(frames) > MAX_WAITING or sum(f.image.nbytes for f in frames) > MAX_WAITING_BYTES


def largest_first(faces: Iterable[Detection]) -> list[Detection]:
    """`faces` by falling area of their boxes."""
    return sorted(faces, key=lambda face: float(np.prod(face.box[2:] - face.box[:2])), reverse=True)


def reduced(image: np.ndarray, max_side: int) -> tuple[np.ndarray, float]:
    """`image` (uint8 [H,W,3]) with its longer side at most `max_side` pixels, and by what scale.

    Averaged by area. Box edges and points of the result, divided by the scale, are those of
    `image`; this counts pixels from the picture's edge and is off by less than half a pixel of
    the smaller picture.
    """
    height, width, _ = image.shape
    scale = min(1.0, max_side / max(height, width))
    if scale == 1:
        return image, scale
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), scale


def axis_of_points(points: np.ndarray) -> np.ndarray:
    """Unit vector [2] from left to right of a face with five `points` [5,2], if it stood upright.

    The points are both eyes, the nose and both corners of the mouth, the left ones first. Raises
    ValueError when eyes and mouth coincide.
    """
    left, right, _, *mouth = points.astype(np.float64)
    across, down = right - left, np.mean(mouth, axis=0) - (left + right) / 2
    length, width = np.linalg.norm(down), np.linalg.norm(across)
    if min(length, width) < 1:
        raise ValueError("eyes and mouth coincide")
    # both axes vote for what is upright: a turned head tilts one of them
    axis = across / width + np.array([down[1], -down[0]]) / length
    return axis / np.linalg.norm(axis)


def axis_of(face: Detection) -> np.ndarray:
    """Unit vector [2] of the frame from the left to the right of `face` if it stood upright.

    From its landmarks if it has them, else from its five points, else from how far the picture was
    turned. Raises ValueError when the points coincide.
    """
    if face.landmarks is not None:
        axis = align.umeyama(MEAN_FACE, face.landmarks[INNER])[:, 0]
        return axis / np.linalg.norm(axis)
    if face.points is not None:
        return axis_of_points(face.points)
    angle = np.radians(face.turned)
    return np.array([np.cos(angle), np.sin(angle)])


def crop_from_frame(center: np.ndarray, axis: np.ndarray, scale: float, size: int) -> np.ndarray:
    """Matrix [2,3] that brings `center` to the middle of a square of `size` pixels.

    `axis` (a unit vector of the frame) comes to lie along the square's rows; `scale` is pixels of
    the square per pixel of the frame.
    """
    linear = scale * np.array([axis, [-axis[1], axis[0]]])
    return np.concatenate([linear, ((size - 1) / 2 - linear @ center)[:, None]], axis=1)
