"""Loss functions: pure, batched, float32; pictures are [N, H, W, C] in [0, 1]."""

from odfs_jax.losses.swap import SwapLoss, make_loss
from odfs_jax.losses.terms import FACE_LOSSES, MASK_LOSSES, dssim, mae, ms_dssim, mse

__all__ = [
    "FACE_LOSSES",
    "MASK_LOSSES",
    "SwapLoss",
    "dssim",
    "mae",
    "make_loss",
    "ms_dssim",
    "mse",
]
