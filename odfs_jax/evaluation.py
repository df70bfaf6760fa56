"""How near a swapped face is to the truth, where there is one.

Structure is told apart from tone: a colour mode that takes the tone of dst is right to differ
from the truth in it. Only pixels inside the exact face hull count.

SSIM alone flatters smooth pictures: a face of one flat colour gets 0.70 on the demo's truth, more
than untouched dst (0.66). So a flat face is scored beside every swap, and correlation with it.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from odfs_jax.data.media.frame_io import open_frames
from odfs_jax.data.media.picture_folder import read_picture
from odfs_jax.errors import UserError
from odfs_jax.faces.hull import face_mask

LUMA = np.array([0.299, 0.587, 0.114])  # BT.601, as in the published figures of the actors
SSIM_SIZE, SSIM_SIGMA = 11, 1.5  # the window of Wang et al. 2004
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2  # for a data range of 1


@dataclass(frozen=True)
class Score:
    """One picture against its truth, inside the hull."""

    ssim: float  # of luma, means matched; 1 is equal
    error: float  # mean absolute difference of RGB in [0, 1]
    error_matched: float  # the same after matching the mean of each channel
    correlation: float  # of luma, -1..1; 0 for a flat picture


@dataclass(frozen=True)
class Truth:
    """What `frame` of dst should look like, and where its face is."""

    frame: int
    image: np.ndarray  # uint8 RGB [H, W, 3]
    landmarks: np.ndarray  # [68, 2] exact, in pixels
    inside: np.ndarray  # bool [H, W], the face hull


def load_truth(folder: Path) -> list[Truth]:
    """The truth in `folder`: truth.npz (`frame` [n], `landmarks` [n, 68, 2]) and truth/NNNN.png."""
    truth = []
    with np.load(folder / "truth.npz", allow_pickle=False) as known:
        for frame, landmarks in zip(known["frame"].tolist(), known["landmarks"], strict=True):
            image = read_picture(folder / "truth" / f"{frame:04d}.png")
            inside = face_mask(landmarks, *image.shape[:2]) > 0
            truth.append(Truth(frame, image, landmarks, inside))
    return truth


def frames_at(path: Path, numbers: list[int]) -> list[np.ndarray]:
    """The frames `numbers` (ascending) of a clip or folder. Raises UserError for a missing one."""
    wanted = set(numbers)
    with open_frames(path) as source:
        found = {frame.index: frame.image for frame in source if frame.index in wanted}
    if missing := sorted(wanted - found.keys()):
        raise UserError(f"{path}: frame {missing[0]} is missing; expected frames {numbers}")
    return [found[number] for number in numbers]


def score(image: np.ndarray, truth: Truth) -> Score:
    """The score of `image` (uint8 RGB [H, W, 3]) against `truth`."""
    if image.shape != truth.image.shape:
        raise UserError(f"frame {truth.frame} is {image.shape}, its truth {truth.image.shape}")
    seen, wanted, inside = image / 255.0, truth.image / 255.0, truth.inside
    luma, wanted_luma = seen @ LUMA, wanted @ LUMA
    luma += wanted_luma[inside].mean() - luma[inside].mean()
    difference = (seen - wanted)[inside]
    return Score(
        ssim=float(ssim_map(luma, wanted_luma)[inside].mean()),
        error=float(np.abs(difference).mean()),
        error_matched=float(np.abs(difference - difference.mean(0)).mean()),
        correlation=_correlation(luma[inside], wanted_luma[inside]),
    )


def flat_face(image: np.ndarray, truth: Truth) -> np.ndarray:
    """`image` with the inside of the hull filled with its own mean colour: nothing swapped in."""
    flat = image.copy()
    flat[truth.inside] = image[truth.inside].mean(0).round()
    return flat


def ssim_map(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[H, W] structural similarity of two float64 planes [H, W] with values in [0, 1].

    Source: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment", IEEE TIP 13(4), 2004.
    """

    def mean(plane: np.ndarray) -> np.ndarray:
        size = (SSIM_SIZE, SSIM_SIZE)
        return cv2.GaussianBlur(plane, size, SSIM_SIGMA, borderType=cv2.BORDER_REFLECT)

    mean_x, mean_y = mean(x), mean(y)
    variance = mean(x * x) - mean_x**2 + mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + SSIM_C1) * (2 * covariance + SSIM_C2)
    return likeness / ((mean_x**2 + mean_y**2 + SSIM_C1) * (variance + SSIM_C2))


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    size = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / size) if size > 1e-9 else 0.0


def side_by_side(rows: list[tuple[np.ndarray, ...]], truth: list[Truth], size: int) -> np.ndarray:
    """uint8 RGB picture of `rows`, each the same frame seen several ways, cut to its face.

    A row's cut is the square around the hull of its truth, a fifth larger, scaled to `size`.
    """
    return np.vstack(
        [
            np.hstack([_face_cut(image, t.landmarks, size) for image in row])
            for row, t in zip(rows, truth, strict=True)
        ]
    )


def _face_cut(image: np.ndarray, landmarks: np.ndarray, size: int) -> np.ndarray:
    low, high = landmarks.min(0), landmarks.max(0)
    half = 0.6 * (high - low).max()
    scale = size / (2 * half)
    shift = size / 2 - scale * (low + high) / 2
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    return cv2.warpAffine(
        image, matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
