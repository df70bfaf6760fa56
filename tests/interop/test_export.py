"""Exported files hold the network: onnxruntime gives for them what ours gives."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from omegaconf import OmegaConf

from odfs_jax.config import compose
from odfs_jax.errors import UserError
from odfs_jax.faces.spec import FaceSpec
from odfs_jax.faces.types import FaceType
from odfs_jax.inference import Swapper, make_swapper
from odfs_jax.interop.export import advice, dfm, onnx_model, safetensors
from odfs_jax.nets import build_net

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

LETTERS = ["model=saehd", "model.resolution=64"]
FULL = ("h64", "h128", "df", "liaef128", "miaef128", "quick96", "saehd", "saehd_224", "amp")


def random_swapper(*settings, width=1 / 32):
    """The swapper of a network of these settings with random weights, as exports take it."""
    model = OmegaConf.to_container(compose("train", [*settings, f"model.width={width}"]).model)
    net = build_net(model)
    shapes = jax.eval_shape(net.init, jax.random.key(0), *net.blank())["params"]
    rng = np.random.default_rng(0)

    def drawn(leaf):
        reach = np.sqrt(2 / np.prod(leaf.shape[:-1])) if leaf.ndim > 1 else 0.1
        return rng.normal(0, reach, leaf.shape).astype(np.float32)

    return make_swapper(model, jax.tree.map(drawn, shapes), conv_impl="xla")


def faces_of(swapper, count):
    side = swapper.input_spec.resolution
    return np.random.default_rng(1).random((count, side, side, 3), np.float32)


def session_of(content):
    return ort.InferenceSession(content, providers=["CPUExecutionProvider"])


def run(content, *inputs):
    session = session_of(content)
    names = [given.name for given in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))


@pytest.mark.parametrize(
    "settings",
    [
        ["model=h64", "model.resolution=32"],
        ["model=liaef128", "model.resolution=64"],
        ["model=miaef128", "model.resolution=64"],
        [*LETTERS, "model.args.archi=df-ud"],
        [*LETTERS, "model.args.archi=df-tc"],
        [*LETTERS, "model.args.archi=liae-udt"],
        *(pytest.param([f"model={name}"], marks=pytest.mark.slow, id=name) for name in FULL),
    ],
    ids=lambda settings: "-".join(settings),
)
def test_a_dfm_gives_what_our_inference_gives(settings):
    full_width = len(settings) == 1
    swapper = random_swapper(*settings, width=1 if full_width else 1 / 32)
    faces = faces_of(swapper, 1 if full_width else 3)
    morph = (np.array([0.5], np.float32),) * swapper.can_morph
    predict = jax.jit(swapper.predict)

    def outputs(params):
        face, mask, own = predict(params, faces, *morph)
        return [np.asarray(part) for part in (own, face[..., ::-1], mask)]

    wanted = outputs(swapper.params)
    rounded = jax.tree.map(lambda a: a.astype(np.float16).astype(np.float32), swapper.params)
    rounded = outputs(rounded)
    sizes = []
    for half in (False, True):
        content = dfm("a.dfm", swapper, {}, half=half)
        sizes.append(len(content))
        found = run(content, np.ascontiguousarray(faces[..., ::-1]), *morph)
        for ours, theirs, of_rounded in zip(wanted, found, rounded, strict=True):
            apart = np.abs(ours - theirs)
            assert theirs.dtype == np.float32 and theirs.std() > 0.01
            if half:  # storing the weights so is nearly all that it loses
                lost = np.abs(ours - of_rounded)
                assert apart.max() <= 2 * lost.max() and apart.mean() <= 1.3 * lost.mean()
            else:
                assert apart.max() <= 1e-4 and apart.mean() <= 1e-5
    assert sizes[1] < 0.6 * sizes[0]


def test_names_order_and_sizes_are_what_loaders_ask_for():
    swapper = random_swapper("model=amp", "model.resolution=64")
    content = dfm("a.dfm", swapper, {"odfs.name": "anna"}, half=False)
    model = onnx.load_model_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= 8 and [opset.version for opset in model.opset_import] == [12]
    assert {entry.key: entry.value for entry in model.metadata_props} == {"odfs.name": "anna"}
    session = session_of(content)
    inputs = [(given.name, given.type, given.shape) for given in session.get_inputs()]
    assert inputs == [
        ("in_face:0", "tensor(float)", ["N", 64, 64, 3]),
        ("morph_value:0", "tensor(float)", [1]),
    ]
    outputs = [(given.name, given.type, given.shape) for given in session.get_outputs()]
    assert outputs == [
        ("out_face_mask:0", "tensor(float)", ["N", 64, 64, 1]),
        ("out_celeb_face:0", "tensor(float)", ["N", 64, 64, 3]),
        ("out_celeb_face_mask:0", "tensor(float)", ["N", 64, 64, 1]),
    ]


def test_the_morph_value_says_how_much_is_src():
    swapper = random_swapper("model=amp", "model.resolution=64")
    content = dfm("a.dfm", swapper, {}, half=False)
    faces = faces_of(swapper, 2)
    shares = np.float32([0.0, 0.3, 1.0])
    found = [
        run(content, np.ascontiguousarray(faces[..., ::-1]), shares[i : i + 1])[1] for i in range(3)
    ]
    for share, theirs in zip(shares, found, strict=True):
        face, _, _ = jax.jit(swapper.predict)(swapper.params, faces, share[None])
        np.testing.assert_allclose(theirs[..., ::-1], face, atol=1e-4)
    assert np.abs(found[0] - found[2]).mean() > 0.01


def painter(change, side=16):
    """A swapper without a network: the new face is `change` of dst's."""
    spec = FaceSpec(FaceType.DFL_WHOLE, side)

    def predict(_params, faces):
        return change(faces), faces[..., :1], faces[..., 2:]

    return Swapper(predict, {}, spec, spec, has_dst_mask=True)


def test_a_dfm_is_bgr_and_an_onnx_file_rgb():
    """The network halves red; it is the last channel of the one and the first of the other."""
    swapper = painter(lambda faces: faces * jnp.array([[[[0.5, 1, 1]]]]))
    color = np.broadcast_to(np.float32([0.2, 0.4, 0.8]), (2, 16, 16, 3))
    own, face, mask = run(dfm("a.dfm", swapper, {}, half=False), color)
    np.testing.assert_allclose(face[:, 0, 0], [[0.2, 0.4, 0.4]] * 2)
    assert (own == color[..., :1]).all() and (mask == color[..., 2:]).all()  # blue, red
    face, mask, own = run(onnx_model("a.onnx", swapper, {}, half=False), color)
    np.testing.assert_allclose(face[:, 0, 0], [[0.1, 0.4, 0.8]] * 2)
    assert (mask == color[..., :1]).all() and (own == color[..., 2:]).all()


def test_a_network_that_enlarges_faces_is_no_dfm_but_an_onnx_file():
    swapper = random_swapper(
        "model=avatar", "model.resolution=64", "model.args.small_resolution=16"
    )
    with pytest.raises(UserError, match=r"a.dfm: a DFM makes of a face .*; format=onnx takes it"):
        dfm("a.dfm", swapper, {}, half=False)
    faces = faces_of(swapper, 2)
    face, mask, _ = jax.jit(swapper.predict)(swapper.params, faces)
    found = run(onnx_model("a.onnx", swapper, {}, half=False), faces)
    for ours, theirs in zip((face, mask), found, strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-4)


def test_what_onnx_has_no_operation_for_is_an_error():
    with pytest.raises(NotImplementedError, match="sort"):
        dfm("a.dfm", painter(lambda faces: jnp.sort(faces, axis=1)), {}, half=False)


def test_safetensors_hold_the_arrays_by_name():
    arrays = {"a/kernel": np.arange(6, dtype=np.float16).reshape(2, 3), "b": np.ones(5, np.float32)}
    content = b"".join(safetensors(arrays, {"odfs.name": "anna"}))
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    assert start % 8 == 0 and header.pop("__metadata__") == {"odfs.name": "anna"}
    for name, array in arrays.items():
        low, high = header[name]["data_offsets"]
        values = np.frombuffer(content[start + low : start + high], array.dtype)
        assert {"F16": np.float16, "F32": np.float32}[header[name]["dtype"]] == array.dtype
        assert (values.reshape(header[name]["shape"]) == array).all()
    assert start + high == len(content)


def test_advice_names_the_coverage_of_a_face_type():
    """Figures of DeepFaceLab's crops in DeepFaceLive's units."""
    assert advice(FaceType.DFL_WHOLE) == ["DeepFaceLive: coverage 2.13"]
    for kind, coverage in ((FaceType.HALF, "1.00"), (FaceType.DFL_FULL, "1.60")):
        first, second = advice(kind)
        assert first == f"DeepFaceLive: coverage {coverage}" and f"not for {kind}" in second
