"""What can be said of a swapped face without truth, from dst and src alone.

A good swap has src's identity and keeps all else of dst: pose, expression, steadiness, and every
pixel beyond dst's face. Untouched dst keeps all of that perfectly, so only identity tells it from a
swap; the figures are read together. Ratios are to dst's own: 1 is as good, or as bad, as dst.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from odfs_jax.evaluation.truth import LUMA, gradients
from odfs_jax.faces.affine import transform
from odfs_jax.faces.align import INNER, umeyama
from odfs_jax.faces.hull import EYE_CORNERS, EYES, face_mask
from odfs_jax.faces.pose import rotation_of

# A pixel is changed where the difference to dst, averaged over WINDOW x WINDOW pixels, is above
# CHANGED levels of 255 in a channel. x264 at its default crf 16 stays below that in what
# conversion left alone; the mean of the window takes out what a codec adds to single pixels.
WINDOW, CHANGED = 5, 8
MARGIN = 0.03  # of the distance of the outer eye corners: how far the face may reach past its hull
RING = 0.04  # of the same distance: half the width of the ring in which a seam is looked for
FLOW_SIDE = 256  # pixels of the face's longer side at which motion is found
AROUND = 0.15  # of the face's longer side: what is cut out around it to find motion in
OCCLUDED = 1.0  # pixels by which there-and-back flow may miss before a pixel does not count
STILL = 0.01  # standard deviation of an aspect ratio below which dst has no expression to follow
FOUR_LIDS = ((1, 5), (2, 4))  # of the six points of an eye: upper and lower lid
INNER_LIPS = (62, 66, 60, 64)  # upper, lower, left, right


class FaceView(NamedTuple):
    """One face in one picture: uint8 RGB [H, W, 3] and its 68 points [68, 2] in pixels."""

    image: np.ndarray
    landmarks: np.ndarray


class Motion(NamedTuple):
    """How a face moved since the frame before: for each pixel of a cut-out, where it was."""

    box: tuple[slice, slice]  # rows and columns of the frame that were cut out
    size: tuple[int, int]  # (width, height) at which motion was found
    origin: np.ndarray  # float32 [h, w, 2]: (x, y) in the earlier cut-out
    visible: np.ndarray  # bool [h, w]: in the face, and seen in both frames


def eye_distance(landmarks: np.ndarray) -> float:
    """Pixels between the outer corners of the eyes of `landmarks` [68, 2]."""
    left, right = landmarks[list(EYE_CORNERS)]
    return float(np.linalg.norm(right - left))


def changed_pixels(dst: np.ndarray, swap: np.ndarray) -> np.ndarray:
    """bool [H, W]: where `swap` differs from `dst` (uint8 [H, W, 3]) by more than a codec does."""
    difference = swap.astype(np.float32) - dst
    return np.abs(cv2.blur(difference, (WINDOW, WINDOW))).max(-1) > CHANGED


def visible_face(landmarks: np.ndarray, height: int, width: int) -> np.ndarray:
    """bool [height, width]: the hull of `landmarks` with the brows, MARGIN and half a WINDOW."""
    mask = face_mask(landmarks, height, width, brows=True)
    return _grown(mask, MARGIN * eye_distance(landmarks) + WINDOW // 2, cv2.dilate) > 0


def motion_between(before: FaceView, after: FaceView) -> Motion:
    """The motion of dst's face, by DIS optical flow there and back; both pictures of one size.

    Source: Kroeger, Timofte, Dai, Van Gool, "Fast optical flow using dense inverse search", ECCV
    2016.
    """
    points = np.concatenate([before.landmarks, after.landmarks])
    low, high = points.min(0), points.max(0)
    around = AROUND * (high - low).max()
    height, width = after.image.shape[:2]
    left, top = np.clip(low - around, 0, (width - 2, height - 2)).astype(int)
    right, bottom = np.clip(high + around, (left + 2, top + 2), (width, height)).astype(int)
    box = slice(top, bottom), slice(left, right)
    scale = min(1.0, FLOW_SIDE / max(bottom - top, right - left))
    size = tuple(max(16, round(scale * side)) for side in (right - left, bottom - top))
    first, last = (_luma_at(view.image, box, size) for view in (before, after))
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    bytes_first, bytes_last = (np.rint(255 * plane).astype(np.uint8) for plane in (first, last))
    back = flow.calc(bytes_last, bytes_first, None)
    forth = flow.calc(bytes_first, bytes_last, None)
    grid = np.stack(np.meshgrid(*(np.arange(side, dtype=np.float32) for side in size)), -1)
    origin = grid + back
    returned = origin + cv2.remap(forth, origin, None, cv2.INTER_LINEAR)
    inside = ((origin >= 0) & (origin <= np.array(size) - 1)).all(-1)
    face = face_mask(after.landmarks, height, width)[box]
    face = cv2.resize(face, size, interpolation=cv2.INTER_NEAREST) > 0
    visible = face & inside & (np.linalg.norm(returned - grid, axis=-1) < OCCLUDED)
    return Motion(box, size, origin, visible)


def motion_error(before: np.ndarray, after: np.ndarray, motion: Motion) -> float:
    """Sum of squared luma differences of `after` to `before` moved as `motion` says."""
    first, last = (_luma_at(image, motion.box, motion.size) for image in (before, after))
    moved = cv2.remap(first, motion.origin, None, cv2.INTER_LINEAR)
    return float(((last - moved)[motion.visible] ** 2).sum())


class Attributes:
    """Compares a swapped face with dst's over a clip, frame by frame in order of time."""

    def __init__(self) -> None:
        self._dst: list[FaceView] = []  # of the last frames that follow each other, at most three
        self._swap: list[FaceView] = []
        self._rotations: list[tuple[np.ndarray, np.ndarray]] = []
        self._aspects: list[tuple[np.ndarray, np.ndarray]] = []
        self._landmark_errors: list[float] = []
        self._outside_errors: list[float] = []
        own = ("seam", "jitter", "motion")
        self._sums = dict.fromkeys((*own, *(f"dst_{name}" for name in own)), 0.0)
        self._sums |= {"changed": 0.0, "spilled": 0.0, "outside": 0.0}

    def add(
        self, dst: FaceView, swap: FaceView, visible: np.ndarray, motion: Motion | None
    ) -> None:
        """Takes in the next frame.

        `visible` is dst's `visible_face`; `motion` is dst's since the frame before, None where
        this one follows no other.
        """
        if motion is None:
            self._dst.clear()
            self._swap.clear()
        self._dst, self._swap = [*self._dst[-2:], dst], [*self._swap[-2:], swap]
        self._compare_shapes(dst.landmarks, swap.landmarks)
        self._compare_pixels(dst, swap, ~visible)
        if motion is not None:
            for name, views in (("motion", self._swap), ("dst_motion", self._dst)):
                before, after = (view.image for view in views[-2:])
                self._sums[name] += motion_error(before, after, motion)
        if len(self._dst) == 3:
            unit = eye_distance(dst.landmarks)
            for name, views in (("jitter", self._swap), ("dst_jitter", self._dst)):
                first, middle, last = (view.landmarks[INNER] for view in views)
                away = np.linalg.norm(first - 2 * middle + last, axis=1)
                self._sums[name] += float(away.mean()) / unit

    def figures(self) -> dict[str, float | None]:
        """All figures by name; None where the clip does not allow one."""
        if not self._landmark_errors:
            return {}
        s = self._sums
        eyes, mouth = (_follows(*series) for series in np.transpose(self._aspects, (2, 1, 0)))
        return {
            "spill": s["spilled"] / s["changed"] if s["changed"] else None,
            "pose": _pose_error(self._rotations),
            "eyes_follow": eyes,
            "mouth_follows": mouth,
            "landmarks": float(np.mean(self._landmark_errors)),
            "flicker": np.sqrt(s["motion"] / s["dst_motion"]) if s["dst_motion"] else None,
            "jitter": s["jitter"] / s["dst_jitter"] if s["dst_jitter"] else None,
            "seam": s["seam"] / s["dst_seam"] if s["dst_seam"] else None,
            "outside_changed": s["spilled"] / s["outside"] if s["outside"] else None,
            "outside_error": float(np.mean(self._outside_errors)),
        }

    def _compare_shapes(self, dst: np.ndarray, swap: np.ndarray) -> None:
        fitted = transform(umeyama(swap[INNER], dst[INNER]), swap[INNER])
        away = np.linalg.norm(fitted - dst[INNER], axis=1).mean() / eye_distance(dst)
        self._landmark_errors.append(float(away))
        self._rotations.append((rotation_of(dst), rotation_of(swap)))
        self._aspects.append((_aspects(dst), _aspects(swap)))

    def _compare_pixels(self, dst: FaceView, swap: FaceView, outside: np.ndarray) -> None:
        changed = changed_pixels(dst.image, swap.image)
        self._sums["changed"] += float(changed.sum())
        self._sums["spilled"] += float((changed & outside).sum())
        self._sums["outside"] += float(outside.sum())
        away = np.abs(swap.image.astype(np.float32) - dst.image)[outside]
        self._outside_errors.append(float(away.mean()) / 255 if away.size else 0.0)
        rim = _rim(changed, RING * eye_distance(dst.landmarks))
        for name, view in (("seam", swap), ("dst_seam", dst)):
            self._sums[name] += float((gradients(view.image / 255.0 @ LUMA)[rim] ** 2).sum())


def identity_figures(
    swap: Sequence[np.ndarray], src: Sequence[np.ndarray], dst: Sequence[np.ndarray]
) -> dict[str, float]:
    """How far the embeddings of `swap` [128] are from the mean ones of `src` and `dst`.

    Euclidean distances of dlib's embedding; `identity` is the share of faces nearer to src.
    """
    to_src, to_dst = (
        np.linalg.norm(np.asarray(swap) - np.mean(side, axis=0), axis=1) for side in (src, dst)
    )
    return {
        "identity": float((to_src < to_dst).mean()),
        "to_src": float(to_src.mean()),
        "to_dst": float(to_dst.mean()),
    }


def _aspects(landmarks: np.ndarray) -> np.ndarray:
    """[2]: height over width of the eyes (mean of both) and of the gap between the lips."""

    def distance(first: int, second: int) -> float:
        return max(float(np.linalg.norm(landmarks[first] - landmarks[second])), 1e-6)

    eyes = [
        np.mean([distance(eye[up], eye[down]) for up, down in FOUR_LIDS]) / distance(eye[0], eye[3])
        for eye in EYES
    ]
    upper, lower, left, right = INNER_LIPS
    return np.array([np.mean(eyes), distance(upper, lower) / distance(left, right)])


def _follows(dst: np.ndarray, swap: np.ndarray) -> float | None:
    """Correlation over time of two series [n]; None where dst's does not move, 0 where swap's."""
    if len(dst) < 3 or dst.std() < STILL:
        return None
    return float(np.corrcoef(dst, swap)[0, 1]) if swap.std() > 1e-9 else 0.0


def _pose_error(rotations: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Mean angle in degrees between the heads of dst and swap, but for a constant turn.

    The mean head fits people of other proportions with another rotation (by 5 to 10 degrees, on
    exact points); one turn for the whole clip, the best in least squares, takes that out.
    """
    u, _, vt = np.linalg.svd(sum(dst.T @ swap for dst, swap in rotations))
    turn = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    cosines = [(np.trace((dst @ turn).T @ swap) - 1) / 2 for dst, swap in rotations]
    return float(np.degrees(np.arccos(np.clip(cosines, -1, 1))).mean())


def _rim(changed: np.ndarray, half: float) -> np.ndarray:
    """bool [H, W]: the ring, 2 `half` pixels wide, at the outline of the largest changed area."""
    filled = np.zeros(changed.shape, np.uint8)
    outlines, _ = cv2.findContours(
        changed.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    if outlines:
        cv2.drawContours(filled, [max(outlines, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    return _grown(filled, half, cv2.dilate) > _grown(filled, half, cv2.erode)


def _grown(mask: np.ndarray, radius: float, operation: Callable) -> np.ndarray:
    """`mask` after `cv2.dilate` or `cv2.erode` by a disc of `radius` pixels, at least 1."""
    side = 2 * max(1, round(radius)) + 1
    return operation(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))


def _luma_at(image: np.ndarray, box: tuple[slice, slice], size: tuple[int, int]) -> np.ndarray:
    """float32 luma in [0, 1] of what `box` cuts out of `image`, at `size` (width, height)."""
    cutout = (image[box] / np.float32(255)) @ LUMA.astype(np.float32)
    return cv2.resize(cutout, size, interpolation=cv2.INTER_AREA)
