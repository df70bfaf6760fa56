"""The two lists beside an aligned folder: frames without a face, and faces that were left out."""

from dataclasses import dataclass
from pathlib import Path

from odfs_jax.data import atomic
from odfs_jax.extraction.journal import Done, Journal

NO_FACE = "no_face.txt"
LEFT_OUT = "left_out.txt"


@dataclass(frozen=True)
class Lists:
    """How many frames have no face, and where that and the faces left out are listed."""

    count: int
    path: Path
    dropped: Path


def write_lists(journal: Journal, is_folder: bool) -> Lists:
    """Writes both lists anew from the whole `journal`.

    no_face.txt: a frame a line, its number or (`is_folder`) its name. left_out.txt: a face a line:
    the frame, the reason, the box (left, top, right, bottom; pixels) and the score, between tabs.
    """
    folder = journal.folder.parent
    frames = sorted(journal.frames.values(), key=lambda done: done.frame)
    empty = [done for done in frames if not done.faces]
    _write(folder / NO_FACE, [_name(done, is_folder) for done in empty])
    lines = [
        "\t".join(
            (
                _name(done, is_folder),
                face.reason,
                " ".join(f"{edge:g}" for edge in face.rect),
                f"{face.score:g}",
            )
        )
        for done in frames
        for face in done.dropped
    ]
    _write(folder / LEFT_OUT, lines)
    return Lists(len(empty), folder / NO_FACE, folder / LEFT_OUT)


def _write(path: Path, lines: list[str]) -> None:
    atomic.write_text(path, "".join(f"{line}\n" for line in lines))


def _name(done: Done, is_folder: bool) -> str:
    return done.file if is_folder else str(done.frame)
