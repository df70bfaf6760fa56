"""`python scripts/sort.py data=src by=hist_dissim`: renames aligned faces to an order."""

import logging
import sys
import time
from pathlib import Path

from omegaconf import DictConfig

from odfs_jax.curation import rename
from odfs_jax.curation.contact_sheet import contact_sheet
from odfs_jax.curation.orders import KEYS, Key
from odfs_jax.data import atomic
from odfs_jax.data.media import png
from odfs_jax.data.parallel import read_files
from odfs_jax.data.workspace import aligned_files
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.runtime import devices

log = logging.getLogger(__name__)


def sort(config: DictConfig) -> None:
    """Sorts, or puts back, every side that a `SortConfig` names. Raises UserError."""
    devices.prepare(config.hardware)
    if config.by not in KEYS:
        raise UserError(f"by={config.by}: expected one of {', '.join(KEYS)}")
    if config.keep is not None and config.keep < 1:
        raise UserError(f"keep={config.keep}: expected 1 or more, or null to keep all")
    for side in config.data.sides:
        folder = Path(config.data[side].aligned)
        recovered = _recover(folder, config.dry_run)
        if not config.undo:
            _sort_folder(folder, side, config)
        elif not recovered:
            _undo(folder, config.dry_run)


def ordered(files: list[Path], key: Key, what: str) -> tuple[list[Path], list[BadFileError]]:
    """(the faces among `files` by `key`, the errors of the others); `what` names the loop."""
    read, bad = read_files(files, key.read, what)
    if not read:
        return [], bad
    order = key.order([value for _, value in read])
    return [read[index][0] for index in order], bad


def _recover(folder: Path, dry_run: bool) -> bool:
    """True when an earlier run was stopped half way; its renames are then taken back."""
    if not rename.interrupted(folder):
        return False
    if dry_run:
        raise UserError(f"{folder}: a sort was stopped half way; run without dry_run, it is undone")
    rename.recover(folder)
    log.warning("%s: an earlier sort was stopped half way; it is undone", folder)
    return True


def _undo(folder: Path, dry_run: bool) -> None:
    if dry_run:
        _print(folder, rename.undoable(folder))
    else:
        log.info("%s: %d faces have their earlier names again", folder, rename.undo(folder))


def _sort_folder(folder: Path, side: str, config: DictConfig) -> None:
    start = time.monotonic()
    files = aligned_files(folder, side)
    order, bad = ordered(files, KEYS[config.by], f"reading {side} faces")
    for error in bad:
        log.warning("left alone: %s", error)
    if not order:
        raise UserError(f"{folder}: none of its {len(bad)} PNG files is an aligned face")
    seconds = time.monotonic() - start
    kept = len(order) if config.keep is None else min(config.keep, len(order))
    if config.report:
        _report(Path(config.workspace) / f"{side}_by_{config.by}.png", order, kept)
    moves = rename.plan(folder, order, kept)
    if config.dry_run:
        new = [rename.destination(folder, move) for move in moves]
        _print(folder, list(zip(order, new, strict=True)))
        return
    gone = rename.carry_out(folder, moves)
    said = f"{folder}: {kept} faces by {config.by} in {seconds:.1f} s"
    for count, what in (
        (len(order) - kept, f"moved to {rename.trash_of(folder).name}"),
        (len(bad), "files left alone, which are not faces"),
        (gone, "vanished meanwhile"),
    ):
        said += f", {count} {what}" if count else ""
    log.info("%s; undo=true takes it back", said)


def _report(path: Path, order: list[Path], kept: int) -> None:
    atomic.write_bytes(path, png.encode(contact_sheet(order, kept)))
    log.info("contact sheet: %s", path)


def _print(folder: Path, pairs: list[tuple[Path, Path]]) -> None:
    """Lines `now -> then`: names for files in `folder`, paths for those in the trash."""
    for pair in pairs:
        now, then = (path.name if path.parent == folder else str(path) for path in pair)
        sys.stdout.write(f"{now} -> {then}\n")
