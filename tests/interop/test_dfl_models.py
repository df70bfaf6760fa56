"""Models of DeepFaceLab: the original's own numbers come out, and they go back as they came."""

import os
import pickle

import jax
import numpy as np
import pytest
from dfl_files import OPTIONS, tensor_shapes, tensors, write_model
from omegaconf import OmegaConf

from odfs_jax import saved_model
from odfs_jax.config import compose
from odfs_jax.data import foreign
from odfs_jax.errors import UserError
from odfs_jax.faces.types import FaceType
from odfs_jax.inference import make_swapper
from odfs_jax.interop import models
from odfs_jax.interop.import_dfl import export_dfl, import_dfl
from odfs_jax.interop.models import (
    export_model,
    find_model,
    import_model,
    read_params,
    settings_of,
)
from odfs_jax.nets import build_net
from odfs_jax.training.checkpoint import Checkpoints, check_start, start
from odfs_jax.training.objectives import make_objective
from odfs_jax.training.train import train

# archi: swap mean and sd, its pixel (1, 3) in BGR, swap mask mean, dst mask mean: as computed by
# the original program from the tensors and the picture that `dfl_files` and `picture` make
NUMBERS = {
    "df": (0.486398, 0.045901, (0.431815, 0.500235, 0.527540), 0.518385, 0.528518),
    "df-ud": (0.511672, 0.071377, (0.469893, 0.533720, 0.512480), 0.519698, 0.525160),
    "df-udc": (0.488656, 0.082938, (0.508048, 0.472167, 0.545026), 0.525023, 0.533854),
    "df-t": (0.521686, 0.032099, (0.514138, 0.555816, 0.509330), 0.524913, 0.529392),
    "liae-ud": (0.497190, 0.072065, (0.588626, 0.549766, 0.513875), 0.489650, 0.489779),
    "liae-udt": (0.489425, 0.061282, (0.530643, 0.505032, 0.432862), 0.492770, 0.492597),
}


def bgr_picture():
    return np.random.RandomState(7).uniform(0, 1, (1, 64, 64, 3)).astype(np.float32)


def assert_numbers(archi, model, params):
    swapper = make_swapper(model, params)
    face, mask, dst_mask = jax.jit(swapper.predict)(swapper.params, bgr_picture()[..., ::-1])
    mean, deviation, pixel, mask_mean, dst_mean = NUMBERS[archi]
    np.testing.assert_allclose(np.asarray(face)[0, 1, 3, ::-1], pixel, atol=1e-5)
    found = [np.mean(face), np.std(face), np.mean(mask), np.mean(dst_mask)]
    np.testing.assert_allclose(found, [mean, deviation, mask_mean, dst_mean], atol=1e-5)


def written(tmp_path, archi, **changes):
    """The folder of a small model called "new"."""
    options = OPTIONS | {"archi": archi}
    return write_model(tmp_path / "model", "new", "SAEHD", tensors(archi), options, **changes)


def like_of(model):
    net = build_net(model)
    return jax.eval_shape(net.init, jax.random.key(0), *net.blank())["params"]


def read_and_config(folder):
    """The parameters in a model's folder, and the settings of their network."""
    dfl = find_model(folder, None)
    config = compose("train", settings_of(dfl))
    assert config.model.face_type == "dfl_whole" and dfl.iteration == 1234
    return read_params(dfl, like_of(config.model)), config.model


@pytest.mark.slow
@pytest.mark.parametrize("archi", NUMBERS)
def test_a_folder_gives_the_numbers_of_the_original(tmp_path, archi):
    params, model = read_and_config(written(tmp_path, archi))
    assert_numbers(archi, model, params)


@pytest.mark.parametrize("archi", ["df", "df-udc", "df-t", "liae-udt"])
def test_what_is_read_is_written_back(tmp_path, archi):
    params, _ = read_and_config(written(tmp_path, archi, protocol=3))
    for file, keys in tensors(archi).items():
        found = models.tensors(file, params[file])
        assert found.keys() == keys.keys()
        for key, value in keys.items():
            np.testing.assert_array_equal(found[key], value)


def test_the_counts_of_tensors():
    counts = {file: len(keys) for file, keys in tensor_shapes("df-udt").items()}
    assert counts == {"encoder": 18, "inter": 4, "decoder_src": 44, "decoder_dst": 44}


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """The workspace into which a small liae-ud model was imported by the command, and its words."""
    folder = tmp_path_factory.mktemp("imported")
    source = written(folder, "liae-ud")
    config = compose("import_dfl", [f"workspace={folder}/work", f"model_folder={source}"])
    opened = []
    with pytest.MonkeyPatch.context() as patch:
        read = foreign.read_bytes
        patch.setattr(
            foreign, "read_bytes", lambda path, most: opened.append(path) or read(path, most)
        )
        import_dfl(config)
    assert not [path for path in opened if "merger_session" in path.name] and len(opened) > 4
    return folder / "work"


def test_an_imported_model_converts(imported):
    model = saved_model.load_model(imported / "models/new")
    assert model.step == 1234
    assert_numbers("liae-ud", model.config, model.params)
    assert 0.2 < model.src_eyes[:, 0].min() < model.src_eyes[:, 0].max() < 0.8


def test_an_imported_model_goes_on_training(imported):
    settings = settings_of(find_model(imported.parent / "model", "new"))
    names = [f"workspace={imported}", "name=new", "optimizer=adabelief_2020"]
    config = OmegaConf.to_container(compose("train", [*names, *settings]), resolve=True)
    objective = make_objective(config)
    checkpoints = Checkpoints(imported / "models/new")
    check_start(checkpoints, objective)
    state, history = start(checkpoints, objective, jax.local_devices()[:1])
    checkpoints.close()
    assert int(state.step) == 1234 and not history.rows
    kernel = state.params["autoencoder"]["inter_AB"]["dense1"]["kernel"]
    expected = tensors("liae-ud")["inter_AB"]["dense1/weight:0"]
    np.testing.assert_array_equal(kernel, expected)
    again = [f"workspace={imported}", f"model_folder={imported.parent / 'model'}"]
    with pytest.raises(UserError, match="exists already; give another name="):
        import_dfl(compose("import_dfl", again))


def test_what_goes_back_is_what_came(imported, tmp_path):
    config = ["name=new", "dfl_name=back", f"model_folder={tmp_path}/dfl", f"workspace={imported}"]
    export_dfl(compose("export_dfl", config))
    files = tensors("liae-ud")
    names = {f"back_SAEHD_{file}.npy" for file in (*files, "src_dst_opt")}
    names |= {"back_SAEHD_data.dat"}
    assert set(os.listdir(tmp_path / "dfl")) == names
    for file, keys in files.items():
        content = (tmp_path / f"dfl/back_SAEHD_{file}.npy").read_bytes()
        assert content[:2] == b"\x80\x04" and b"numpy._core" not in content
        found = pickle.loads(content)
        assert found.keys() == keys.keys()
        for key, value in keys.items():
            assert found[key].dtype == np.float32
            np.testing.assert_array_equal(found[key], value)
    data = pickle.loads((tmp_path / "dfl/back_SAEHD_data.dat").read_bytes())
    assert data["iter"] == 1234 and data["loss_history"] == []
    same = {key: value for key, value in OPTIONS.items() if key in data["options"]}
    assert data["options"] == {**same, "archi": "liae-ud"} and len(same) == 8
    dfl = find_model(tmp_path / "dfl", "back")
    model = saved_model.load_model(imported / "models/new")
    again = read_params(dfl, like_of(model.config))
    jax.tree.map(np.testing.assert_array_equal, again, jax.device_get(model.params))
    with pytest.raises(UserError, match="exists already; give another dfl_name="):
        export_dfl(compose("export_dfl", config))
    with pytest.raises(UserError, match="a name without _ and /"):
        export_dfl(compose("export_dfl", [*config, "dfl_name=a_b"]))


def test_amp_and_quick96_have_their_settings(tmp_path):
    options = {key: value for key, value in OPTIONS.items() if key != "face_type"}
    options |= {"inter_dims": 48, "morph_factor": 0.4, "face_type": "f"}
    folder = write_model(tmp_path / "model", "a", "AMP", {}, options)
    write_model(folder, "q", "Quick96", {}, {})
    amp = compose("train", settings_of(find_model(folder, "a"))).model
    assert (amp.net, amp.face_type, amp.resolution) == ("amp", FaceType.DFL_FULL, 64)
    assert (amp.args.inter_dims, amp.args.morph_factor) == (48, 0.4)
    quick = compose("train", settings_of(find_model(folder, "q"))).model
    assert (quick.net, quick.args.archi, quick.resolution) == ("saehd", "df-ud", 96)


# The shapes of AMP: encoder with a dense layer, inters of one, the decoder of udt
def amp_tensors(inter=48):
    shapes = tensor_shapes("liae-udt")
    encoder = shapes["encoder"] | {"dense1/weight:0": (512, 32), "dense1/bias:0": (32,)}
    own = {"dense2/weight:0": (32, 4 * inter), "dense2/bias:0": (4 * inter,)}
    decoder = dict(shapes["decoder"])
    for name in ("upscale0/conv1/weight:0", "upscalem0/conv1/weight:0"):
        size, _, _, outputs = decoder[name]
        decoder[name] = (size, size, inter, outputs)
    rng = np.random.default_rng(0)
    return {
        file: {key: rng.normal(0, 0.1, shape).astype(np.float32) for key, shape in keys.items()}
        for file, keys in {"encoder": encoder, "inter_src": own, "inter_dst": own,
                           "decoder": decoder}.items()
    }  # fmt: skip


def test_amp_is_read(tmp_path):
    options = OPTIONS | {"inter_dims": 48, "morph_factor": 0.5}
    files = amp_tensors()
    dfl = find_model(write_model(tmp_path / "model", "a", "AMP", files, options), None)
    params = read_params(dfl, like_of(compose("train", settings_of(dfl)).model))
    first = params["encoder"]["down1"]["conv1"]["kernel"]
    np.testing.assert_array_equal(first[:, :, ::-1], files["encoder"]["down1/conv1/weight:0"])
    for file, keys in files.items():  # as they are written back
        found = models.tensors(file, params[file])
        assert found.keys() == keys.keys()
        for key, value in keys.items():
            np.testing.assert_array_equal(found[key], value)


# ------------------------------------------------------------------------------------ refused


class System:
    def __reduce__(self):
        return os.system, ("touch /tmp/odfs-was-unpickled",)


FIRST, SECOND = "down1/downs_0/conv1/weight:0", "down1/downs_1/conv1/bias:0"


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (FIRST, None, "weight:0 is not there"),
        (FIRST, "x", "no array of float32"),
        (SECOND, np.zeros(31, "f4"), r"the shape \(31,\), not \(32,\)"),
        (SECOND, np.full(32, np.nan, "f4"), "not finite"),
        (SECOND, np.zeros(32, "i4"), "no array of float32"),
        ("down9/bias:0", np.zeros(3, "f4"), "'down9/bias:0' is not of this network"),
        ("down9/bias:0", System(), r"the global 'posix\.system'"),
        (..., None, "no such file"),
    ],
)
def test_a_file_that_does_not_fit_is_named(tmp_path, key, value, reason):
    files = tensors("df-ud")
    files["encoder"][key] = value
    if value is None:
        del files["encoder"][key]
    if key is ...:
        del files["encoder"]
    folder = write_model(tmp_path, "new", "SAEHD", files, OPTIONS | {"archi": "df-ud"})
    dfl = find_model(folder, None)
    like = like_of(compose("train", settings_of(dfl)).model)
    with pytest.raises(UserError, match=reason) as error:
        read_params(dfl, like)
    assert str(folder / "new_SAEHD_encoder.npy") in str(error.value)
    assert len(str(error.value)) < 400 and not os.path.exists("/tmp/odfs-was-unpickled")


def test_the_files_of_another_architecture_are_refused(tmp_path):
    options = OPTIONS | {"archi": "df-ud"}
    dfl = find_model(write_model(tmp_path, "new", "SAEHD", tensors("df-udt"), options), None)
    like = like_of(compose("train", settings_of(dfl)).model)
    with pytest.raises(UserError, match=r"new_SAEHD_\w+\.npy: .* is not of this network"):
        read_params(dfl, like)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"archi": None}, "archi None"),
        ({"archi": "dfhd"}, "archi=dfhd|model.args.archi"),
        ({"archi": "${oc.env:HOME}"}, "archi"),
        ({"resolution": 1 << 40}, "resolution"),
        ({"resolution": "64"}, "resolution '64'"),
        ({"face_type": "custom"}, "face_type 'custom'"),
        ({"ae_dims": -1}, "ae_dims -1"),
        ({"d_dims": 1e9}, "d_dims"),
    ],
)
def test_an_option_that_does_not_fit_is_named(tmp_path, change, reason):
    options = OPTIONS | {"archi": "df-ud"} | change
    folder = write_model(tmp_path / "model", "new", "SAEHD", {}, options)
    config = compose("import_dfl", [f"workspace={tmp_path}/work", f"model_folder={folder}"])
    with pytest.raises(UserError, match=reason):
        import_dfl(config)
    assert not (tmp_path / "work/models/new").exists()


def test_folders_without_one_model(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        find_model(tmp_path / "gone", None)
    with pytest.raises(UserError, match="0 models in it; give name=, one of: none"):
        find_model(tmp_path, None)
    write_model(tmp_path, "a", "SAEHD", {}, {}, iteration=0)
    write_model(tmp_path, "b", "AMP", {}, {})
    write_model(tmp_path, "..", "AMP", {}, {})
    with pytest.raises(
        UserError, match=r"2 models in it; give name=, one of: a \(SAEHD\), b \(AMP\)"
    ):
        find_model(tmp_path, None)
    with pytest.raises(UserError, match="iter 0 is not an integer in 1"):
        find_model(tmp_path, "a")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"net": "liae"}, "DeepFaceLab has no such network"),
        ({"width": 0.5}, "DeepFaceLab has no such network"),
        ({"face_type": "full"}, "a full model; DeepFaceLab cuts faces as dfl_half"),
        ({"args": {"ae_dims": 8}}, "DeepFaceLab has no such network .ae_dims 8"),
    ],
)
def test_models_that_deepfacelab_does_not_have(tmp_path, monkeypatch, change, reason):
    config = {"net": "saehd", "width": 1.0, "face_type": "dfl_full", "resolution": 64} | change
    config = {"args": {}} | config
    saved = saved_model.SavedModel(config, {}, np.zeros((12, 2)), 5)
    monkeypatch.setattr(saved_model, "load_model", lambda folder: saved)
    with pytest.raises(UserError, match=reason):
        export_model(tmp_path / "models/h64", tmp_path / "dfl", "h64")
    assert not (tmp_path / "dfl").exists()


@pytest.mark.slow
def test_an_imported_model_is_trained_by_its_settings(tmp_path, write_faceset):
    """With its discriminators, which begin afresh here."""
    changes = {"gan_power": 0.1, "gan_dims": 4, "true_face_power": 0.01, "batch_size": 2}
    options = OPTIONS | changes | {"archi": "df-ud", "eyes_mouth_prio": True, "clipgrad": True}
    folder = write_model(tmp_path / "model", "new", "SAEHD", tensors("df-ud"), options)
    work = tmp_path / "work"
    _, settings = import_model(find_model(folder, None), str(work), "new")
    for side in ("src", "dst"):
        (work / side / "aligned").mkdir(parents=True)
        write_faceset(work / side / "aligned", 4, face_type=FaceType.DFL_WHOLE)
    names = [f"workspace={work}", "name=new", "iterations=1236"]
    train(compose("train", [*names, "preview_every=0", "hardware.devices=cpu", *settings]))
    assert saved_model.load_model(work / "models/new").step == 1236
