"""What is asked for where the library of an extra is missing: one line that says how to get it."""

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from odfs_jax.config import compose
from odfs_jax.errors import UserError
from odfs_jax.extraction.detectors import build_detector
from odfs_jax.faces import identity
from odfs_jax.runtime import extras
from odfs_jax.studio import server
from odfs_jax.studio.workspace import StudioWorkspace

ROOT = Path(__file__).parents[2]


def test_the_studio(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nicegui", None)
    monkeypatch.delitem(sys.modules, "odfs_jax.studio.app", raising=False)
    line = r"^nicegui is not installed; run: pip install 'odfs-jax\[studio\]'$"
    with pytest.raises(UserError, match=line):
        server.serve(StudioWorkspace(tmp_path), {}, "/")


def test_who_a_face_is(monkeypatch):
    assert identity.is_installed()
    monkeypatch.setitem(sys.modules, "dlib", None)
    assert not identity.is_installed()
    line = r"^dlib is not installed; run: pip install 'odfs-jax\[identity\]'$"
    with pytest.raises(UserError, match=line):
        identity.embedding(np.zeros((8, 8, 3), np.uint8), np.zeros((68, 2)))
    with pytest.raises(UserError, match=line):
        build_detector(compose("extract", ["data=src", "detector=dlib"]).detector)


def test_every_extra_that_is_advised_exists():
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for path in (ROOT / "odfs_jax").rglob("*.py"):
        for call in ('extra("', 'advice("'):
            for use in path.read_text().split(call)[1:]:
                assert use.split('"')[0] in known, path
    assert extras.advice("fan") == "run: pip install 'odfs-jax[fan]'"


def test_no_command_imports_what_an_extra_installs():
    """The modules of all commands but the studio's pages load where no extra is installed."""
    program = """
import importlib, pathlib, sys
for name in ("dlib", "nicegui", "fastapi", "torch", "joblib", "lz4", "mtcnn", "skimage"):
    sys.modules[name] = None
for path in sorted(pathlib.Path("odfs_jax").rglob("*.py")):
    if not path.match("studio/pages/*") and path.stem not in ("app", "layout"):
        importlib.import_module(".".join(path.with_suffix("").parts))
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=120)
