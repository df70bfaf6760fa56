"""Measures of one aligned picture (uint8 RGB [S, S, 3]), on the host.

The numbers depend on the size of the picture, so compare pictures of one size.
"""

import cv2
import numpy as np

BINS = 256
WINDOW, WINDOWS = 7, 5  # SSIM is taken in 5 x 5 windows of 7 x 7 pixels (7: scikit-image's default)


def sharpness(image: np.ndarray) -> float:
    """Variance of the Laplacian (3x3, cv2 ksize 1) of the gray picture.

    Sources: docs/reference_2018.md section 5; Pech-Pacheco et al., "Diatom autofocusing
    in brightfield microscopy", ICPR 2000.
    """
    return float(cv2.Laplacian(_gray(image), cv2.CV_64F).var())


def min_directional_gradient(image: np.ndarray) -> float:
    """Mean squared gradient (3x3 Sobel) of the gray picture in the direction that has the least.

    A head that moves while the shutter is open keeps the edges along its way and loses those
    across, which the variance of the Laplacian, blind to direction, forgives. This is the smaller
    eigenvalue of the mean structure tensor (Foerstner and Guelch, 1987).
    """
    gray = _gray(image)
    x, y = (cv2.Sobel(gray, cv2.CV_64F, *order) for order in ((1, 0), (0, 1)))
    xx, yy, xy = (x * x).mean(), (y * y).mean(), (x * y).mean()
    return float((xx + yy) / 2 - np.hypot((xx - yy) / 2, xy))


def brightness(image: np.ndarray) -> float:
    """Mean V of HSV, 0 to 255. Source: docs/reference_2018.md section 5."""
    return float(_hsv(image)[..., 2].mean())


def hue(image: np.ndarray) -> float:
    """Mean H of HSV in OpenCV's half degrees, 0 to 179.

    Source: docs/reference_2018.md section 5.
    """
    return float(_hsv(image)[..., 0].mean())


def histogram(image: np.ndarray) -> np.ndarray:
    """Square roots, float32 [3, 256], of the normalized histograms of R, G and B."""
    counts = [cv2.calcHist([image], [c], None, [BINS], [0, BINS]).ravel() for c in range(3)]
    return np.sqrt(np.stack(counts) / image[..., 0].size)


def windows(image: np.ndarray) -> np.ndarray:
    """The SSIM windows of the gray picture, scaled to 35x35 and [0, 1]: float32 [25, 51].

    Each row is a window of 7x7: the 49 pixels less their mean, divided by 7, so that the product of
    two windows is their covariance; then the mean and the variance.
    """
    side = WINDOW * WINDOWS
    small = cv2.resize(_gray(image), (side, side), interpolation=cv2.INTER_AREA) / 255
    tiles = small.reshape(WINDOWS, WINDOW, WINDOWS, WINDOW).swapaxes(1, 2)
    tiles = tiles.reshape(WINDOWS**2, WINDOW**2)
    mean, variance = tiles.mean(-1, keepdims=True), tiles.var(-1, keepdims=True)
    return np.concatenate([(tiles - mean) / WINDOW, mean, variance], -1).astype(np.float32)


def _gray(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def _hsv(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
