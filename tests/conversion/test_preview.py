"""What a preview of other settings has to do again."""

import os

import pytest
from omegaconf import OmegaConf

from odfs_jax.config import compose
from odfs_jax.conversion import preview
from odfs_jax.errors import UserError


def test_dsts_eyes_are_measured_once(workspace, monkeypatch):
    """All of its faces are read for them: again only when the folder has changed."""
    calls, read_eyes = [], preview.read_eyes
    monkeypatch.setattr(preview, "read_eyes", lambda *a: calls.append(a[1]) or read_eyes(*a))
    aligned = workspace / "dst" / "aligned"
    (model,) = (workspace / "models").iterdir()
    previewer = preview.FramePreviewer(model, workspace / "dst.mp4", aligned)
    base = compose("convert", ["data=dst", "merge=overlay"]).merge
    for erode in (1, 2, 3):
        previewer.check(OmegaConf.merge(base, {"anchor": "eyes", "erode": erode}))
    assert calls == ["dst"]
    os.utime(aligned, ns=(5, 5))
    previewer.check(OmegaConf.merge(base, {"anchor": "eyes", "erode": 4}))
    previewer.check(OmegaConf.merge(base, {"anchor": "face", "erode": 4}))
    assert calls == ["dst", "dst"]
    aligned.rename(aligned.with_name("elsewhere"))
    with pytest.raises(UserError, match="no such folder"):
        previewer.check(base)
    aligned.with_name("elsewhere").rename(aligned)
