"""Faces without a person: 68 points around a centre, smooth pictures, a network that is perfect."""

from collections.abc import Callable

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from odfs_jax.faces.align import MEAN_FACE
from odfs_jax.faces.types import FaceType
from odfs_jax.faces.view import View
from odfs_jax.inference import Swapper


@pytest.fixture(scope="session")
def face_points() -> Callable[..., np.ndarray]:
    """points(centre, size, roll): [68, 2] pixels; `size` is the width of the mean face."""

    def points(centre: tuple[float, float], size: float, roll: float = 0.0) -> np.ndarray:
        angle = np.linspace(np.pi, 0, 17)
        jaw = np.stack([0.5 + 0.55 * np.cos(angle), 0.35 + 0.75 * np.sin(angle)], -1)
        shape = (np.concatenate([jaw, MEAN_FACE]) - 0.5) * size
        cos, sin = np.cos(np.radians(roll)), np.sin(np.radians(roll))
        return shape @ np.array([[cos, sin], [-sin, cos]]) + centre

    return points


@pytest.fixture(scope="session")
def smooth_picture() -> Callable[[int, int, int], np.ndarray]:
    """picture(height, width, seed): uint8 RGB without detail that a small face would lose."""

    def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
        coarse = np.random.default_rng(seed).integers(30, 226, (4, 5, 3)).astype(np.uint8)
        return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)

    return picture


@pytest.fixture(scope="session")
def disc_mask() -> Callable[[int], np.ndarray]:
    """mask(resolution): float32 [R, R, 1], a soft disc as a trained network gives it."""

    def mask(resolution: int) -> np.ndarray:
        y, x = np.mgrid[:resolution, :resolution] - (resolution - 1) / 2
        distance = np.hypot(x, y) / resolution
        return np.clip((0.4 - distance) * resolution + 0.5, 0, 1).astype(np.float32)[..., None]

    return mask


@pytest.fixture(scope="session")
def perfect(disc_mask) -> Callable[..., Swapper]:
    """perfect(resolution, change): gives `change` of the dst face itself, in a disc."""

    def swapper(resolution: int, change: Callable = lambda faces: faces, **kind) -> Swapper:
        mask = jnp.array(disc_mask(resolution))

        def predict(_params, faces):
            masks = jnp.broadcast_to(mask[None], (*faces.shape[:3], 1))
            return change(faces), masks

        view = View(FaceType.FULL, resolution)
        return Swapper(predict, {}, seen=view, made=view, **kind)

    return swapper
