"""Faces thrown out by hand: single files to the trash beside their folder, and back.

Each move is one rename, so a face is always whole and in one of the two folders. What a sort threw
out lies in the same trash (`sorting/rename.py`).
"""

from pathlib import Path

from odfs_jax.curation.rename import free_name, trash_of
from odfs_jax.errors import BadFileError


def to_trash(faces: list[Path]) -> list[tuple[Path, Path]]:
    """Moves `faces`, files of one folder, to its trash; (path before, path now) of each.

    A file that has vanished is passed over; a name that the trash has already gets -1, -2 ...
    """
    if not faces:
        return []
    trash = trash_of(faces[0].parent)
    trash.mkdir(exist_ok=True)
    return _move(faces, trash)


def from_trash(faces: list[Path], folder: Path) -> list[tuple[Path, Path]]:
    """Moves `faces`, files of the trash of `folder`, back into it; as `to_trash`.

    Raises BadFileError for a file that is not in that trash.
    """
    trash = trash_of(folder)
    for path in faces:
        if path.parent != trash:
            raise BadFileError(path, f"not in {trash}")
    return _move(faces, folder)


def _move(faces: list[Path], folder: Path) -> list[tuple[Path, Path]]:
    taken = {path.name for path in folder.iterdir()}
    moved = []
    for path in faces:
        now = folder / free_name(path, taken)
        try:
            path.rename(now)
        except FileNotFoundError:
            continue
        taken.add(now.name)
        moved.append((path, now))
    return moved
