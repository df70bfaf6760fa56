"""How near a swapped face is to the truth, where there is one.

Placement is told apart from likeness: the registered figures are those after the best shift, whose
length is the placement error. Structure is told apart from tone: means are matched first, because a
color transfer that takes the tone of dst is right to differ from the truth in it.

Every figure is taken inside the face hull of the truth's exact points or a part of it. A picture is
RGB [H, W, 3] with values 0..255, uint8 or float.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from odfs_jax.data import foreign
from odfs_jax.data.media.frame_io import open_frames
from odfs_jax.data.media.picture_folder import read_picture
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.faces.hull import EYES, face_mask

LUMA = np.array([0.299, 0.587, 0.114])  # BT.601, as in the published figures of the actors
SSIM_SIZE, SSIM_SIGMA = 11, 1.5  # the window of Wang et al. 2004
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2  # for a data range of 1
GMSD_C = 0.0026  # Xue et al. 2014, for a data range of 1
OUTER_LIPS = range(48, 60)
FEATURE_REACH = 7  # pixels: eyes and mouth are dilated by a square of this side
CORE_MARGIN = 9  # pixels: gradients are compared in the hull eroded by a square of this side
MAX_SHIFT = 6  # pixels in x and in y that registration tries
# Nearest first, so that of equally good shifts the shortest counts.
SHIFTS = sorted(
    ((x, y) for x in range(-MAX_SHIFT, MAX_SHIFT + 1) for y in range(-MAX_SHIFT, MAX_SHIFT + 1)),
    key=lambda shift: np.hypot(*shift),
)
BLURS = (1.0, 1.5, 3.0)  # sigmas in pixels of the blurred truths that a swap is compared with
SHIFTED_BY = 2  # pixels in x and in y, of the shifted truth


@dataclass(frozen=True)
class Score:
    """One picture against its truth. SSIM is of luma, with the means matched; 1 is equal."""

    ssim: float  # in the hull
    eyes_ssim: float
    mouth_ssim: float
    hull_registered: float  # SSIM after the best shift of whole pixels
    eyes_registered: float
    mouth_registered: float
    hull_placement: float  # pixels: the length of that shift
    eyes_placement: float
    mouth_placement: float
    gmsd: float  # gradient magnitude similarity deviation; 0 is equal
    sharpness: float  # gradient energy over the truth's: below 1 softer, above 1 harsher
    error: float  # mean absolute difference of RGB in [0, 1], in the hull
    error_matched: float  # the same after matching the mean of each channel
    correlation: float  # of luma in the hull, -1..1; 0 for a flat picture


@dataclass(frozen=True)
class Truth:
    """What `frame` of dst should look like, and where its face is."""

    frame: int
    image: np.ndarray  # uint8 RGB [H, W, 3]
    landmarks: np.ndarray  # [68, 2] exact, in pixels

    @property
    def hull(self) -> np.ndarray:
        """bool [H, W]: the face hull.

        Its points are rounded down to whole pixels, as those of the published figures were.
        """
        return face_mask(np.floor(self.landmarks), *self.image.shape[:2]) > 0

    @property
    def eyes(self) -> np.ndarray:
        """bool [H, W]: both eyes with 3 pixels around them."""
        return self._features(EYES)

    @property
    def mouth(self) -> np.ndarray:
        """bool [H, W]: the mouth to the outer lips with 3 pixels around it."""
        return self._features([OUTER_LIPS])

    @property
    def core(self) -> np.ndarray:
        """bool [H, W]: the hull without its outermost 4 pixels."""
        square = np.ones((CORE_MARGIN, CORE_MARGIN), np.uint8)
        return cv2.erode(self.hull.astype(np.uint8), square) > 0

    def _features(self, outlines: Iterable[Iterable[int]]) -> np.ndarray:
        mask = np.zeros(self.image.shape[:2], np.uint8)
        for outline in outlines:
            points = np.floor(self.landmarks[list(outline)]).astype(np.int32)
            cv2.fillConvexPoly(mask, cv2.convexHull(points), 1)
        return cv2.dilate(mask, np.ones((FEATURE_REACH, FEATURE_REACH), np.uint8)) > 0


def load_truth(path: Path) -> list[Truth]:
    """The truth of a clip: pictures NNNN.png, NNNN the frame of dst, and an .npz of their points.

    `path` is NAME.npz, the folder NAME of its pictures beside it, or a folder that holds truth.npz
    and truth/. The .npz has `frame` [n] and `landmarks` [n, 68, 2] in pixels (x, y). Raises
    UserError.
    """
    if path.suffix == ".npz":
        points = path
    else:
        inside = path / "truth.npz"
        points = inside if inside.is_file() else path.with_name(f"{path.name}.npz")
    if not points.is_file():
        raise UserError(
            f"truth={path}: expected truth.npz and truth/ in it, or pictures NNNN.png in it and "
            f"{points.name} beside it"
        )
    try:
        known = foreign.read_npz(points)
        frames, landmarks = known["frame"].tolist(), known["landmarks"].astype(np.float64)
    except (BadFileError, KeyError) as error:
        raise UserError(f"{points}: no truth's points can be read: {error}") from error
    if not frames or landmarks.shape != (len(frames), 68, 2) or not np.isfinite(landmarks).all():
        raise UserError(
            f"{points}: landmarks {landmarks.shape} of {len(frames)} frames; expected finite "
            "[n, 68, 2] of at least one frame"
        )
    folder = points.with_suffix("")
    truth = [
        Truth(frame, read_picture(folder / f"{frame:04d}.png"), own)
        for frame, own in sorted(zip(frames, landmarks, strict=True), key=lambda pair: pair[0])
    ]
    for t in truth:
        if not (t.core.any() and t.eyes.any() and t.mouth.any()):
            raise UserError(f"{points}: the face of frame {t.frame} lies outside of its picture")
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
    """All figures of `image` [H, W, 3] against `truth`. Raises UserError when the sizes differ."""
    if image.shape != truth.image.shape:
        raise UserError(f"frame {truth.frame} is {image.shape}, its truth {truth.image.shape}")
    regions = {"hull": truth.hull, "eyes": truth.eyes, "mouth": truth.mouth}
    hull, core = regions["hull"], truth.core
    pixels, true_pixels = image[hull] / 255.0, truth.image[hull] / 255.0
    difference = pixels - true_pixels
    luma, true_luma = image / 255.0 @ LUMA, truth.image / 255.0 @ LUMA
    ssim = ssim_map(luma + true_luma[hull].mean() - luma[hull].mean(), true_luma)
    registered = registered_ssim(luma, true_luma, regions)
    gradient, true_gradient = gradients(luma)[core], gradients(true_luma)[core]
    return Score(
        ssim=float(ssim[hull].mean()),
        eyes_ssim=float(ssim[regions["eyes"]].mean()),
        mouth_ssim=float(ssim[regions["mouth"]].mean()),
        **{f"{name}_registered": value for name, (value, _) in registered.items()},
        **{f"{name}_placement": float(np.hypot(*way)) for name, (_, way) in registered.items()},
        gmsd=_gmsd(gradient, true_gradient),
        sharpness=float((gradient**2).mean() / max((true_gradient**2).mean(), 1e-12)),
        error=float(np.abs(difference).mean()),
        error_matched=float(np.abs(difference - difference.mean(0)).mean()),
        correlation=_correlation(pixels @ LUMA, true_pixels @ LUMA),
    )


def flat_face(image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """`image` with its mean color in all of `inside` (bool [H, W]): a blank, nothing swapped in."""
    flat = image.copy()
    flat[inside] = image[inside].mean(0).round()
    return flat


def baselines(truth: Truth, dst: np.ndarray) -> dict[str, np.ndarray]:
    """Pictures by name that no swap has made, and which tell what its score is worth.

    `dst` (uint8 [H, W, 3]) untouched and with a flat face; the truth blurred (float32, so that
    nothing is lost to rounding) and shifted right and down.
    """
    blurred = {
        f"blur_{sigma:g}": cv2.GaussianBlur(truth.image.astype(np.float32), (0, 0), sigma)
        for sigma in BLURS
    }
    shifted = _shifted(truth.image, SHIFTED_BY, SHIFTED_BY)
    return {"dst": dst, "flat": flat_face(dst, truth.hull), **blurred, "shifted": shifted}


def ssim_map(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[H, W] structural similarity of two float64 planes [H, W] with values in [0, 1].

    Source: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment", IEEE TIP 13(4), 2004.
    """
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    variance = _window_mean(x * x) - mean_x**2 + _window_mean(y * y) - mean_y**2
    return _ssim(mean_x, mean_y, variance, _window_mean(x * y) - mean_x * mean_y)


def registered_ssim(
    x: np.ndarray, y: np.ndarray, regions: dict[str, np.ndarray]
) -> dict[str, tuple[float, tuple[int, int]]]:
    """(SSIM after the best shift of `x`, that shift as (right, down) pixels) in each of `regions`.

    `x` and `y` are float planes [H, W] in [0, 1], the regions bool [H, W]. Tried are all SHIFTS;
    for each the mean of `x` in the region is set to that of `y`. What a shift moves in from beyond
    the picture repeats its edge.
    """
    border = MAX_SHIFT + SSIM_SIZE // 2
    anywhere = np.logical_or.reduce(list(regions.values()))
    rows, cols = np.nonzero(anywhere)
    window = (
        slice(rows.min(), rows.max() + 1 + 2 * border),
        slice(cols.min(), cols.max() + 1 + 2 * border),
    )
    # Both with a border around the box of all regions: wide enough for every shift and window.
    x, y = (
        cv2.copyMakeBorder(np.float32(p), *[border] * 4, cv2.BORDER_REPLICATE)[window]
        for p in (x, y)
    )
    rows, cols = rows - rows.min() + border, cols - cols.min() + border
    pixels = rows * x.shape[1] + cols  # numbers of the pixels that are in any region
    inside = {name: np.flatnonzero(region[anywhere]) for name, region in regions.items()}
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    variance_x, variance_y = (_window_mean(p * p) - m**2 for p, m in ((x, mean_x), (y, mean_y)))
    best = {name: (-np.inf, (0, 0)) for name in regions}
    true_values, true_mean, true_variance = (p.take(pixels) for p in (y, mean_y, variance_y))
    for right, down in SHIFTS:
        origin = pixels - down * x.shape[1] - right
        values, mean, variance = (p.take(origin) for p in (x, mean_x, variance_x))
        product = _window_mean(np.roll(x, (down, right), (0, 1)) * y).take(pixels)
        covariance = product - mean * true_mean
        variance += true_variance
        for name, own in inside.items():
            lift = true_values[own].mean() - values[own].mean()
            likeness = _ssim(mean[own] + lift, true_mean[own], variance[own], covariance[own])
            if (value := float(likeness.mean())) > best[name][0]:
                best[name] = value, (right, down)
    return best


def gradients(plane: np.ndarray) -> np.ndarray:
    """[H, W] gradient magnitude of a float64 plane: Scharr's 3x3 operator, its weights summing to
    1 on each side."""
    return np.hypot(*(cv2.Scharr(plane, cv2.CV_64F, *order) / 16 for order in ((1, 0), (0, 1))))


def _gmsd(x: np.ndarray, y: np.ndarray) -> float:
    """Deviation of the similarity of gradient magnitudes `x` and `y` [n].

    Source: Xue, Zhang, Mou, Bovik, "Gradient magnitude similarity deviation", IEEE TIP 23(2), 2014,
    here with Scharr's operator and at full size, for faces have few pixels.
    """
    return float(((2 * x * y + GMSD_C) / (x * x + y * y + GMSD_C)).std())


def _window_mean(plane: np.ndarray) -> np.ndarray:
    size = (SSIM_SIZE, SSIM_SIZE)
    return cv2.GaussianBlur(plane, size, SSIM_SIGMA, borderType=cv2.BORDER_REFLECT)


def _ssim(
    mean_x: np.ndarray, mean_y: np.ndarray, variance: np.ndarray, covariance: np.ndarray
) -> np.ndarray:
    """SSIM from the statistics of each window; `variance` is the sum of both."""
    likeness = (2 * mean_x * mean_y + SSIM_C1) * (2 * covariance + SSIM_C2)
    return likeness / ((mean_x**2 + mean_y**2 + SSIM_C1) * (variance + SSIM_C2))


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    size = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / size) if size > 1e-9 else 0.0


def _shifted(image: np.ndarray, right: int, down: int) -> np.ndarray:
    matrix = np.array([[1, 0, right], [0, 1, down]], np.float64)
    size = image.shape[1::-1]
    flags, border = cv2.INTER_NEAREST, cv2.BORDER_REPLICATE
    return cv2.warpAffine(image, matrix, size, flags=flags, borderMode=border)
