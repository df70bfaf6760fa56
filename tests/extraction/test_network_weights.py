"""Weight files: read without running anything in them, found, fetched, and named when they lack."""

import io
import pickle
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from odfs_jax.data import foreign
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.extraction import weights
from odfs_jax.extraction.detectors import build_detector
from odfs_jax.extraction.landmarkers import build_landmarker
from odfs_jax.nets.detectors import fan, s3fd

ROOT = Path(__file__).parents[2]


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def state():
    """A random state dict of an S3fdNet with PyTorch's names and axes, small in value."""
    shapes = jax.eval_shape(
        s3fd.S3fdNet().init, jax.random.key(0), jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    )
    rng, result = np.random.default_rng(0), {}
    for (_, *layers, kind), leaf in flatten_dict(shapes).items():
        value = rng.normal(0, 0.01, leaf.shape).astype(np.float32)
        name = ".".join([*layers, kind.replace("kernel", "weight")])
        result[name] = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
    return result


def test_an_npz_comes_back_leaf_by_leaf(tmp_path, state):
    np.savez(tmp_path / "s3fd.npz", **state)
    params = weights.load_variables(s3fd.S3fdNet(), (1, 64, 64, 3), tmp_path / "s3fd.npz")
    kernel = params["params"]["conv1_1"]["kernel"]
    np.testing.assert_array_equal(kernel.transpose(3, 2, 0, 1), state["conv1_1.weight"])
    weight = params["params"]["conv3_3_norm"]["weight"]
    np.testing.assert_array_equal(weight, state["conv3_3_norm.weight"])


def test_weights_of_another_network_are_named(tmp_path, state):
    path = tmp_path / "weights.npz"
    np.savez(path, **state)
    with pytest.raises(BadFileError, match=r"not weights of Fan: it lacks batch_stats/bn1/mean"):
        weights.load_variables(fan.FanNet(), (1, 64, 64, 3), path)
    np.savez(path, **state | {"extra.bias": np.zeros(3)})
    with pytest.raises(BadFileError, match="has besides params/extra/bias"):
        weights.load_variables(s3fd.S3fdNet(), (1, 64, 64, 3), path)
    np.savez(path, **state | {"fc7.bias": np.zeros(3)})
    with pytest.raises(BadFileError, match=r"params/fc7/bias has shape \(3,\), expected \(1024,\)"):
        weights.load_variables(s3fd.S3fdNet(), (1, 64, 64, 3), path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x93NUMPY", b"text"])
def test_foreign_bytes_are_named(tmp_path, content):
    path = tmp_path / "weights.npz"
    path.write_bytes(content)
    with pytest.raises(BadFileError, match=r"weights\.npz: no \.npz of arrays"):
        foreign.read_npz(path)


def test_objects_in_files_are_never_unpickled(tmp_path):
    mark, path = tmp_path / "PWNED", tmp_path / "weights.npz"
    np.savez(path, a=np.array([Evil(mark)], object))
    with pytest.raises(BadFileError, match=r"no \.npz of arrays"):
        foreign.read_npz(path)
    pytest.importorskip("torch")
    for content in (pickle.dumps({"a": Evil(mark)}), saved_by_torch({"a": Evil(mark)})):
        (tmp_path / "weights.pth").write_bytes(content)
        with pytest.raises(BadFileError, match="no state dict of tensors"):
            weights.read_torch(tmp_path / "weights.pth")
    assert not mark.exists()


def saved_by_torch(content) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def test_the_script_makes_an_npz_of_a_state_dict(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"a.weight": torch.ones(2, 3)}, tmp_path / "net.pth")
    script = [sys.executable, ROOT / "scripts" / "convert_weights.py"]
    subprocess.run([*script, tmp_path / "net.pth", tmp_path / "net.npz"], check=True, cwd=tmp_path)
    arrays = foreign.read_npz(tmp_path / "net.npz")
    np.testing.assert_array_equal(arrays["a.weight"], np.ones((2, 3)))


def test_missing_weights_say_where_to_put_them(tmp_path, monkeypatch, configure):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError) as error:
        build_landmarker(configure("landmarks=fan").landmarks)
    message = str(error.value)
    assert str(tmp_path / "hub" / "checkpoints" / "2DFAN4-11f355bf06.pth.tar") in message
    for part in (
        "95.9 MB",
        "SHA-256 begins 11f355bf06",
        "landmarks.args.weights",
        "face_mesh works",
    ):
        assert part in message
    with pytest.raises(UserError, match=r"s3fd-619a316812\.pth .*detector=mtcnn works offline"):
        build_detector(configure("detector=sfd").detector)
    with pytest.raises(UserError, match=r"detector\.args\.weights=/none: no such file"):
        build_detector(configure("detector=sfd", "detector.args.weights=/none").detector)


def test_a_failed_fetch_and_a_changed_file_are_named(tmp_path, monkeypatch, configure):
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def fail(url, path, sha256, progress):
        assert url == weights.SITE + "s3fd-619a316812.pth" and sha256 == "619a316812"
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(UserError, match=r"not fetched: no route to host; put s3fd-619a316812\.pth"):
        build_detector(configure("detector=sfd").detector)
    path = tmp_path / "hub" / "checkpoints" / "s3fd-619a316812.pth"
    path.write_bytes(b"something else")
    with pytest.raises(BadFileError, match=r"SHA-256 .* expected one that begins 619a316812"):
        build_detector(configure("detector=sfd").detector)
