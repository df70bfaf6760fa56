"""A DeepFaceLab model goes on training as it was: its discriminators, optimizers and options."""

import logging
import os
import pickle

import jax
import numpy as np
import pytest
from dfl_files import (
    OPTIONS,
    judge_shapes,
    slots_of,
    tensor,
    tensor_shapes,
    tensors,
    write_model,
)
from omegaconf import OmegaConf

from odfs_jax import saved_model
from odfs_jax.config import compose
from odfs_jax.errors import UserError
from odfs_jax.interop.models import (
    FILES,
    export_model,
    find_model,
    import_model,
    moments_of,
    read_params,
)
from odfs_jax.interop.options import training_settings
from odfs_jax.nets.discriminator import Discriminator, strides_for
from odfs_jax.training.objectives import make_objective

BELIEF = {"ms": -1, "vs": 0}
NAMES = {"GAN": "D_src", "code_discriminator": "dis"}  # what SAEHD's optimizers call them
TRAINED = OPTIONS | {"archi": "df-d", "gan_power": 0.2, "gan_patch_size": 8, "gan_dims": 4,
                     "true_face_power": 0.01}  # fmt: skip


def judge_files():
    """Both discriminators of a small df model and their optimizers."""
    shapes = judge_shapes(4)
    files = {
        file: {key: tensor(file, key, shape) for key, shape in keys.items()}
        for file, keys in shapes.items()
    }
    for file, opt in (("GAN", "GAN_opt"), ("code_discriminator", "D_code_opt")):
        files[opt] = slots_of({file: shapes[file]}, BELIEF, seed=len(opt), names=NAMES)
    return files


def all_files():
    slots = slots_of(tensor_shapes("df-d"), BELIEF)
    return tensors("df-d") | {"src_dst_opt": slots} | judge_files()


def state_of(workspace, settings):
    """The state in the checkpoint of the model "new", as a run with `settings` reads it."""
    names = [f"workspace={workspace}", "name=new", *settings]
    config = OmegaConf.to_container(compose("train", names), resolve=True)
    like = jax.eval_shape(make_objective(config).init_state).nets
    parts = {name: {"params": net.params, "opt": net.opt} for name, net in like.items()}
    checkpoint = workspace / "models/new/checkpoints/1234"
    for name, own in parts.items():
        assert all(saved_model.has_part(checkpoint, name, part, own[part]) for part in own)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return saved_model.restore_state(checkpoint, {"nets": saved_model.on(device, parts)})["nets"]


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """(workspace, settings, log lines, state) of a df model with all that it was trained with."""
    folder = tmp_path_factory.mktemp("training")
    options = TRAINED | {"new_fangled": 7, "models_opt_on_gpu": True, "gan_old": False}
    source = write_model(folder / "model", "new", "SAEHD", all_files(), options)
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("odfs_jax.interop.models")
    logger.addHandler(handler)
    level, logger.level = logger.level, logging.INFO
    _, settings = import_model(find_model(source, None), str(folder), "new")
    logger.removeHandler(handler)
    logger.setLevel(level)
    return folder, settings, lines, state_of(folder, settings)


def test_discriminators_and_their_moments_come_along(imported):
    _, settings, _, nets = imported
    wanted = {"discriminator=unet", "discriminator.power=0.2", "discriminator.patch_size=8"}
    assert wanted | {"discriminator.dims=4", "loss.true_face=0.01"} <= set(settings)
    files = judge_files()
    params = nets["discriminator"]["params"]
    first = params["in_conv"]["kernel"]
    np.testing.assert_array_equal(first[:, :, ::-1], files["GAN"]["in_conv/weight:0"])  # BGR there
    up = params["upconvs_0"]["kernel"]
    np.testing.assert_array_equal(up, files["GAN"]["upconvs_0/weight:0"])
    moments = saved_model.named(nets["discriminator"]["opt"])
    (mean,) = (v for k, v in moments.items() if k.endswith("mean/upconvs_0/kernel"))
    np.testing.assert_array_equal(mean, files["GAN_opt"]["ms_D_src/upconvs_0/weight_0:0"] / 8)
    moments = saved_model.named(nets["code_discriminator"]["opt"])
    (scatter,) = (v for k, v in moments.items() if k.endswith("scatter/out_conv/bias"))
    expected = files["D_code_opt"]["vs_dis/out_conv/bias_0:0"] / 64
    np.testing.assert_array_equal(scatter, expected)


def test_one_line_names_what_is_not_taken_over(imported):
    (line,) = (line for line in imported[2] if "not taken over" in line)
    left = line.partition("not taken over: ")[2]
    assert left == ("new_fangled, loss_history, sample_for_preview, 'new_SAEHD_merger_session.dat'")


def test_out_and_in_again_is_the_same_bit_for_bit(imported, tmp_path):
    folder, settings, _, before = imported
    export_model(folder / "models/new", tmp_path / "dfl", "new")
    files = all_files()
    assert {path.name for path in (tmp_path / "dfl").iterdir()} == {
        f"new_SAEHD_{file}.npy" for file in files
    } | {"new_SAEHD_data.dat"}
    for file, keys in files.items():
        found = pickle.loads((tmp_path / f"dfl/new_SAEHD_{file}.npy").read_bytes())
        assert found.keys() == keys.keys()
        for key, value in keys.items():
            np.testing.assert_array_equal(found[key], value)
    dfl = find_model(tmp_path / "dfl", None)
    same = {key: dfl.options[key] for key in TRAINED if key in dfl.options}
    assert same == {key: TRAINED[key] for key in same}
    assert {"gan_power", "gan_patch_size", "gan_dims", "true_face_power", "adabelief"} < same.keys()
    import_model(dfl, str(tmp_path), "new")
    jax.tree.map(np.testing.assert_array_equal, before, state_of(tmp_path, settings))


def test_a_discriminator_says_what_the_original_says(tmp_path):
    """Its figures for the check tensors and the check picture, which is BGR."""
    files = {
        "GAN": {key: tensor("GAN", key, shape) for key, shape in judge_shapes(16)["GAN"].items()}
    }
    dfl = find_model(write_model(tmp_path, "new", "SAEHD", files, OPTIONS), None)
    net = Discriminator(strides_for(8), 16, unet=True)
    picture = np.random.RandomState(7).uniform(0, 1, (1, 64, 64, 3)).astype(np.float32)
    like = jax.eval_shape(net.init, jax.random.key(0), picture)["params"]
    params = read_params(dfl, {"GAN": like})["GAN"]
    center, out = net.apply({"params": params}, picture[..., ::-1])
    found = [np.mean(center), np.std(center), np.mean(out), np.std(out), out[0, 0, 0, 0]]
    np.testing.assert_allclose(found, [0.240869, 0.089524, 0.0398, 0.15805, 0.069405], atol=1e-5)


@pytest.mark.slow
def test_what_has_no_file_begins_afresh_and_is_named(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="odfs_jax")
    files = all_files()
    for file in ("GAN", "src_dst_opt", "D_code_opt"):
        del files[file]
    dfl = find_model(write_model(tmp_path / "a", "new", "SAEHD", files, TRAINED), None)
    _, settings = import_model(dfl, str(tmp_path), "new")
    (line,) = (text for text in caplog.messages if "begin afresh" in text)
    assert line.endswith(
        "the optimizer of autoencoder, the optimizer of code_discriminator, discriminator"
    )
    assert "'new_SAEHD_GAN_opt.npy'" in caplog.text and "optimizer=adabelief_2020" in settings
    opt = saved_model.named(state_of(tmp_path, settings)["autoencoder"]["opt"])
    assert not any(np.any(value) for name, value in opt.items() if "mean" in name)


@pytest.mark.parametrize(
    ("file", "key", "value", "reason"),
    [
        ("GAN", "in_conv/weight:0", np.zeros((1, 1, 4, 4), "f4"), r"the shape \(1, 1, 4, 4\)"),
        ("GAN", "convs_9/bias:0", np.zeros(4, "f4"), "'convs_9/bias:0' is not of this network"),
        ("GAN_opt", "vs_D_src/in_conv/bias_0:0", np.full(4, np.inf, "f4"), "not finite"),
        ("code_discriminator", "out_conv/bias:0", None, "is not there, or no array"),
        ("D_code_opt", "ms_dis/out_conv/bias_0:0", np.zeros(2, "f4"), r"the shape \(2,\)"),
    ],
)
def test_a_file_of_a_discriminator_that_does_not_fit_is_named(tmp_path, file, key, value, reason):
    files = all_files()
    files[file][key] = value
    dfl = find_model(write_model(tmp_path / "a", "new", "SAEHD", files, TRAINED), None)
    with pytest.raises(UserError, match=rf"new_SAEHD_{file}\.npy: .*{reason}"):
        import_model(dfl, str(tmp_path), "new")
    assert not os.path.exists(tmp_path / "models/new")


def test_amps_discriminator_has_another_name_for_its_optimizer(tmp_path):
    options = OPTIONS | {"inter_dims": 48, "batch_size": 4}
    slots = slots_of({"GAN": judge_shapes(4)["GAN"]}, {"acc": 0})
    dfl = find_model(write_model(tmp_path, "a", "AMP", {"GAN_opt": slots}, options), None)
    files = dfl.files_of("discriminator")
    net = Discriminator(strides_for(8), 4, unet=True)
    like = jax.eval_shape(net.init, jax.random.key(0), np.zeros((1, 64, 64, 3), "f4"))["params"]
    (squares,) = moments_of(dfl, {"GAN": like}, "rmsprop", slots, files)
    expected = slots["acc_GAN/center_conv/weight_0:0"] / 16
    np.testing.assert_array_equal(squares["GAN"]["center_conv"]["kernel"], expected)
    assert FILES["discriminator"].slot == "D_src"


# ------------------------------------------------------------------------------------ options

PLAIN = {"archi": "df", "resolution": 64, "batch_size": 8}
SETTINGS = {  # an option: what train.py is told beside what it is told anyway
    ("random_warp", False): ["augment.warp=0"],
    ("lr_dropout", "y"): ["optimizer.dropout=0.3", "optimizer.dropout_period=500"],
    ("lr_dropout", "cpu"): ["optimizer.dropout=0.3", "optimizer.dropout_period=500"],
    ("clipgrad", True): ["optimizer.clip_norm=0.125"],
    ("uniform_yaw", True): ["data.sampling=uniform_yaw"],
    ("masked_training", False): ["loss.masked=false"],
    ("eyes_mouth_prio", True): ["loss.eyes_mouth=10"],
    ("blur_out_mask", True): ["loss.blur_outside=true"],
    ("random_hsv_power", 0.05): ["augment.hsv=0.05"],
    ("ct_mode", "rct"): ["augment.color_transfer=rct"],
    ("face_style_power", 0.1): ["loss.face_style=10.0"],
    ("bg_style_power", 2.0): ["loss.background_style=0.2"],
    ("target_iter", 5000): ["iterations=5000"],
    ("random_src_flip", True): ["augment.flip_src=0.4"],
    ("random_dst_flip", False): ["augment.flip_dst=0"],
    ("random_flip", True): ["augment.flip_src=0.4"],
    ("pretrain", True): ["pretrain=true", "data=pretrain"],
    ("true_face_power", 0.01): ["loss.true_face=0.01"],
}


@pytest.mark.parametrize(("option", "expected"), SETTINGS.items(), ids=str)
def test_an_option_is_a_setting(option, expected):
    before, _ = training_settings("SAEHD", PLAIN)
    after, left = training_settings("SAEHD", PLAIN | dict([option]))
    assert [line for line in after if line not in before] == expected and not left


def test_an_option_is_a_setting_that_train_knows():
    told = dict(pair for pair in SETTINGS if pair[0] != "pretrain")
    options = PLAIN | told | {"gan_power": 1.0}
    settings, left = training_settings("SAEHD", options)
    config = compose("train", settings)
    assert not left and config.discriminator.patch_size == 8 and config.optimizer.dropout == 0.3
    for kind in ("Quick96", "XSeg"):
        assert compose("train", training_settings(kind, {"batch_size": 4})[0]).batch_size == 4


def test_without_the_sides_that_it_judges_a_model_has_no_discriminator():
    options = PLAIN | {"archi": "liae", "true_face_power": 0.5}
    assert not [s for s in training_settings("SAEHD", options)[0] if "true_face" in s]
    options |= {"gan_power": 0.1, "pretrain": True}
    assert not [s for s in training_settings("SAEHD", options)[0] if "discriminator" in s]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0), ("batch_size", "8"), ("random_warp", 2), ("lr_dropout", "maybe"),
        ("ct_mode", "fs-aug"), ("ct_mode", [1]), ("gan_power", -1.0), ("gan_power", "x"),
        ("true_face_power", float("nan")), ("target_iter", 1 << 40), ("clipgrad", np.zeros(2)),
    ],
)  # fmt: skip
def test_a_value_that_deepfacelab_does_not_have_is_refused(name, value):
    with pytest.raises(ValueError, match=name if name != "clipgrad" else "ambiguous"):
        training_settings("SAEHD", PLAIN | {name: value})
