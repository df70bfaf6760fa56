"""Renaming a whole folder of faces as one act: done, or undone by the next run.

Every face first gets a name of its own that nobody else uses (it is lifted), then its new name (it
is placed), so that no two faces ever meet. A journal in the folder says which step is under way.
At any moment each face has exactly one name, and is a PNG in the folder or in the trash beside it.

    sort:     sort-lift -> sort-place -> sorted
    undo:     undo-lift -> undo-place -> no journal          (from sort-place or sorted)
              undo-place -> no journal                       (from sort-lift)
"""

import json
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from odfs_jax.data import atomic
from odfs_jax.errors import BadFileError, UserError

JOURNAL = ".odfs_sort.json"
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
    """A face's plain file names. `trashed`: the new one is in the trash folder."""

    old: str
    new: str
    trashed: bool = False


@dataclass(frozen=True)
class Journal:
    """The moves of the last sort of `folder`, and how far it, or undoing it, has come."""

    folder: Path
    token: str  # part of the names of lifted faces
    moves: tuple[Move, ...]
    step: str

    def old(self, index: int) -> Path:
        return self.folder / self.moves[index].old

    def lifted(self, index: int) -> Path:
        return self.folder / f"sorting-{self.token}-{index:05d}.png"

    def new(self, index: int) -> Path:
        return destination(self.folder, self.moves[index])


def trash_of(folder: Path) -> Path:
    """`<folder>_trash` beside `folder`, or beside the folder that it is a link to."""
    real = folder.resolve() if folder.is_symlink() else folder
    return real.with_name(f"{real.name}_trash")


def destination(folder: Path, move: Move) -> Path:
    """Where `move` puts a face of `folder`."""
    return (trash_of(folder) if move.trashed else folder) / move.new


def plan(folder: Path, order: Iterable[Path], keep: int | None) -> list[Move]:
    """`order`, faces of `folder`, as 00000.png ...; beyond `keep` into the trash, name unchanged.

    A name that a file has which is not in `order` is passed over. More than 100,000 faces get
    longer names, so that they still sort.
    """
    order = list(order)
    taken = {path.name for path in folder.iterdir()} - {path.name for path in order}
    digits = max(5, len(str(len(order) + len(taken))))
    names = (f"{number:0{digits}d}.png" for number in range(1 << 60))
    free = (name for name in names if name not in taken)
    kept = order if keep is None else order[:keep]
    moves = [Move(path.name, name) for path, name in zip(kept, free, strict=False)]
    trash = trash_of(folder)
    in_trash = {path.name for path in trash.iterdir()} if trash.is_dir() else set()
    for path in order[len(kept) :]:
        name = free_name(path, in_trash)
        in_trash.add(name)
        moves.append(Move(path.name, name, trashed=True))
    return moves


def carry_out(folder: Path, moves: list[Move]) -> int:
    """Renames as planned; gives the number of faces that had vanished meanwhile."""
    journal = Journal(folder, secrets.token_hex(4), tuple(moves), "sorted")
    if any(move.trashed for move in moves):
        trash_of(folder).mkdir(exist_ok=True)
    _run(journal, ("sort-lift", "sort-place", "sorted"))
    return sum(not journal.new(index).exists() for index in range(len(moves)))


def interrupted(folder: Path) -> bool:
    """True when a sort of `folder`, or its undoing, was stopped half way. Raises BadFileError."""
    journal = _read(folder)
    return journal is not None and journal.step != "sorted"


def recover(folder: Path) -> None:
    """After a sort or undo that was stopped half way: every face gets its name of before the sort.

    Raises UserError when another file has that name by now.
    """
    journal = _read(folder)
    if journal is not None and journal.step != "sorted":
        _restore(journal)


def undoable(folder: Path) -> list[tuple[Path, Path]]:
    """(path now, path before the last sort) of the faces that are left of that sort.

    Raises UserError when nothing was sorted, or when a file has a name that `undo` needs.
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
    """Gives the faces that are left their names of before the last sort; their number.

    Raises UserError as `undoable` does.
    """
    count = len(undoable(folder))
    _restore(_read(folder))
    return count


def _restore(journal: Journal) -> None:
    _run(journal, UNDO[journal.step])
    (journal.folder / JOURNAL).unlink()


def _run(journal: Journal, steps: tuple[str, ...]) -> None:
    for step in steps:
        _write(journal, step)
        for index in range(len(journal.moves)):
            lifted = journal.lifted(index)
            if step.endswith("-lift") and not lifted.exists():
                start = journal.old(index) if step == "sort-lift" else journal.new(index)
                if start.exists():  # else it is gone: the user deleted it
                    _move(start, lifted)
            elif step.endswith("-place") and lifted.exists():
                _move(lifted, journal.new(index) if step == "sort-place" else journal.old(index))


def _move(old: Path, new: Path) -> None:
    if new.exists():
        raise UserError(f"{new}: in the way of a face; move it and run again")
    old.rename(new)


def _write(journal: Journal, step: str) -> None:
    """Puts the journal at `step` on the disk, after all renames before and before all after."""
    for folder in (journal.folder, trash_of(journal.folder)):
        if folder.is_dir():
            atomic.sync(folder)
    content = {"version": VERSION, "step": step, "token": journal.token}
    content["moves"] = [asdict(move) for move in journal.moves]
    atomic.write_text(journal.folder / JOURNAL, json.dumps(content))
    atomic.sync(journal.folder)


def _read(folder: Path) -> Journal | None:
    """The journal of `folder`, checked, for it may come from elsewhere. Raises BadFileError."""
    path = folder / JOURNAL
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
        if content["version"] != VERSION or content["step"] not in UNDO:
            raise ValueError("another version")
        moves = tuple(Move(**move) for move in content["moves"])
        if not all(_plain(name) for move in moves for name in (move.old, move.new)):
            raise ValueError("a name that is not a plain one")
        if not content["token"].isalnum():
            raise ValueError("a wrong token")
        return Journal(folder, content["token"], moves, content["step"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = f"not a journal of this program ({error}); delete it, no face depends on it"
        raise BadFileError(path, reason) from error


def _plain(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name and name.endswith(".png")


def free_name(path: Path, taken: set[str]) -> str:
    """The name of `path`, or with -1, -2 ... before the suffix, such that it is not `taken`."""
    names = (f"{path.stem}-{number}{path.suffix}" for number in range(1, 1 << 60))
    return path.name if path.name not in taken else next(n for n in names if n not in taken)
