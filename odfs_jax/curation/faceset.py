"""`python scripts/faceset.py data=src action=summary`, or verify, pack, unpack."""

import logging
import sys
from pathlib import Path

from omegaconf import DictConfig

from odfs_jax.curation import archive
from odfs_jax.curation.summary import pose_picture, read_faces, summary
from odfs_jax.data import atomic
from odfs_jax.data.media import png
from odfs_jax.data.workspace import aligned_files
from odfs_jax.errors import UserError

log = logging.getLogger(__name__)


def faceset(config: DictConfig) -> None:
    """Does what a `FacesetConfig` asks, for every side it names. Raises UserError."""
    if config.action not in ACTIONS:
        raise UserError(f"action={config.action}: expected one of {', '.join(ACTIONS)}")
    if config.file is not None and len(config.data.sides) > 1:
        raise UserError(f"file={config.file}: one file for one side; choose data=src or data=dst")
    for side in config.data.sides:
        ACTIONS[config.action](Path(config.data[side].aligned), side, config)


def _summary(folder: Path, side: str, config: DictConfig) -> None:
    faces, bad = read_faces(aligned_files(folder, side), config.people)
    for error in bad:
        log.warning("skipped: %s", error)
    if not faces:
        raise UserError(f"{folder}: none of its {len(bad)} PNG files is an aligned face")
    picture = Path(config.workspace) / f"{side}_poses.png"
    atomic.write_bytes(picture, png.encode(pose_picture(faces)))
    sys.stdout.write(f"{folder}\n{summary(faces, len(bad))}poses        {picture}\n")


def _verify(folder: Path, side: str, config: DictConfig) -> None:
    files = aligned_files(folder, side)
    _, bad = read_faces(files, people=False)
    for error in bad:
        sys.stdout.write(f"bad: {error}\n")
    if bad:
        raise UserError(f"{folder}: {len(bad)} of {len(files)} PNG files are not whole faces")
    sys.stdout.write(f"{folder}: {len(files)} faces, all whole\n")


def _pack(folder: Path, side: str, config: DictConfig) -> None:
    path = _file(side, config)
    packed, bad = archive.pack(aligned_files(folder, side), path)
    for error in bad:
        log.warning("not packed: %s", error)
    sys.stdout.write(f"{path}: {packed} faces, {path.stat().st_size / 1e6:.1f} MB\n")


def _unpack(folder: Path, side: str, config: DictConfig) -> None:
    path = _file(side, config)
    unpacked, bad = archive.unpack(path, folder)
    for error in bad:
        log.warning("not unpacked: %s", error)
    sys.stdout.write(f"{folder}: {unpacked} faces, {len(bad)} members of {path} left out\n")


def _file(side: str, config: DictConfig) -> Path:
    return Path(config.file or Path(config.workspace) / f"{side}_faces.zip")


ACTIONS = {"summary": _summary, "verify": _verify, "pack": _pack, "unpack": _unpack}
