"""The 68 points of detected faces from MediaPipe's Face Mesh, on the device in batches.

The mesh covers the face from the hairline to the chin in space, so where a head is turned the
outline of its picture is known: it is the edge of what one sees, not of the hidden cheek. Source:
see `nets.detectors.face_mesh`; crops are placed as MediaPipe's face_landmark module places them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from odfs_jax.extraction.detection import Detection, axis_of, crop_from_frame
from odfs_jax.extraction.weights import face_mesh_variables
from odfs_jax.faces import affine
from odfs_jax.faces.crop import crop_face_fast
from odfs_jax.faces.landmarks68 import MIRROR, five_points
from odfs_jax.nets.detectors.face_mesh import INPUT, POINTS, FaceMesh

AROUND = 1.5  # side of the crop / longer side of the mesh
# The first crop is placed by the eyes and the mouth; the numbers are the median over all frames of
# the synthetic actors (docs/accuracy.md).
SIDE_PER_FACE = 2.15  # longer side of the mesh / distance from the eyes' to the mouth's center
AGAINST_NOSE = 1.9  # share by which the mesh's middle lies behind the nose of a turned head
ABOVE = 0.08  # distances by which it lies above the five points' middle
SIZES = (8, 32)  # crops a call; the last call of a few is filled up
# Points of the mesh that are those of the 68. The outline is taken from the mesh's rim at the same
# places; a brow's points are the middle between its upper and its lower edge.
OUTLINE = (127, 234, 93, 132, 58, 136, 150, 176, 152, 400, 379, 365, 288, 361, 323, 454, 356)
BROWS_ABOVE = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)
BROWS_BELOW = (46, 53, 52, 65, 55, 285, 295, 282, 283, 276)
REST = (
    168, 197, 5, 4, 75, 97, 2, 326, 305,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
)  # fmt: skip


@dataclass(frozen=True)
class FaceMeshSettings:
    """What `configs/landmarks/face_mesh.yaml` sets under `args`; the meanings stand there."""

    flip: bool


class FaceMeshLandmarker:
    """The landmarker. Several threads may call it."""

    name = "face_mesh"

    def __init__(self, settings: FaceMeshSettings) -> None:
        self.flip = settings.flip
        self.variables = jax.device_put(face_mesh_variables())

    def __call__(
        self, images: Sequence[np.ndarray], faces: Sequence[Detection]
    ) -> list[np.ndarray]:
        """Points [68,2] of each face; NaN for a face without extent."""
        crops = [first_crop(face) for face in faces]
        # The first mesh places the crop for the second, as a tracker's last frame would.
        crops = [next_crop(mesh) for (mesh,) in self._meshes(images, crops, flip=False)]
        return [
            np.mean(
                [landmarks_of(seen), *(landmarks_of(m)[list(MIRROR)] for m in mirrored)], axis=0
            )
            for seen, *mirrored in self._meshes(images, crops, self.flip)
        ]

    def _meshes(
        self, images: Sequence[np.ndarray], crops: Sequence[np.ndarray | None], flip: bool
    ) -> np.ndarray:
        """[n,1,468,2], with `flip` [n,2,468,2]: the meshes in pixels of `images`.

        The second is that of the mirrored picture, mirrored back: its points have changed sides.
        NaN where there is no crop.
        """
        placed = [i for i, crop in enumerate(crops) if crop is not None]
        pictures = [crop_face_fast(images[i], crops[i], INPUT) for i in placed]
        seen = self._in_crops(pictures + [p[:, ::-1] for p in pictures] * flip)
        views = seen.reshape(1 + flip, len(placed), POINTS, 2)
        views[1:, ..., 0] = INPUT - 1 - views[1:, ..., 0]
        found = np.full((len(crops), 1 + flip, POINTS, 2), np.nan)
        for i, meshes in zip(placed, views.swapaxes(0, 1), strict=True):
            found[i] = [affine.transform(affine.invert(crops[i]), mesh) for mesh in meshes]
        return found

    def _in_crops(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """The meshes [n,468,2] in pixels of `pictures` (uint8 RGB [192,192,3])."""
        running: list[jax.Array] = []
        done = 0
        while done < len(pictures):
            size = max((size for size in SIZES if size <= len(pictures) - done), default=SIZES[0])
            chunk = pictures[done : done + size]
            batch = np.stack([*chunk, *chunk[-1:] * (size - len(chunk))])
            running.append(find_mesh(self.variables, batch))
            done += size
        return np.concatenate([np.zeros((0, POINTS, 2)), *jax.device_get(running)])[: len(pictures)]


@jax.jit
def find_mesh(variables: dict, crops: jax.Array) -> jax.Array:
    """The meshes [N,468,2] in pixels of `crops` (uint8 [N,192,192,3], RGB)."""
    points, _ = FaceMesh().apply(variables, crops.astype(jnp.float32) / 255)
    return points[..., :2] - 0.5  # from the edge of the first pixel to its middle


def first_crop(face: Detection) -> np.ndarray | None:
    """Matrix [2,3] from the frame to the crop around `face`; None when the face has no extent.

    It is placed by the eyes and the mouth of its landmarks or its five points, else by its box, and
    upright as the face stands.
    """
    try:
        axis = axis_of(face)
    except ValueError:
        return None
    down = np.array([-axis[1], axis[0]])
    if face.landmarks is None and face.points is None:
        center, side = (face.box[:2] + face.box[2:]) / 2, float((face.box[2:] - face.box[:2]).max())
    else:
        five = face.points if face.landmarks is None else five_points(face.landmarks)
        left, right, nose, *mouth = five.astype(np.float64)
        eyes, mouth = (left + right) / 2, np.mean(mouth, axis=0)
        length = np.linalg.norm(mouth - eyes)
        behind = AGAINST_NOSE * ((nose - (eyes + mouth) / 2) @ axis)
        center = five.mean(axis=0) - behind * axis - ABOVE * length * down
        side = SIDE_PER_FACE * length
    return crop_from_frame(center, axis, INPUT / (AROUND * side), INPUT) if side > 1 else None


def next_crop(mesh: np.ndarray) -> np.ndarray | None:
    """Matrix [2,3] from the frame to the crop around a `mesh` [468,2] that was found before.

    None where its eyes coincide, or it is NaN.
    """
    axis = mesh[263] - mesh[33]  # the outer corners of the eyes
    length = np.linalg.norm(axis)
    if not length > 1:
        return None
    axis = axis / length
    basis = np.stack([axis, [-axis[1], axis[0]]])
    low, high = (mesh @ basis.T).min(axis=0), (mesh @ basis.T).max(axis=0)
    return crop_from_frame(
        (low + high) / 2 @ basis, axis, INPUT / (AROUND * (high - low).max()), INPUT
    )


def landmarks_of(mesh: np.ndarray) -> np.ndarray:
    """The 68 points [68,2] of a `mesh` [468,2]; NaN where that is NaN.

    The points of the outline lie on the edge of the mesh's picture, in the directions from its
    middle in which the mesh has them: those of the cheek that a turned head hides come to lie where
    the face ends to the eye.
    """
    if not np.isfinite(mesh).all():
        return np.full((68, 2), np.nan)
    brows = (mesh[list(BROWS_ABOVE)] + mesh[list(BROWS_BELOW)]) / 2
    rim = cv2.convexHull(mesh.astype(np.float32))[:, 0].astype(np.float64)
    outline = to_rim(mesh[list(OUTLINE)], rim)
    return np.concatenate([outline, brows, mesh[list(REST)]])


def to_rim(points: np.ndarray, rim: np.ndarray) -> np.ndarray:
    """Where the rays from the middle of `rim` [k,2], a convex polygon, through `points` [n,2] end.

    [n,2], on the polygon's edge.
    """
    middle = rim.mean(axis=0)
    ray = points - middle
    edge = np.roll(rim, -1, axis=0) - rim
    normal = np.stack([edge[:, 1], -edge[:, 0]], axis=1)
    normal *= np.sign(((rim - middle) * normal).sum(axis=1))[:, None]  # outwards
    reach = ((rim - middle) * normal).sum(axis=1)  # [k], of each edge's line from the middle
    along = np.maximum(ray @ normal.T, 1e-9)
    return middle + ray * (reach / along).min(axis=1)[:, None]
