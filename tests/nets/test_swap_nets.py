"""The swap networks as their YAML describes them: sizes, shapes, and which way a face goes."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from omegaconf import OmegaConf

from odfs_jax.config import config_dir
from odfs_jax.errors import UserError
from odfs_jax.faces.spec import FaceSpec
from odfs_jax.faces.types import FaceType
from odfs_jax.nets import build_net
from odfs_jax.nets.avatar import Avatar
from odfs_jax.nets.liae import Liae
from odfs_jax.nets.miaef import Miaef
from odfs_jax.nets.shared_encoder import SharedEncoder

TINY = {"width": 1 / 32, "resolution": 32}
FAMILIES = ["h64", "liaef128", "miaef128", "avatar"]  # one model of each network


def model(name, **changes):
    """The model of a YAML of configs/model, its defaults chain included."""
    own = OmegaConf.load(Path(config_dir()) / "model" / f"{name}.yaml")
    bases = [base for base in own.pop("defaults", []) if isinstance(base, str)]
    merged = OmegaConf.merge(*(model(base) for base in bases if base != "_self_"), own)
    return OmegaConf.to_container(merged) | changes


def tiny_model(name):
    """The smallest sensible form of a model: 32 pixels, of AVATAR 16 in and 32 out."""
    small = model(name, **TINY)
    if "small_resolution" in small["args"]:
        small["args"] |= {"small_resolution": 16}
    return small


def shapes_of(net):
    return jax.eval_shape(net.init, jax.random.key(0), *net.blank())["params"]


def random_params(net, seed=0):
    """Parameters without the cost of compiling the network's own start; the code depends on x."""
    rng = np.random.default_rng(seed)

    def leaf(a):
        return rng.normal(0, np.sqrt(2 / np.prod(a.shape[:-1]) if a.ndim > 1 else 0.01), a.shape)

    return jax.tree.map(lambda a: leaf(a).astype(a.dtype), shapes_of(net))


def random_faces(count, seed=0, size=32):
    return np.random.default_rng(seed).random((count, size, size, 3), np.float32)


@pytest.fixture(scope="module", params=FAMILIES)
def tiny(request):
    """(network, params, src faces, dst faces), small."""
    net = build_net(tiny_model(request.param))
    size = net.input_specs["src"].resolution
    return net, random_params(net), random_faces(3, 0, size), random_faces(3, 1, size)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("h64", 94_455_560),
        ("h64_reduced", 44_507_144),
        ("h128", 138_400_520),
        ("h128_reduced", 55_918_600),
        ("df", 138_400_520),
        ("liaef128", 136_056_068),
        ("miaef128", 157_899_141),
        ("avatar", 177_570_568),  # of our own making: the spec gives none
    ],
)
def test_parameter_counts_of_the_spec(name, count):
    shapes = jax.tree.leaves(shapes_of(build_net(model(name))))
    assert sum(leaf.size for leaf in shapes) == count
    assert {leaf.dtype for leaf in shapes} == {jnp.dtype("float32")}


def channels(spec):
    return 1 if spec.gray else 3


@pytest.mark.parametrize("resolution", [32, 96])
@pytest.mark.parametrize("name", FAMILIES)
def test_outputs_are_as_declared_at_any_resolution(name, resolution):
    net = build_net(tiny_model(name) | {"resolution": resolution})
    counts = {"src": 2, "dst": 3}
    faces = {
        side: jax.ShapeDtypeStruct((counts[side], spec.resolution, spec.resolution, 3), jnp.float32)
        for side, spec in net.input_specs.items()
    }
    variables = {"params": shapes_of(net)}
    rebuilt = jax.eval_shape(net.apply, variables, faces["src"], faces["dst"])
    swap = jax.eval_shape(lambda v, x: net.apply(v, x, method="swap"), variables, faces["dst"])
    declared = [
        (rebuilt[name], counts[side], spec)
        for side, specs in net.target_specs.items()
        for name, spec in specs.items()
    ]
    codes = rebuilt.pop("codes")
    assert codes["src"].shape == (2, *codes["dst"].shape[1:]) and codes["dst"].shape[0] == 3
    assert len(declared) == len(rebuilt)
    *swap, dst_mask = swap
    assert getattr(dst_mask, "shape", None) == (swap[1].shape if net.has_dst_mask else None)
    for (face, mask), count, spec in (*declared, (swap, 3, net.output_spec)):
        assert face.shape == (count, spec.resolution, spec.resolution, channels(spec))
        assert mask.shape == (count, spec.resolution, spec.resolution, 1)
        assert face.dtype == mask.dtype == jnp.float32
    assert net.output_spec.resolution == resolution


def test_what_each_model_declares():
    half, full = FaceType.HALF, FaceType.FULL
    for name, spec in (
        ("h64", FaceSpec(half, 64)),
        ("h128_reduced", FaceSpec(half, 128)),
        ("df", FaceSpec(full, 128)),
        ("liaef128", FaceSpec(full, 128)),
    ):
        net = build_net(model(name))
        assert net.input_specs == {"src": spec, "dst": spec}
        assert net.target_specs == {"src": {"src": spec}, "dst": {"dst": spec}}
        assert net.output_spec == spec
    miaef, color, gray = (
        build_net(model("miaef128")),
        FaceSpec(full, 128),
        FaceSpec(full, 128, gray=True),
    )
    assert miaef.input_specs == {"src": gray, "dst": color} and miaef.output_spec == color
    assert miaef.target_specs == {"src": {"src": gray}, "dst": {"dst": color}}
    avatar, small, large = (
        build_net(model("avatar")),
        FaceSpec(half, 64, gray=True),
        FaceSpec(full, 256),
    )
    assert avatar.input_specs == {"src": small, "dst": small} and avatar.output_spec == large
    assert avatar.target_specs == {"src": {"src": small, "src_large": large}, "dst": {"dst": small}}


@functools.cache
def program(net):
    """(params, src, dst) to (outputs, swap of dst, gradients of each output), compiled once."""

    def totals(params, src, dst):
        outputs = net.apply({"params": params}, src, dst)
        swap = net.apply({"params": params}, dst, method="swap")
        named = {name: own for name, own in outputs.items() if name != "codes"} | {"swap": swap}
        sums = {
            name: sum(jnp.mean(x**2) for x in own if x is not None) for name, own in named.items()
        }
        return sums, (outputs, swap)

    @jax.jit
    def run(params, src, dst):
        gradients, (outputs, swap) = jax.jacrev(totals, has_aux=True)(params, src, dst)
        return outputs, swap, gradients

    return run


def test_rebuilding_src_is_the_swap_of_src(tiny):
    """The swap path is the src path, whoever the face belongs to; MIAEF's is in dst's color."""
    net, params, src, dst = tiny
    rebuilt, (*swap_of_dst, dst_mask), _ = program(net)(params, src, dst)
    _, (*swap_of_src, _), _ = program(net)(params, src, src)
    if net.has_dst_mask:
        np.testing.assert_allclose(dst_mask, rebuilt["dst"][1], atol=1e-5)
    for of_src, own, of_dst in zip(
        swap_of_src, rebuilt.get("src_large", rebuilt["src"]), swap_of_dst, strict=True
    ):
        if own.shape == of_src.shape and not isinstance(net, Miaef):
            np.testing.assert_allclose(of_src, own, atol=1e-5)
        assert np.abs(np.asarray(of_dst) - of_src).max() > 1e-4


TRAINED = {
    SharedEncoder: {
        "src": {"shared", "decoder_src"},
        "dst": {"shared", "decoder_dst"},
    },
    Liae: {
        "src": {"shared", "inter_ab", "decoder_both"},
        "dst": {"shared", "inter_ab", "inter_b", "decoder_both"},
    },
    Miaef: {
        "src": {"shared", "inter_a", "common_a", "bw", "mask"},
        "dst": {"shared", "inter_a", "inter_b", "common_a", "common_b", "rgb", "mask"},
    },
    Avatar: {
        "src": {"shared", "decoder_src"},
        "src_large": {"large_shared", "large_decoder_src"},  # the small stage stays as it is
        "dst": {"shared", "decoder_dst"},
    },
}


def test_which_parameters_an_output_trains(tiny):
    """Both people train what is shared; no person's own part has a gradient from the other."""
    net, params, src, dst = tiny
    *_, gradients = program(net)(params, src, dst)
    del gradients["swap"]
    trained = {
        name: {
            k for k, part in parts.items() if any(np.any(leaf) for leaf in jax.tree.leaves(part))
        }
        for name, parts in gradients.items()
    }
    assert trained == TRAINED[type(net)]


def test_miaefs_swap_reads_src_code_through_both_decoders():
    """RGB(cA(A, A), cB(A, A)); of a face whose B is its A, dst's own path.

    Source: docs/reference_2018.md section 7.
    """
    net = build_net(tiny_model("miaef128"))
    params, face = random_params(net), random_faces(3)
    params["inter_b"] = params["inter_a"]
    rebuilt, swapped, _ = program(net)(params, face, face)
    for ours, theirs in zip(swapped, (*rebuilt["dst"], rebuilt["dst"][1]), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_half_precision_keeps_parameters_and_outputs_float32():
    net = build_net(model("h64", **TINY))
    half = net.clone(dtype=jnp.bfloat16)
    params, face = {"params": random_params(net)}, random_faces(1)
    low, full = (jax.jit(n.apply)(params, face, face)["src"][0] for n in (half, net))
    assert low.dtype == jnp.float32
    np.testing.assert_allclose(low, full, atol=0.02)
    assert np.any(np.asarray(low) != full)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"net": "h65"}, r"model\.net=h65: expected one of amp, avatar, liae, miaef"),
        ({"net": "os.system"}, r"model\.net=os\.system"),
        ({"args": {"bottel": 3}}, r"model\.args\.bottel: shared_encoder has no such setting"),
        ({"args": {"parent": None}}, r"model\.args\.parent"),
        ({"args": {"width": 2.0}}, r"model\.args\.width: shared_encoder has no such setting"),
        ({"args": {}}, r"model\.args\.bottleneck: shared_encoder needs this setting"),
        ({"face_type": "hlaf"}, r"model\.face_type=hlaf: expected one of half, full, head"),
        ({"resolution": 40}, r"model\.resolution=40: expected a multiple of 16"),
        ({"resolution": 0}, r"model\.resolution=0"),
        ({"resolution": -64}, r"model\.resolution=-64"),
    ],
)
def test_mistakes_name_the_key(changes, message):
    with pytest.raises(UserError, match=message):
        build_net(model("h64") | changes)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        (
            "h64",
            {"mask_decoder": [256, 128]},
            r"do not fit .* src \(face, mask\) would be .*32, 32",
        ),
        ("avatar", {"large_decoder": [64, 32]}, r"src_large \(face, mask\) would be .*256, 256"),
        ("avatar", {"small_face_type": "nose"}, r"model\.args\.small_face_type=nose: expected one"),
        ("avatar", {"small_resolution": 40}, r"model\.args\.small_resolution=40: expected a mult"),
        ("avatar", {"small_face_type": "head"}, r"model\.face_type=full: the network sees more"),
    ],
)
def test_sizes_that_do_not_fit_are_said(name, args, message):
    wanted = model(name)
    with pytest.raises(UserError, match=message):
        build_net(wanted | {"args": wanted["args"] | args})


def outputs_of(net, faces):
    """A function of the parameters: all outputs of a training step's forward pass and of a swap."""
    return lambda params: (
        net.apply({"params": params}, *faces),
        net.apply({"params": params}, faces[1], method="swap"),
    )


def test_xla_convolutions_give_the_same_faces_and_gradients(tiny):
    net, params, *faces = tiny
    plain = net.clone(conv_impl="xla")
    assert jax.tree.all(jax.tree.map(lambda a, b: a.shape == b.shape, params, shapes_of(plain)))
    *found, grads = program(plain)(params, *faces)
    *expected, expected_grads = program(net)(params, *faces)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True):
        assert np.linalg.norm(ours - theirs) <= 1e-4 * np.linalg.norm(theirs) + 1e-7


def test_only_auto_convolutions_have_gradients_of_their_own(tiny):
    """Recomputed maps hide none; without them, test_forward_mode_needs_xla_convolutions."""
    net, params, *faces = tiny
    texts = {
        impl: str(jax.make_jaxpr(outputs_of(net.clone(conv_impl=impl, remat=True), faces))(params))
        for impl in ("auto", "xla")
    }
    assert "custom_vjp" in texts["auto"] and "custom_vjp" not in texts["xla"]


def test_forward_mode_needs_xla_convolutions(tiny):
    """A directional derivative is the change of the outputs along it, to first order."""
    net, params, *faces = tiny
    plain = net.clone(conv_impl="xla")
    outputs = outputs_of(plain, faces)
    direction = jax.tree.map(lambda a: np.sign(a) * np.float32(0.1), params)
    values, tangents = jax.jit(lambda p, d: jax.jvp(outputs, (p,), (d,)))(params, direction)
    ahead = jax.tree.map(lambda a, d: a + np.float32(1e-3) * d, params, direction)
    step = program(plain)(ahead, *faces)[:2]
    for value, tangent, moved in zip(*map(jax.tree.leaves, (values, tangents, step)), strict=True):
        change = (np.asarray(moved, np.float64) - value) / 1e-3
        assert np.linalg.norm(change - tangent) < 0.05 * np.linalg.norm(tangent) + 1e-3
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(outputs_of(net, faces), (params,), (direction,))


def test_conv_impl_is_checked():
    with pytest.raises(UserError, match="conv_impl=cudnn: expected one of auto, xla"):
        build_net(model("h64"), conv_impl="cudnn")
