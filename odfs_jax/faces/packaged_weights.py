"""Weight files that come inside installed packages: found by path, checked, never downloaded.

The packages are not imported: face-recognition-models needs a module of setuptools that is gone.
"""

import hashlib
import importlib.util
from pathlib import Path

from odfs_jax.errors import UserError


def package_file(package: str, inner: str) -> Path:
    """Path of the file `inner` of an installed `package`. Raises UserError when it is not there."""
    spec = importlib.util.find_spec(package)
    for place in [] if spec is None else spec.submodule_search_locations or []:
        path = Path(place) / inner
        if path.is_file():
            return path
    raise UserError(f"{package}: no file {inner}; run: pip install -c constraints.txt odfs-jax")


def verified(path: Path, sha256: str) -> bytes:
    """The content of `path` if its SHA-256 is the expected one; raises UserError otherwise."""
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise UserError(f"{path}: SHA-256 {found}, expected {sha256}; reinstall its package")
    return content
