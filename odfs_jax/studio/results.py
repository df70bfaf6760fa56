"""The result of a workspace's conversions, which is never replaced unasked."""

from itertools import count
from pathlib import Path

from odfs_jax.conversion.shots import SUFFIX
from odfs_jax.data.lock import locked_result
from odfs_jax.data.workspace import default_result
from odfs_jax.studio.workspace import StudioWorkspace

COMPANIONS = (f"_merge{SUFFIX}", "_debug", "_evaluation.json", "_evaluation.png")  # of a result


def result_path(workspace: StudioWorkspace) -> Path:
    """Where `convert.py` writes the result. Raises UserError where there is no clip of dst."""
    return default_result(workspace.root, workspace.clip("dst"))


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
