"""`merge=raw`: the face alone, on black: for putting together elsewhere.

In the network's own colours and its own mask: nothing is eroded, blurred or faded out.
"""

from odfs_jax.conversion.masks import Coverage
from odfs_jax.conversion.modes.base import Mode


def _own_mask(coverage: Coverage):
    return coverage.mask * coverage.square


def raw() -> Mode:
    """No options."""
    return Mode(weigh=_own_mask, black=True)
