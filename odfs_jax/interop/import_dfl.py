"""`python scripts/import_dfl.py faces=... data=src`, or `model_folder=...`; and export_dfl.py."""

import logging
import shlex
from pathlib import Path

from omegaconf import DictConfig

from odfs_jax.data.workspace import aligned_files
from odfs_jax.errors import UserError
from odfs_jax.interop.facesets import export_faces, import_faces
from odfs_jax.interop.models import export_model, find_model, import_model
from odfs_jax.runtime import devices as hardware
from odfs_jax.runtime.output import say

log = logging.getLogger(__name__)


def import_dfl(config: DictConfig) -> None:
    """Takes over what an `ImportDflConfig` names. Raises UserError."""
    if config.faces is None and config.model_folder is None:
        raise UserError("nothing to import; give faces= or model_folder=")
    if config.faces is not None:
        _faces(config)
    if config.model_folder is not None:
        _model(config)


def export_dfl(config: DictConfig) -> None:
    """Writes what an `ExportDflConfig` names as DeepFaceLab reads it. Raises UserError."""
    if config.faces is None and config.name is None:
        raise UserError("nothing to export; give faces= or name=")
    if config.faces is not None:
        side = _one_side(config)
        files = aligned_files(Path(config.data[side].aligned), side)
        count, bad = export_faces(files, Path(config.faces))
        for error in bad:
            log.warning("not exported: %s", error)
        say(f"{config.faces}: {count} faces, {len(bad)} files left out")
    if config.name is not None:
        _export_model(config)


def _export_model(config: DictConfig) -> None:
    hardware.prepare(config.hardware)
    name = config.name if config.dfl_name is None else config.dfl_name
    model = Path(config.workspace) / "models" / config.name
    paths = export_model(model, Path(config.model_folder), name)
    say(*(f"{path}: {path.stat().st_size / 1e6:.1f} MB" for path in paths))


def _faces(config: DictConfig) -> None:
    side = _one_side(config)
    settings = config.data[side]
    frames = None if settings.input is None else Path(settings.input)
    if frames is not None and not frames.is_dir():
        raise UserError(f"data.{side}.input={frames}: no folder of frames")
    folder = Path(settings.aligned)
    count, bad = import_faces(Path(config.faces), folder, frames)
    for error in bad:
        log.warning("not imported: %s", error)
    say(f"{folder}: {count} faces, {len(bad)} files left out")


def _one_side(config: DictConfig) -> str:
    if len(config.data.sides) > 1:
        raise UserError(f"faces={config.faces}: the faces of one side; choose data=src or data=dst")
    return config.data.sides[0]


def _model(config: DictConfig) -> None:
    hardware.prepare(config.hardware)
    dfl = find_model(Path(config.model_folder), config.name)
    folder, settings = import_model(dfl, config.workspace, dfl.name)
    say(f"{folder}: {dfl.kind} at iteration {dfl.iteration}; to train it on:")
    run = (f"workspace={config.workspace}", f"name={dfl.name}", *settings)
    say(f"python train.py {shlex.join(run)}")
