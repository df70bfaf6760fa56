"""`merge=raw_predict`: all that the network painted, the whole square, laid where the face is.

The mask plays no part: it shows what a model knows, and where its mask is at fault.
"""

from odfs_jax.conversion.masks import Coverage
from odfs_jax.conversion.modes.base import Mode


def _whole_square(coverage: Coverage):
    return coverage.square


def raw_predict() -> Mode:
    """No options."""
    return Mode(weigh=_whole_square)
