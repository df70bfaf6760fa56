"""XSeg's files: found, checked, and every tensor where our network has it."""

import pickle

import jax
import numpy as np
import pytest

from odfs_jax.errors import BadFileError, UserError
from odfs_jax.interop.models import find_model, read_params, settings_of
from odfs_jax.nets import build_mask_net
from odfs_jax.saved_model import named, shapes

SMALL = {
    "net": "xseg", "face_type": "dfl_whole", "resolution": 64, "width": 1.0, "args": {"base": 4}
}  # fmt: skip
RENAMED = {"kernel": "weight"}


@pytest.fixture(scope="module")
def like():
    net = build_mask_net(SMALL)
    return jax.eval_shape(net.init, jax.random.key(0), *net.blank())["params"]


@pytest.fixture
def folder(tmp_path, like):
    """A folder as DeepFaceLab has it, of a small XSeg."""
    rng = np.random.default_rng(0)
    tensors = {}
    for name, shape in shapes(like).items():
        path, _, last = name.rpartition("/")
        key = f"{path}/{RENAMED.get(last, last)}:0"
        tensors[key] = rng.normal(size=shape).astype(np.float32)
    data = {"iter": 9000, "options": {"face_type": "wf"}, "loss_history": [[0.1]]}
    (tmp_path / "XSeg_data.dat").write_bytes(pickle.dumps(data, 4))
    (tmp_path / "XSeg_256.npy").write_bytes(pickle.dumps(tensors, 4))
    return tmp_path, tensors


def test_every_tensor_is_where_the_network_has_it(folder, like):
    path, tensors = folder
    dfl = find_model(path, None)
    assert (dfl.kind, dfl.iteration) == ("XSeg", 9000)
    assert settings_of(dfl) == ["model=xseg", "model.face_type=dfl_whole"]
    params = named(read_params(dfl, {"256": like})["256"])
    assert len(params) == 222
    first = params.pop("conv01/conv/kernel")
    np.testing.assert_array_equal(first, tensors["conv01/conv/weight:0"][:, :, ::-1])  # BGR there
    for name, value in params.items():
        path, _, last = name.rpartition("/")
        np.testing.assert_array_equal(value, tensors[f"{path}/{RENAMED.get(last, last)}:0"])


def test_a_model_that_swaps_is_meant_before_it(folder):
    path, _ = folder
    data = {"iter": 5, "options": {"face_type": "wf"}}
    (path / "new_SAEHD_data.dat").write_bytes(pickle.dumps(data, 4))
    assert find_model(path, None).kind == "SAEHD"
    assert find_model(path, "XSeg").kind == "XSeg"
    with pytest.raises(UserError, match="0 models called old"):
        find_model(path, "old")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("up5/frn/eps:0"), "up5/frn/eps:0 is not there"),
        (lambda t: t.update({"more:0": np.zeros(3, np.float32)}), "more:0' is not of this network"),
        (lambda t: t["conv01/tlu/tau:0"].fill(np.nan), "conv01/tlu/tau:0 holds numbers that are"),
        (
            lambda t: t.update({"dense1/bias:0": np.zeros(3, np.float32)}),
            "dense1/bias:0 has the sh",
        ),
    ],
)
def test_files_that_do_not_fit_are_refused(folder, like, change, message):
    path, tensors = folder
    change(tensors)
    (path / "XSeg_256.npy").write_bytes(pickle.dumps(tensors, 4))
    with pytest.raises(BadFileError, match=message):
        read_params(find_model(path, None), {"256": like})
