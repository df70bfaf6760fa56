"""The square region of a frame around a face, which is what goes to the device.

A region's size is one of `SIDES`, so that programs compile once a size, whatever the frame's size.
"""

from dataclasses import dataclass, replace

import numpy as np

from odfs_jax.faces.affine import invert, transform
from odfs_jax.faces.align import alignment_matrix
from odfs_jax.faces.types import FaceType

SIDES = tuple(int(64 * scale) for scale in (0.5, 0.75)) + tuple(
    64 * scale // 2 for power in range(7) for scale in (2 << power, 3 << power)
)  # 32 48 64 96 128 192 ... 6144 pixels
MARGIN = 2  # pixels that a bilinear read may reach beyond the square


@dataclass(frozen=True)
class Region:
    """A square of `side` pixels whose first pixel is (left, top) of the frame; may overhang it."""

    left: int
    top: int
    side: int
    model_from_region: np.ndarray  # float32 [2, 3]: region pixels to the model's face pixels
    face_side: float  # of the face square, in frame pixels
    points: np.ndarray  # float64 [68, 2]: the landmarks in the model's face pixels
    # uint8 [R, R], the model's pixels: 255 where the face is seen; None: nobody has said
    seen: np.ndarray | None = None

    def touches(self, height: int, width: int) -> bool:
        """True when some of a `height` x `width` frame lies in the region."""
        return (
            self.left < width
            and self.top < height
            and self.left + self.side > 0
            and self.top + self.side > 0
        )

    def widened(self, side: int) -> "Region":
        """The same face in a larger region of `side` pixels."""
        grow = (side - self.side) // 2
        matrix = self.model_from_region.copy()
        matrix[:, 2] -= matrix[:, :2].sum(1) * grow
        return replace(
            self,
            left=self.left - grow,
            top=self.top - grow,
            side=side,
            model_from_region=matrix,
        )


def face_region(
    landmarks: np.ndarray, face_type: FaceType, resolution: int, scale: float = 1.0
) -> Region:
    """The region of the face with `landmarks` [68, 2] in frame pixels.

    The model has the face as `face_type` at `resolution` pixels. The region holds a square that is
    `scale` times (at least 1) as large as the face square. Raises ValueError when the landmarks
    cannot be aligned, or when the face does not fit into the largest region.
    """
    model_from_frame = alignment_matrix(landmarks, face_type, resolution)
    edge = (resolution - 1) / 2 + np.array([-0.5, 0.5]) * resolution * max(scale, 1.0)
    corners = transform(
        invert(model_from_frame), np.stack(np.meshgrid(edge, edge), -1).reshape(4, 2)
    )
    low, high = corners.min(0) - MARGIN, corners.max(0) + MARGIN
    needed = (high - low).max() + 1
    side = next((side for side in SIDES if side >= needed), None)
    if side is None:
        raise ValueError(f"a face of {needed:.0f} pixels; the largest is {SIDES[-1]}")
    left, top = np.floor((low + high - side) / 2 + 0.5).astype(int)
    linear = model_from_frame[:, :2]
    shift = linear @ (left, top) + model_from_frame[:, 2]
    return Region(
        left=int(left),
        top=int(top),
        side=side,
        model_from_region=np.concatenate([linear, shift[:, None]], axis=1).astype(np.float32),
        face_side=resolution / np.sqrt(np.linalg.det(linear)),
        points=transform(model_from_frame, landmarks),
    )


def read_region(frame: np.ndarray, region: Region) -> np.ndarray:
    """The pixels [side, side, C] of `region` in `frame` [H, W, C], whose edge is repeated."""
    rows, cols = _inside(frame, region)
    before = (rows.start - region.top, cols.start - region.left)
    after = (region.top + region.side - rows.stop, region.left + region.side - cols.stop)
    padding = [(before[0], after[0]), (before[1], after[1]), (0, 0)]
    return np.pad(frame[rows, cols], padding, mode="edge")


def write_region(frame: np.ndarray, region: Region, pixels: np.ndarray) -> None:
    """Writes `pixels` [side, side, C] into `frame` [H, W, C], in place; drops what overhangs it."""
    rows, cols = _inside(frame, region)
    top, left = rows.start - region.top, cols.start - region.left
    height, width = rows.stop - rows.start, cols.stop - cols.start
    frame[rows, cols] = pixels[top : top + height, left : left + width]


def _inside(frame: np.ndarray, region: Region) -> tuple[slice, slice]:
    height, width = frame.shape[:2]
    return (
        slice(max(region.top, 0), min(region.top + region.side, height)),
        slice(max(region.left, 0), min(region.left + region.side, width)),
    )
