"""XSeg's files: found, checked, and every tensor where our network has it."""

import pickle

import jax
import numpy as np
import pytest

from odfs_jax.config import compose
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.interop.models import (
    export_model,
    find_model,
    import_model,
    moments_of,
    read_params,
    read_slots,
    settings_of,
)
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


def key_of(name):
    path, _, last = name.rpartition("/")
    return f"{path}/{RENAMED.get(last, last)}:0"


def drawn(like, low=-1.0):
    """Values for the parameters `like`, by the names that they have there."""
    rng = np.random.default_rng(0)
    return {
        key_of(name): rng.uniform(low, 1, shape).astype(np.float32)
        for name, shape in shapes(like).items()
    }


def squares_of(like):
    """The file of its optimizer, which is RMSprop."""
    squares = {f"acc_XSeg/{k.removesuffix(':0')}_0:0": v for k, v in drawn(like, 0).items()}
    return {"iters:0": np.int64(9000)} | squares


@pytest.fixture
def folder(tmp_path, like):
    """A folder as DeepFaceLab has it, of a small XSeg."""
    tensors = drawn(like)
    data = {"iter": 9000, "options": {"face_type": "wf", "batch_size": 4}, "loss_history": [[0.1]]}
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
        np.testing.assert_array_equal(value, tensors[key_of(name)])


def test_its_moments_are_those_of_a_mean_over_the_batch(folder, like):
    path, _ = folder
    slots = squares_of(like)
    (path / "XSeg_256_opt.npy").write_bytes(pickle.dumps(slots, 4))
    dfl = find_model(path, None)
    files = dfl.files_of("mask_net")
    name, found = read_slots(dfl.path(files.opt))
    (squares,) = moments_of(dfl, {"256": like}, name, found, files)
    assert name == "rmsprop"
    squares = named(squares["256"])
    first = squares.pop("conv01/conv/kernel")
    np.testing.assert_array_equal(first[:, :, ::-1] * 16, slots["acc_XSeg/conv01/conv/weight_0:0"])
    for name, value in squares.items():
        key = f"acc_XSeg/{key_of(name).removesuffix(':0')}_0:0"
        np.testing.assert_array_equal(value * 16, slots[key])


@pytest.mark.slow
def test_it_goes_in_and_out_bit_for_bit(folder, tmp_path):
    """At its own width, with its optimizer."""
    path, _ = folder
    net = build_mask_net(compose("train", ["model=xseg"]).model)
    like = jax.eval_shape(net.init, jax.random.key(0), *net.blank())["params"]
    files = {"256": drawn(like), "256_opt": squares_of(like)}
    for name, content in files.items():
        (path / f"XSeg_{name}.npy").write_bytes(pickle.dumps(content, 4))
    model, settings = import_model(find_model(path, None), str(tmp_path), "XSeg")
    assert compose("train", settings).optimizer.learning_rate == 1e-4
    export_model(model, tmp_path / "back", "no_name")
    for name, content in files.items():
        found = pickle.loads((tmp_path / f"back/XSeg_{name}.npy").read_bytes())
        assert found.keys() == content.keys()
        for key, value in content.items():
            np.testing.assert_array_equal(found[key], value)
    data = pickle.loads((tmp_path / "back/XSeg_data.dat").read_bytes())
    assert data["options"] == {"face_type": "wf", "batch_size": 4} and data["iter"] == 9000


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
