"""Marking what this program makes as edited by AI, and reading such marks (docs/provenance.md)."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path


def _library() -> Path:
    """The native library of the installed c2pa package."""
    name = {"darwin": "libc2pa_c.dylib", "win32": "c2pa_c.dll"}.get(sys.platform, "libc2pa_c.so")
    return next(Path(find_spec("c2pa").origin).parent.rglob(name))


# c2pa would load a library of that name from the current folder, which may be a stranger's
# workspace, before its own. It joins this to the folders it looks in: an absolute path stays.
os.environ["C2PA_LIBRARY_NAME"] = str(_library())
