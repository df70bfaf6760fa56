"""What `merge.*` may be, said before anything runs."""

from operator import attrgetter

import numpy as np

from odfs_jax.config import MergeConfig
from odfs_jax.conversion.colors import TRANSFERS
from odfs_jax.conversion.finishing import SHARPENERS
from odfs_jax.conversion.masks import MaskSettings
from odfs_jax.conversion.outline import KEPT, MASKS
from odfs_jax.errors import UserError
from odfs_jax.inference import Swapper

RANGES = {
    "scale": (-50, 50),  # per cent of the face
    "erode": (-100, 100),  # per cent of the spec's formula, the user's share
    "blur": (-100, 200),
    "opacity": (0, 100),
    "color_smoothing": (0, 250),  # frames: so many wait in memory
    "sharpen": (0, 100),
    "motion_blur": (0, 1),
    "degrade.bicubic": (0, 100),
    "degrade.denoise": (0, 100),
    "degrade.jpeg": (0, 100),
}
CHOICES = {
    "color": tuple(TRANSFERS),
    "mask": MASKS,
    "feather": ("linear", "smooth"),
    "sharpen_by": tuple(SHARPENERS),
}


def check_merge(config: MergeConfig) -> None:
    """Raises UserError for the first setting that is out of its range."""
    for name, (low, high) in RANGES.items():
        value = attrgetter(name)(config)
        if not low <= value <= high:
            raise UserError(f"merge.{name}={value:g}: expected {low}..{high}")
    for name, known in CHOICES.items():
        value = attrgetter(name)(config)
        if value not in known:
            raise UserError(f"merge.{name}={value}: expected one of {', '.join(known)}")
    for name in config.keep:
        if name not in KEPT:
            raise UserError(f"merge.keep={name}: expected some of {', '.join(KEPT)}")


def mask_settings(swapper: Swapper, config: MergeConfig) -> MaskSettings:
    """The model's modifiers and the user's together."""
    return MaskSettings(
        erode=swapper.erode_modifier + config.erode,
        blur=swapper.blur_modifier + config.blur,
        border=swapper.border,
        smooth=config.feather == "smooth",
    )


def scaled(placement: np.ndarray | None, scale: float, resolution: int) -> np.ndarray | None:
    """`placement` [2, 3] of a face that is `scale` per cent larger about its middle; None: nothing.

    It maps the new face's pixels to those of the dst face that it is laid on.
    """
    if not scale:
        return placement
    factor = 1 + scale / 100
    middle = (resolution - 1) / 2
    larger = np.array([[factor, 0.0, middle * (1 - factor)], [0.0, factor, middle * (1 - factor)]])
    if placement is None:
        return larger
    linear = placement[:, :2] @ larger[:, :2]
    shift = placement[:, :2] @ larger[:, 2:] + placement[:, 2:]
    return np.concatenate([linear, shift], axis=1)


def reach(placement: np.ndarray | None, resolution: int) -> float:
    """How far from dst's middle the placed face square reaches, 1: as far as dst's own square."""
    if placement is None:
        return 1.0
    middle, half = (resolution - 1) / 2, resolution / 2
    edge = np.array([middle - half, middle + half])
    corners = np.stack(np.meshgrid(edge, edge), -1).reshape(4, 2)
    placed = corners @ placement[:, :2].T + placement[:, 2]
    return max(1.0, float(np.abs(placed - middle).max() / half))
