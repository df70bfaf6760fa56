"""The merge modes by name. A new one is a file here, a line below and a YAML in configs/merge/."""

import inspect
from collections.abc import Mapping
from typing import Any

from odfs_jax.config import MergeConfig
from odfs_jax.conversion.modes.base import Mode
from odfs_jax.conversion.modes.hist_match import hist_match
from odfs_jax.conversion.modes.hist_match_bw import hist_match_bw
from odfs_jax.conversion.modes.overlay import overlay
from odfs_jax.conversion.modes.raw import raw
from odfs_jax.conversion.modes.raw_predict import raw_predict
from odfs_jax.conversion.modes.seamless import seamless
from odfs_jax.conversion.modes.seamless_hist_match import seamless_hist_match
from odfs_jax.errors import UserError

MODES = {
    "overlay": overlay,
    "hist_match": hist_match,
    "hist_match_bw": hist_match_bw,
    "seamless": seamless,
    "seamless_hist_match": seamless_hist_match,
    "raw": raw,
    "raw_predict": raw_predict,
}


def build_mode(merge: MergeConfig, own: Mapping[str, Any]) -> Mode:
    """The mode `merge.mode` with the options `merge.args`.

    `own` has the model's choices for options that are null in `merge.args`. Raises UserError for an
    unknown mode, an option that the mode does not have, and a value of another type.
    """
    if merge.mode not in MODES:
        raise UserError(f"merge.mode={merge.mode}: not one of {', '.join(sorted(MODES))}")
    options = inspect.signature(MODES[merge.mode]).parameters
    for name, value in merge.args.items():
        if name not in options:
            known = ", ".join(options) or "none"
            raise UserError(f"merge.args.{name}: {merge.mode} has no such option; it has: {known}")
        if not isinstance(value, options[name].annotation | None):
            expected = options[name].annotation.__name__
            raise UserError(f"merge.args.{name}={value!r}: expected a {expected}")
    chosen = {name: value for name, value in merge.args.items() if value is not None}
    return MODES[merge.mode](**{k: v for k, v in own.items() if k in options} | chosen)
