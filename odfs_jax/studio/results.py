"""The result of a workspace's conversions, which is never replaced unasked."""

from dataclasses import dataclass
from itertools import count
from pathlib import Path

from odfs_jax.conversion.shots import SUFFIX
from odfs_jax.data import foreign
from odfs_jax.data.lock import locked_result
from odfs_jax.data.workspace import LARGEST_SWAP_RECORD, SWAP_RECORD, default_result
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.studio.workspace import StudioWorkspace

MAX_PATH = 4096  # letters of a path in odfs-swap's record
COMPANIONS = (f"_merge{SUFFIX}", "_debug", "_evaluation.json", "_evaluation.png")  # of a result


def result_path(workspace: StudioWorkspace) -> Path:
    """Where `convert.py` writes the result. Raises UserError where there is no clip of dst."""
    return default_result(workspace.root, workspace.clip("dst"))


@dataclass(frozen=True)
class Made:
    """A result, its `name`, the folder it is in where that is another one, and when it was made."""

    name: str
    folder: str | None
    made: float  # seconds since 1970


def find_made(workspace: StudioWorkspace) -> Made | None:
    """The newest result: in the workspace, or one that `odfs-swap` made elsewhere; None: neither.

    The latter is what the record says: nothing outside the workspace is looked at.
    """
    found = []
    try:
        path = result_path(workspace)
        found.append(Made(path.name, None, path.stat().st_mtime))
    except (UserError, OSError):  # no clip of dst, no result
        pass
    try:
        record = foreign.read_json(workspace.root / SWAP_RECORD, LARGEST_SWAP_RECORD)
        made = foreign.mapping(foreign.mapping(record, "it")["convert"], "convert", ("out", "path"))
        _, changed = foreign.listing(made["out"], "out", 2)
        path = Path(foreign.text(made["path"], "path", MAX_PATH))
        changed = foreign.integer(changed, "out", 0, 1 << 63) / 1e9
        found.append(Made(path.name, str(path.parent), changed))
    except (BadFileError, KeyError, ValueError):
        pass
    return max(found, key=lambda one: one.made, default=None)


def keep_result(path: Path) -> None:
    """Moves a result and its companions aside: result.mp4 to the first free of result.1.mp4, ...

    Raises UserError while something writes the result.
    """
    with locked_result(path, "keeping an earlier result"):
        stem, suffix = path.stem, path.suffix
        stems = (f"{stem}.{number}" for number in count(1))
        kept = next(one for one in stems if not path.with_name(one + suffix).exists())
        for end in (suffix, f"_mask{suffix}", *COMPANIONS):
            old = path.with_name(stem + end)
            if old.exists():
                old.rename(path.with_name(kept + end))
