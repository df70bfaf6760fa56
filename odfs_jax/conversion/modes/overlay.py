"""`merge=overlay`: the predicted face in its own colours, blended with the eroded, blurred mask."""

from odfs_jax.conversion.modes.base import Mode, alpha_blend, keep_colour


def overlay() -> Mode:
    """No options."""
    return Mode(recolour=keep_colour, blend=alpha_blend)
