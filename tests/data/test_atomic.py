"""Writes that fail leave the old file, and nothing else."""

import errno
import os
import stat

import pytest

from odfs_jax.data import atomic


def test_write_and_replace(tmp_path):
    path = tmp_path / "new" / "file.txt"
    atomic.write_text(path, "häé")
    assert path.read_bytes() == "häé".encode()
    atomic.write_bytes(path, b"second")
    assert path.read_bytes() == b"second" and len(list(path.parent.iterdir())) == 1


def test_the_mode_is_that_of_any_new_file(tmp_path):
    atomic.write_bytes(tmp_path / "ours", b"")
    (tmp_path / "usual").touch()
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "usual")}
    assert len(modes) == 1


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.png"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="stop"), atomic.replacing(path) as temporary:
        assert temporary.suffix == ".png" and temporary.parent == tmp_path
        temporary.write_bytes(b"half")
        raise RuntimeError("stop")
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        atomic.write_bytes(path, b"new")
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1
