"""The swap networks as their YAML describes them: sizes, shapes, and which way a face goes."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from omegaconf import OmegaConf

from odfs_jax.config import config_dir
from odfs_jax.errors import UserError
from odfs_jax.nets import build_net

TINY = {"width": 1 / 32, "resolution": 32}


def model(name, **changes):
    """The model of a YAML of configs/model, a defaults chain included."""
    group = Path(config_dir()) / "model"
    own = OmegaConf.load(group / f"{name}.yaml")
    bases = [OmegaConf.load(group / f"{b}.yaml") for b in own.pop("defaults", []) if b != "_self_"]
    return OmegaConf.to_container(OmegaConf.merge(*bases, own)) | changes


def shapes_of(net):
    face = jax.ShapeDtypeStruct((1, net.resolution, net.resolution, 3), jnp.float32)
    return jax.eval_shape(net.init, jax.random.key(0), face, face)["params"]


def random_params(net, seed=0):
    """Parameters without the cost of compiling the network's own start."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: rng.normal(0, 0.05, a.shape).astype(a.dtype), shapes_of(net))


def random_faces(count, seed=0):
    return np.random.default_rng(seed).random((count, 32, 32, 3), np.float32)


@pytest.fixture(scope="module", params=["h64", "liaef128"])
def tiny(request):
    """(network, params, src faces, dst faces), small."""
    net = build_net(model(request.param, **TINY))
    return net, random_params(net), random_faces(3), random_faces(3, 1)


@pytest.mark.parametrize(
    ("name", "count"),
    [("h64", 94_455_560), ("h64_reduced", 44_507_144), ("liaef128", 136_056_068)],
)
def test_parameter_counts_of_the_spec(name, count):
    shapes = jax.tree.leaves(shapes_of(build_net(model(name))))
    assert sum(leaf.size for leaf in shapes) == count
    assert {leaf.dtype for leaf in shapes} == {jnp.dtype("float32")}


@pytest.mark.parametrize("resolution", [16, 48, 64])
@pytest.mark.parametrize("name", ["h64", "liaef128"])
def test_output_sizes_follow_the_resolution(name, resolution):
    net = build_net(model(name, width=1 / 32, resolution=resolution))
    src = jax.ShapeDtypeStruct((2, resolution, resolution, 3), jnp.float32)
    dst = jax.ShapeDtypeStruct((3, resolution, resolution, 3), jnp.float32)
    variables = {"params": shapes_of(net)}
    rebuilt = jax.eval_shape(net.apply, variables, src, dst)
    swapped = jax.eval_shape(lambda v, x: net.apply(v, x, method="swap"), variables, dst)
    for (face, mask), count in ((rebuilt["src"], 2), (rebuilt["dst"], 3), (swapped, 3)):
        assert face.shape == (count, resolution, resolution, 3)
        assert mask.shape == (count, resolution, resolution, 1)
        assert face.dtype == mask.dtype == jnp.float32


def test_rebuilding_src_is_the_swap_of_src(tiny):
    """The swap path is the src path, whoever the face belongs to."""
    net, params, src, dst = tiny
    rebuilt = jax.jit(net.apply)({"params": params}, src, dst)
    swap = jax.jit(lambda faces: net.apply({"params": params}, faces, method="swap"))
    for ours, theirs in zip(swap(src), rebuilt["src"], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert np.abs(np.asarray(swap(dst)[0]) - rebuilt["dst"][0]).max() > 1e-3


def test_which_parameters_a_person_trains(tiny):
    """Both train what is shared; dst's own part has no gradient from src, and the reverse."""
    net, params, src, dst = tiny

    def totals(params):
        outputs = net.apply({"params": params}, src, dst)
        return {side: face.sum() + mask.sum() for side, (face, mask) in outputs.items()}

    grads = jax.jit(jax.jacrev(totals))(params)

    def trained(side):
        parts = {name: jax.tree.leaves(part) for name, part in grads[side].items()}
        return {name for name, part in parts.items() if any(np.any(leaf) for leaf in part)}

    if "decoder_src" in params:
        assert trained("src") == {"shared", "decoder_src"}
        assert trained("dst") == {"shared", "decoder_dst"}
    else:
        assert trained("src") == {"shared", "inter_ab", "decoder_both"}
        assert trained("dst") == {"shared", "inter_ab", "inter_b", "decoder_both"}


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
        ({"net": "h65"}, r"model\.net=h65: expected one of liae, shared_encoder"),
        ({"net": "os.system"}, r"model\.net=os\.system"),
        ({"args": {"bottel": 3}}, r"model\.args\.bottel: shared_encoder has no such setting"),
        ({"args": {"parent": None}}, r"model\.args\.parent"),
        ({"resolution": 40}, r"model\.resolution=40: expected a multiple of 16"),
        ({"resolution": 0}, r"model\.resolution=0"),
        ({"resolution": -64}, r"model\.resolution=-64"),
    ],
)
def test_mistakes_name_the_key(changes, message):
    with pytest.raises(UserError, match=message):
        build_net(model("h64") | changes)
