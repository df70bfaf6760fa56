"""`merge=overlay`: the predicted face in its own colors, blended with the eroded, blurred mask."""

from odfs_jax.conversion.modes.base import Mode


def overlay() -> Mode:
    """Has no options."""
    return Mode()
