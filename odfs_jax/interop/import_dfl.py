"""`python scripts/import_dfl.py faces=... data=src`, or `model_folder=...`."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from odfs_jax.errors import UserError
from odfs_jax.interop.facesets import import_faces
from odfs_jax.runtime.output import say

log = logging.getLogger(__name__)


def import_dfl(config: DictConfig) -> None:
    """Takes over what an `ImportDflConfig` names. Raises UserError."""
    if config.faces is None and config.model_folder is None:
        raise UserError("nothing to import; give faces= or model_folder=")
    if config.faces is not None:
        _faces(config)


def _faces(config: DictConfig) -> None:
    if len(config.data.sides) > 1:
        raise UserError(f"faces={config.faces}: the faces of one side; choose data=src or data=dst")
    (side,) = config.data.sides
    settings = config.data[side]
    frames = None if settings.input is None else Path(settings.input)
    if frames is not None and not frames.is_dir():
        raise UserError(f"data.{side}.input={frames}: no folder of frames")
    folder = Path(settings.aligned)
    count, bad = import_faces(Path(config.faces), folder, frames)
    for error in bad:
        log.warning("not imported: %s", error)
    say(f"{folder}: {count} faces, {len(bad)} files left out")
