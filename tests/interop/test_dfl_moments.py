"""The optimizer of a DeepFaceLab model goes on here, and back there."""

import pickle

import numpy as np
import pytest
from dfl_files import OPTIONS, slots_of, tensor_shapes, tensors, write_model
from test_dfl_models import amp_tensors, like_of

from odfs_jax.config import compose
from odfs_jax.errors import UserError
from odfs_jax.interop.import_dfl import export_dfl
from odfs_jax.interop.models import (
    find_model,
    import_model,
    moments_of,
    read_slots,
    settings_of,
)

OPT = "src_dst_opt.npy"


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
    assert "optimizer=adabelief_2020" in settings and "batch_size=8" in settings
    dfl = find_model(folder / "model", None)
    like = like_of(compose("train", settings_of(dfl)).model)
    mean, scatter = moments_of(dfl, like, *read_slots(dfl.path(OPT)))
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
    for key, value in slots.items():
        np.testing.assert_array_equal(found[key], value)
    options = pickle.loads((tmp_path / "back_SAEHD_data.dat").read_bytes())["options"]
    assert options["adabelief"] is True and options["batch_size"] == 8


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
        moments_of(dfl, like, *read_slots(dfl.path(OPT)))


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
    name, slots = read_slots(dfl.path(OPT))
    (squares,) = moments_of(dfl, like, name, slots)
    assert name == "rmsprop" and not squares["inter_src"]["dense2"]["kernel"].any()
    expected = slots["acc_decoder/out_convm/bias_0:0"]
    np.testing.assert_array_equal(squares["decoder"]["out_convm"]["bias"], expected)


def test_without_a_file_it_begins_afresh(tmp_path):
    dfl = find_model(write_model(tmp_path, "new", "SAEHD", tensors("df"), OPTIONS), None)
    assert read_slots(dfl.path(OPT)) == (None, {})
