"""`python scripts/sort.py data=src by=hist_dissim`: renames aligned faces to an order."""

import logging
import time
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
from omegaconf import DictConfig

from odfs_jax.curation import rename
from odfs_jax.curation.sort_keys import SORT_KEYS, FaceOrder, SortKey
from odfs_jax.data import atomic
from odfs_jax.data.aligned_png import read_image_and_face
from odfs_jax.data.lock import locked
from odfs_jax.data.media import png
from odfs_jax.data.parallel import read_files
from odfs_jax.data.sampling import evenly_spread
from odfs_jax.data.workspace import aligned_files
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.runtime import devices
from odfs_jax.runtime.output import say

log = logging.getLogger(__name__)

CELL = 96  # pixels of a face in the contact sheet
COLUMNS, ROWS = 20, 20  # of the contact sheet, at most
TRASH_COLOR = (220, 40, 40)


def sort(config: DictConfig) -> None:
    """Sorts every side of a `SortConfig`, or undoes its last sort. Raises UserError."""
    devices.prepare(config.hardware)
    if config.by not in SORT_KEYS:
        raise UserError(f"by={config.by}: expected one of {', '.join(SORT_KEYS)}")
    if config.keep is not None and config.keep < 1:
        raise UserError(f"keep={config.keep}: expected 1 or more, or null to keep all")
    for side in config.data.sides:
        folder = Path(config.data[side].aligned)
        # From the first look on: faces that came or went meanwhile would not fit the new names.
        only_reads = config.dry_run or not folder.is_dir()
        with nullcontext() if only_reads else locked(folder, "sorting faces"):
            recovered = _recover(folder, config.dry_run)
            if not config.undo:
                _sort_folder(folder, side, config)
            elif not recovered:
                _undo(folder, config.dry_run)


def _sort_folder(folder: Path, side: str, config: DictConfig) -> None:
    start = time.monotonic()
    files = aligned_files(folder, side)
    order, _, bad = sort_faces(files, SORT_KEYS[config.by], f"reading {side} faces")
    for error in bad:
        log.warning("left alone: %s", error)
    if not order:
        raise UserError(f"{folder}: none of its {len(bad)} PNG files is an aligned face")
    seconds = time.monotonic() - start
    kept = len(order) if config.keep is None else min(config.keep, len(order))
    if config.report:
        _report(Path(config.workspace) / f"{side}_by_{config.by}.png", order, kept)
    moves = rename.plan_moves(folder, order, kept)
    if config.dry_run:
        new = [rename.destination(folder, move) for move in moves]
        _print(folder, list(zip(order, new, strict=True)))
        log.info(
            "%s: %d of %d faces by %s would get other names, %d would go to %s; nothing is changed",
            folder,
            sum(old.name != now.name for old, now in zip(order[:kept], new[:kept], strict=True)),
            len(order),
            config.by,
            len(order) - kept,
            rename.trash_folder(folder).name,
        )
        return
    vanished = rename.apply_moves(folder, moves)
    message = f"{folder}: {kept} faces by {config.by} in {seconds:.1f} s"
    for count, what in (
        (len(order) - kept, f"moved to {rename.trash_folder(folder).name}"),
        (len(bad), "files left alone, which are not faces"),
        (vanished, "vanished meanwhile"),
    ):
        message += f", {count} {what}" if count else ""
    log.info("%s; undo=true takes it back", message)


def sort_faces(
    files: list[Path], key: SortKey, description: str
) -> tuple[list[Path], FaceOrder, list[BadFileError]]:
    """(the faces among `files` in the order of `key`, that order, the errors of the other files).

    `description` names the progress bar.
    """
    measured, bad = read_files(files, key.read, description)
    if not measured:
        return [], FaceOrder(np.arange(0)), bad
    order = key.order([value for _, value in measured])
    return [measured[index][0] for index in order.indices], order, bad


def _recover(folder: Path, dry_run: bool) -> bool:
    """Undoes an earlier run that was stopped half way; True when there was one."""
    if not rename.is_interrupted(folder):
        return False
    if dry_run:
        raise UserError(f"{folder}: a sort was stopped half way; run without dry_run, it is undone")
    rename.recover(folder)
    log.warning("%s: an earlier sort was stopped half way; it is undone", folder)
    return True


def _undo(folder: Path, dry_run: bool) -> None:
    if dry_run:
        pairs = rename.undo_pairs(folder)
        _print(folder, pairs)
        log.info("%s: %d faces would have their earlier names again", folder, len(pairs))
    else:
        log.info("%s: %d faces have their earlier names again", folder, rename.undo(folder))


def _report(path: Path, order: list[Path], kept: int) -> None:
    atomic.write_bytes(path, png.encode(contact_sheet(order, kept)))
    log.info("contact sheet: %s", path)


def _print(folder: Path, pairs: list[tuple[Path, Path]]) -> None:
    """Prints `before -> after`: names for files in `folder`, paths for those in the trash."""
    for pair in pairs:
        before, after = (path.name if path.parent == folder else str(path) for path in pair)
        say(f"{before} -> {after}")


def contact_sheet(order: list[Path], kept: int) -> np.ndarray:
    """uint8 RGB [H, W, 3]: the faces in their `order`, row by row, each with its number.

    Of more than COLUMNS x ROWS faces, evenly spaced ones are shown. The faces after the first
    `kept`, which go into the trash, have a red edge.
    """
    count = min(len(order), COLUMNS * ROWS)
    chosen = evenly_spread(len(order), count)
    columns = min(count, COLUMNS)
    sheet = np.full((-(-count // columns) * CELL, columns * CELL, 3), 255, np.uint8)
    for place, index in enumerate(chosen):
        top, left = (CELL * part for part in divmod(place, columns))
        cell = sheet[top : top + CELL, left : left + CELL]
        image, _ = read_image_and_face(order[index])
        cell[:] = cv2.resize(image, (CELL, CELL), interpolation=cv2.INTER_AREA)
        _number(cell, index)
        if index >= kept:
            cv2.rectangle(cell, (0, 0), (CELL - 1, CELL - 1), TRASH_COLOR, 2)
    return sheet


def _number(cell: np.ndarray, index: int) -> None:
    for color, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        place, font = (4, CELL - 6), cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(cell, str(index), place, font, 0.4, color, thickness, cv2.LINE_AA)
