"""Renaming faces without losing one: a whole folder as one transaction, and single files to trash.

A transaction is completed, or undone by the next run. Every face first gets a temporary unique name
(it is lifted), then its new name (it is placed), so that no two names collide. A journal in the
folder records which step is under way. At any moment each face has exactly one name, and is a PNG
in the folder or in the trash beside it.

    sort:     sort-lift -> sort-place -> sorted
    undo:     undo-lift -> undo-place -> no journal          (from sort-place or sorted)
              undo-place -> no journal                       (from sort-lift)
"""

import json
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from odfs_jax.data import atomic, foreign
from odfs_jax.data.lock import locked
from odfs_jax.errors import BadFileError, UserError

JOURNAL = ".odfs_sort.json"
JOURNAL_KEYS = ("version", "step", "token", "moves")
MAX_JOURNAL = 1 << 28  # bytes: a million faces
VERSION = 1
UNDO = {
    "sort-lift": ("undo-place",),
    "sort-place": ("undo-lift", "undo-place"),
    "sorted": ("undo-lift", "undo-place"),
    "undo-lift": ("undo-lift", "undo-place"),
    "undo-place": ("undo-place",),
}


@dataclass(frozen=True)
class Move:
    """Plain file names of a face, before and after. `trashed`: the new one is in the trash."""

    old: str
    new: str
    trashed: bool = False


@dataclass(frozen=True)
class RenameJournal:
    """The moves of the last sort of `folder`, and the step that it or its undoing has reached."""

    folder: Path
    token: str  # part of the temporary names
    moves: tuple[Move, ...]
    step: str

    def old(self, index: int) -> Path:
        return self.folder / self.moves[index].old

    def lifted(self, index: int) -> Path:
        return self.folder / f"sorting-{self.token}-{index:05d}.png"

    def new(self, index: int) -> Path:
        return destination(self.folder, self.moves[index])


def trash_folder(folder: Path) -> Path:
    """`<folder>_trash` beside `folder`, or beside the folder that it is a link to."""
    real = folder.resolve() if folder.is_symlink() else folder
    return real.with_name(f"{real.name}_trash")


def destination(folder: Path, move: Move) -> Path:
    """Where `move` puts a face of `folder`."""
    return (trash_folder(folder) if move.trashed else folder) / move.new


def plan_moves(folder: Path, order: Iterable[Path], keep: int | None) -> list[Move]:
    """The moves that name the faces of `folder` by their `order`: 00000.png, 00001.png ...

    Faces beyond the first `keep` move to the trash under their own name; None keeps all. A name
    that belongs to a file outside `order` is skipped. More than 100,000 faces get longer names, so
    that they still sort.
    """
    order = list(order)
    taken = {path.name for path in folder.iterdir()} - {path.name for path in order}
    digits = max(5, len(str(len(order) + len(taken))))
    names = (f"{number:0{digits}d}.png" for number in range(1 << 60))
    free = (name for name in names if name not in taken)
    kept = order if keep is None else order[:keep]
    moves = [Move(path.name, name) for path, name in zip(kept, free, strict=False)]
    trash = trash_folder(folder)
    in_trash = {path.name for path in trash.iterdir()} if trash.is_dir() else set()
    for path in order[len(kept) :]:
        name = unused_name(path, in_trash)
        in_trash.add(name)
        moves.append(Move(path.name, name, trashed=True))
    return moves


def apply_moves(folder: Path, moves: list[Move]) -> int:
    """Carries out `moves` in one transaction; returns how many faces had vanished meanwhile.

    The caller holds the lock of `folder` since before it looked what is in it.
    """
    journal = RenameJournal(folder, secrets.token_hex(4), tuple(moves), "sorted")
    if any(move.trashed for move in moves):
        trash_folder(folder).mkdir(exist_ok=True)
    _run_steps(journal, ("sort-lift", "sort-place", "sorted"))
    return sum(not journal.new(index).exists() for index in range(len(moves)))


def is_interrupted(folder: Path) -> bool:
    """True when a sort of `folder`, or its undo, was stopped half way. Raises BadFileError."""
    journal = _read(folder)
    return journal is not None and journal.step != "sorted"


def recover(folder: Path) -> None:
    """Restores the names of before the sort, after a sort or undo that was stopped half way.

    Raises UserError when another file has such a name by now.
    """
    with locked(folder, "undoing a sort"):
        journal = _read(folder)
        if journal is not None and journal.step != "sorted":
            _restore(journal)


def undo_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """(path now, path before the last sort) of the faces of that sort that still exist.

    Raises UserError when nothing was sorted, or when another file has a name that `undo` needs.
    """
    journal = _read(folder)
    if journal is None:
        raise UserError(f"{folder}: nothing to undo, no sort is recorded in it")
    pairs = [(journal.new(i), journal.old(i)) for i in range(len(journal.moves))]
    pairs = [(now, before) for now, before in pairs if now.exists()]
    leaving = {now for now, _ in pairs}
    for _, before in pairs:
        if before.exists() and before not in leaving:
            raise UserError(f"{before}: came after the sort and is in the way; move it first")
    return pairs


def undo(folder: Path) -> int:
    """Restores the names of before the last sort; returns how many faces were renamed.

    Raises UserError when nothing was sorted, or when another file has a name that is needed.
    """
    undo_pairs(folder)
    with locked(folder, "undoing a sort"):
        count = len(undo_pairs(folder))
        _restore(_read(folder))
    return count


def _restore(journal: RenameJournal) -> None:
    _run_steps(journal, UNDO[journal.step])
    (journal.folder / JOURNAL).unlink()


def _run_steps(journal: RenameJournal, steps: tuple[str, ...]) -> None:
    for step in steps:
        _write(journal, step)
        for index in range(len(journal.moves)):
            lifted = journal.lifted(index)
            if step.endswith("-lift") and not lifted.exists():
                start = journal.old(index) if step == "sort-lift" else journal.new(index)
                if start.exists():  # else the user deleted it
                    _move(start, lifted)
            elif step.endswith("-place") and lifted.exists():
                _move(lifted, journal.new(index) if step == "sort-place" else journal.old(index))


def _move(old: Path, new: Path) -> None:
    if new.exists():
        raise UserError(f"{new}: in the way of a face; move it and run again")
    old.rename(new)


def _write(journal: RenameJournal, step: str) -> None:
    """Records `step` on the disk, after all earlier renames and before all later ones."""
    for folder in (journal.folder, trash_folder(journal.folder)):
        if folder.is_dir():
            atomic.sync(folder)
    content = {"version": VERSION, "step": step, "token": journal.token}
    content["moves"] = [asdict(move) for move in journal.moves]
    atomic.write_text(journal.folder / JOURNAL, json.dumps(content))
    atomic.sync(journal.folder)


def _read(folder: Path) -> RenameJournal | None:
    """The journal of `folder`, checked, since it may come from elsewhere. Raises BadFileError."""
    path = folder / JOURNAL
    if not path.exists():
        return None
    content = foreign.read_bytes(path, MAX_JOURNAL)
    try:
        content = foreign.mapping(foreign.parse_json(content), "it", JOURNAL_KEYS)
        if content["version"] != VERSION or content["step"] not in list(UNDO):
            raise ValueError("another version")
        moves = tuple(map(_read_move, foreign.listing(content["moves"], "moves")))
        token = foreign.text(content["token"], "token", 100)
        if not token.isalnum():
            raise ValueError("a wrong token")
        return RenameJournal(folder, token, moves, content["step"])
    except ValueError as error:
        reason = f"not a journal of this program ({error}); delete it, no face depends on it"
        raise BadFileError(path, reason) from error


def _read_move(value: Any) -> Move:
    move = foreign.mapping(value, "a move", ("old", "new"), ("old", "new", "trashed"))
    names = [foreign.plain_name(move[key], key) for key in ("old", "new")]
    if not all(name.lower().endswith(".png") for name in names):
        raise ValueError("a name that is none of a PNG")
    trashed = move.get("trashed", False)
    if not isinstance(trashed, bool):
        raise ValueError(f"trashed {foreign.shown(trashed)} is not true or false")
    return Move(*names, trashed)


def move_to_trash(faces: list[Path]) -> list[tuple[Path, Path]]:
    """Moves `faces`, files of one folder, to its trash; returns (path before, path now) of each.

    Each move is one rename, so a face is always whole and in one of the two folders. A file that
    has vanished is skipped; a name that the trash already has gets -1, -2 ...
    """
    if not faces:
        return []
    folder = faces[0].parent
    trash = trash_folder(folder)
    with locked(folder, "moving faces to the trash"):
        trash.mkdir(exist_ok=True)
        return _move_each(faces, trash)


def restore_from_trash(faces: list[Path], folder: Path) -> list[tuple[Path, Path]]:
    """Moves `faces`, files of the trash of `folder`, back; returns (path before, path now) of each.

    A file that has vanished is skipped; a name that the folder already has gets -1, -2 ... Raises
    BadFileError for a file that is not in that trash.
    """
    trash = trash_folder(folder)
    for path in faces:
        if path.parent != trash:
            raise BadFileError(path, f"not in {trash}")
    with locked(folder, "taking faces from the trash"):
        return _move_each(faces, folder)


def _move_each(faces: list[Path], folder: Path) -> list[tuple[Path, Path]]:
    taken = {path.name for path in folder.iterdir()}
    moved = []
    for path in faces:
        now = folder / unused_name(path, taken)
        try:
            path.rename(now)
        except FileNotFoundError:
            continue
        taken.add(now.name)
        moved.append((path, now))
    return moved


def unused_name(path: Path, taken: set[str]) -> str:
    """The name of `path`; when it is `taken`, with -1, -2 ... before the suffix."""
    names = (f"{path.stem}-{number}{path.suffix}" for number in range(1, 1 << 60))
    return path.name if path.name not in taken else next(n for n in names if n not in taken)
