"""Loss functions: pure, batched, float32; pictures are [N, H, W, C] in [0, 1]."""

from odfs_jax.losses.dssim import dssim
from odfs_jax.losses.ms_ssim import ms_dssim
from odfs_jax.losses.pixel import mae, mse
from odfs_jax.losses.swap import FACE_LOSSES, MASK_LOSSES, make_loss

__all__ = ["FACE_LOSSES", "MASK_LOSSES", "dssim", "mae", "make_loss", "ms_dssim", "mse"]
