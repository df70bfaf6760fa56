"""The merge modes by name. A new one is a file here, a line below and a YAML in configs/merge/."""

import inspect

from odfs_jax.config import MergeConfig
from odfs_jax.conversion.modes.base import Mode
from odfs_jax.conversion.modes.hist_match import hist_match
from odfs_jax.conversion.modes.overlay import overlay
from odfs_jax.errors import UserError

MODES = {"overlay": overlay, "hist_match": hist_match}


def build_mode(merge: MergeConfig) -> Mode:
    """The mode `merge.mode` with `merge.args`. Raises UserError for what it does not know."""
    if merge.mode not in MODES:
        raise UserError(f"merge.mode={merge.mode}: not one of {', '.join(sorted(MODES))}")
    options = inspect.signature(MODES[merge.mode]).parameters
    for name, value in merge.args.items():
        if name not in options:
            known = ", ".join(options) or "none"
            raise UserError(f"merge.args.{name}: {merge.mode} has no such option; it has: {known}")
        if not isinstance(value, options[name].annotation):
            expected = options[name].annotation.__name__
            raise UserError(f"merge.args.{name}={value!r}: expected a {expected}")
    return MODES[merge.mode](**merge.args)
