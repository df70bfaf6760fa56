"""The optimizer of a DeepFaceLab model goes on here, and back there; AMP's numbers by PyTorch."""

import pickle

import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from dfl_files import OPTIONS, tensor, tensor_shapes, tensors, write_model
from test_dfl_models import amp_tensors, bgr_picture, like_of

from odfs_jax.config import compose
from odfs_jax.errors import UserError
from odfs_jax.inference import make_swapper
from odfs_jax.interop.import_dfl import export_dfl
from odfs_jax.interop.models import (
    find_model,
    import_model,
    moments_of,
    read_params,
    read_slots,
    settings_of,
)


def slots_of(shapes, moments, seed=3):
    """An optimizer's file for tensors of these shapes; `moments` is {"ms": least value} say."""
    rng = np.random.default_rng(seed)
    slots = {"iters:0": np.int64(1234)}
    for moment, low in moments.items():
        for file, keys in shapes.items():
            for key, shape in keys.items():
                value = rng.uniform(low, 1, shape).astype(np.float32)
                slots[f"{moment}_{file}/{key.removesuffix(':0')}_0:0"] = value
    return slots


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """(workspace, slots, settings) of a df model that was imported with its AdaBelief."""
    folder = tmp_path_factory.mktemp("moments")
    slots = slots_of(tensor_shapes("df-d"), {"ms": -1, "vs": 0})
    files = tensors("df-d") | {"src_dst_opt": slots}
    source = write_model(folder / "model", "new", "SAEHD", files, OPTIONS | {"archi": "df-d"})
    _, settings = import_model(find_model(source, None), str(folder), "new")
    return folder, slots, settings


def test_moments_are_those_of_a_mean_over_the_batch(imported):
    """DeepFaceLab's gradient is a sum over 8 samples; its pictures are BGR."""
    folder, slots, settings = imported
    assert settings[-1] == "optimizer=adabelief_2020"
    dfl = find_model(folder / "model", None)
    like = like_of(compose("train", settings_of(dfl)).model)
    mean, scatter = moments_of(dfl, like, *read_slots(dfl))
    inner, first = "ms_inter/dense1/weight_0:0", "vs_encoder/down1/downs_0/conv1/weight_0:0"
    np.testing.assert_allclose(mean["inter"]["dense1"]["kernel"], slots[inner] / 8)
    found = scatter["encoder"]["down1"]["downs_0"]["conv1"]["kernel"]
    np.testing.assert_allclose(found[:, :, ::-1], slots[first] / 64)


def test_they_go_back_as_they_came(imported, tmp_path):
    folder, slots, _ = imported
    names = ["name=new", "dfl_name=back", f"model_folder={tmp_path}", f"workspace={folder}"]
    export_dfl(compose("export_dfl", names))
    found = pickle.loads((tmp_path / "back_SAEHD_src_dst_opt.npy").read_bytes())
    assert found.keys() == slots.keys() and found["iters:0"] == 1234
    for key, value in slots.items():  # its batch is now 16, as the run's settings say
        factor = {"ms_": 2, "vs_": 4}.get(key[:3], 1)
        np.testing.assert_array_equal(found[key], factor * value)
    options = pickle.loads((tmp_path / "back_SAEHD_data.dat").read_bytes())["options"]
    assert options["adabelief"] is True and options["batch_size"] == 16


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ms_inter/dense1/bias_0:0": np.zeros(3, "f4")}, r"the shape \(3,\), not \(32,\)"),
        ({"ms_inter/dense1/bias_0:0": np.full(32, np.nan, "f4")}, "not finite"),
        ({"ms_inter/dense1/bias_0:0": None}, "no array of float32"),
    ],
)
def test_moments_that_do_not_fit_are_named(imported, tmp_path, change, reason):
    _, slots, _ = imported
    files = tensors("df-d") | {"src_dst_opt": slots | change}
    dfl = find_model(
        write_model(tmp_path, "new", "SAEHD", files, OPTIONS | {"archi": "df-d"}), None
    )
    like = like_of(compose("train", settings_of(dfl)).model)
    with pytest.raises(UserError, match=rf"new_SAEHD_src_dst_opt\.npy: .*{reason}"):
        moments_of(dfl, like, *read_slots(dfl))


def test_amps_inters_have_none(tmp_path):
    files = amp_tensors()
    shapes = {
        file: {key: value.shape for key, value in files[file].items()}
        for file in ("encoder", "decoder")
    }
    files |= {"src_dst_opt": slots_of(shapes, {"acc": 0})}
    options = OPTIONS | {"inter_dims": 48, "morph_factor": 0.5, "batch_size": 1}
    dfl = find_model(write_model(tmp_path, "a", "AMP", files, options), None)
    like = like_of(compose("train", settings_of(dfl)).model)
    name, slots = read_slots(dfl)
    (squares,) = moments_of(dfl, like, name, slots)
    assert name == "rmsprop" and not squares["inter_src"]["dense2"]["kernel"].any()
    expected = slots["acc_decoder/out_convm/bias_0:0"]
    np.testing.assert_array_equal(squares["decoder"]["out_convm"]["bias"], expected)


def test_without_a_file_it_begins_afresh(tmp_path):
    dfl = find_model(write_model(tmp_path, "new", "SAEHD", tensors("df"), OPTIONS), None)
    assert read_slots(dfl) == (None, {})


class AmpTorch:
    """AMP in PyTorch, from the tensors of its files, BGR: written from docs/from_deepfacelab.md."""

    def __init__(self, files):
        self.files = {
            file: {key: torch.from_numpy(value) for key, value in keys.items()}
            for file, keys in files.items()
        }

    def conv(self, file, name, x, stride=1):
        kernel = self.files[file][f"{name}/weight:0"].permute(3, 2, 0, 1)
        bias = self.files[file][f"{name}/bias:0"]
        return F.conv2d(x, kernel, bias, stride, kernel.shape[-1] // 2)

    def dense(self, file, name, x):
        return x @ self.files[file][f"{name}/weight:0"] + self.files[file][f"{name}/bias:0"]

    def residual(self, file, name, x):
        y = F.leaky_relu(self.conv(file, f"{name}/conv1", x), 0.2)
        return F.leaky_relu(x + self.conv(file, f"{name}/conv2", y), 0.2)

    def shuffled(self, x):
        n, c, h, w = x.shape
        x = x.reshape(n, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2)
        return x.reshape(n, c // 4, 2 * h, 2 * w)

    def up(self, name, x):
        return self.shuffled(F.leaky_relu(self.conv("decoder", f"{name}/conv1", x), 0.1))

    def encode(self, x):
        for i in range(1, 6):
            x = F.leaky_relu(self.conv("encoder", f"down{i}/conv1", x, 2), 0.1)
            x = self.residual("encoder", f"res{i}", x) if i in (1, 5) else x
        x = x.flatten(1)
        x = x * torch.rsqrt((x**2).mean(1, keepdim=True) + 1e-6)
        return self.dense("encoder", "dense1", x)

    def decode(self, code):
        x = m = code
        for i in range(4):
            x = self.residual("decoder", f"res{i}", self.up(f"upscale{i}", x))
        names = ("out_conv", "out_conv1", "out_conv2", "out_conv3")
        face = torch.cat([self.conv("decoder", name, x) for name in names], 1)
        for i in range(5):
            m = self.up(f"upscalem{i}", m)
        mask = torch.sigmoid(self.conv("decoder", "out_convm", m))
        return torch.sigmoid(self.shuffled(face)), mask

    def swap(self, dst, morph):
        features = self.encode(dst)
        codes = {s: self.dense(f"inter_{s}", "dense2", features) for s in ("src", "dst")}
        src, dst = (codes[side].reshape(1, -1, 2, 2) for side in ("src", "dst"))
        first = int(src.shape[1] * morph)
        return *self.decode(torch.cat([src[:, :first], dst[:, first:]], 1)), self.decode(dst)[1]


@pytest.mark.parametrize("morph", [1.0, 0.3])
def test_amp_gives_the_numbers_of_the_same_weights_in_pytorch(tmp_path, morph):
    files = {
        file: {key: tensor(file, key, value.shape) for key, value in keys.items()}
        for file, keys in amp_tensors().items()
    }
    options = OPTIONS | {"inter_dims": 48, "morph_factor": 0.5}
    dfl = find_model(write_model(tmp_path, "a", "AMP", files, options), None)
    model = compose("train", settings_of(dfl)).model
    swapper = make_swapper(model, read_params(dfl, like_of(model)), morph=morph)
    ours = jax.jit(swapper.predict)(swapper.params, bgr_picture()[..., ::-1])
    picture = torch.from_numpy(bgr_picture()).permute(0, 3, 1, 2)
    theirs = [part.permute(0, 2, 3, 1).numpy() for part in AmpTorch(files).swap(picture, morph)]
    np.testing.assert_allclose(np.asarray(ours[0])[..., ::-1], theirs[0], atol=1e-5)
    for mine, other in zip(ours[1:], theirs[1:], strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)
