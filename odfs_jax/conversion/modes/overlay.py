"""`merge=overlay`: the predicted face in its own colours, blended with the eroded, blurred mask."""

from odfs_jax.conversion.modes.base import Mode


def overlay() -> Mode:
    """No options."""
    return Mode()
