"""SAEHD, Quick96 and AMP against the original's figures: counts, orders, and whole networks."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from odfs_jax.errors import UserError
from odfs_jax.faces.types import FaceType
from odfs_jax.inference import make_swapper
from odfs_jax.nets import NETS, build_net
from odfs_jax.nets.kernels.pixels import depth_to_space
from odfs_jax.nets.saehd import Archi, Down, Encoder, Inter

SMALL = "32/16/16/16"
DEFAULT = "256/64/64/22"
# (resolution, archi, ae/e/d/mask widths, parameters)
COUNTS = [
    (64, "df", SMALL, 3_232_968),
    (64, "df-d", SMALL, 3_262_458),
    (64, "liae-t", SMALL, 4_862_404),
    (64, "liae-udt", SMALL, 4_832_797),
    (96, "df-ud", "128/64/64/16", 38_294_330),
    (128, "df", DEFAULT, 57_538_432),
    (128, "df-ud", DEFAULT, 54_470_998),
    (128, "liae", DEFAULT, 94_963_328),
    (128, "liae-ud", DEFAULT, 82_376_555),
    (192, "liae-ud", DEFAULT, 108_611_435),
    (224, "df-udt", DEFAULT, 94_212_694),
    (224, "liae-t", DEFAULT, 133_513_152),
    (224, "liae-udt", "512/64/64/32", 179_625_901),
    (256, "df-ut", DEFAULT, 109_707_136),
    (256, "liae-ud", DEFAULT, 145_340_267),
    (256, "liae-udtc", DEFAULT, 102_752_427),
    (288, "df-ud", "384/92/72/22", 170_651_278),
    (320, "liae-udt", "384/96/96/32", 272_954_029),
    (480, "df-ud", "480/96/96/22", 490_256_854),
    (512, "df-udt", "512/96/96/32", 366_859_738),
]
AMP_COUNTS = [  # (resolution, ae/inter/e/d/mask widths, parameters)
    (64, "32/32/16/16/16", 3_923_197),
    (224, "256/1024/64/64/22", 101_345_195),
    (256, "256/1024/64/64/22", 111_206_315),
    (320, "256/1024/64/64/22", 134_873_003),
    (288, "512/1024/80/80/26", 210_978_335),
]


def saehd(resolution, archi, widths=SMALL, **changes):
    names = ("ae_dims", "e_dims", "d_dims", "d_mask_dims")
    args = {"archi": archi} | dict(zip(names, map(int, widths.split("/")), strict=True))
    shared = {"face_type": "full", "resolution": resolution, "width": 1.0}
    return {"net": "saehd", "args": args, **shared, **changes}


def amp(resolution, widths="32/32/16/16/16", **args):
    names = ("ae_dims", "inter_dims", "e_dims", "d_dims", "d_mask_dims")
    args |= dict(zip(names, map(int, widths.split("/")), strict=True))
    args = {"morph_factor": 0.5, **args}
    return {
        "net": "amp",
        "args": args,
        "face_type": "full",
        "resolution": resolution,
        "width": 1.0,
    }


def shapes_of(net):
    return jax.eval_shape(net.init, jax.random.key(0), *net.blank())["params"]


def count(model):
    """The parameters of a model, traced once (`build_net` would trace it as well)."""
    model = {**model, "face_type": FaceType(model["face_type"])}
    shared = {name: model[name] for name in ("face_type", "resolution", "width")}
    return sum(
        leaf.size
        for leaf in jax.tree.leaves(shapes_of(NETS[model["net"]](**shared, **model["args"])))
    )


@pytest.mark.parametrize(("resolution", "archi", "widths", "expected"), COUNTS)
def test_parameter_counts_of_the_original(resolution, archi, widths, expected):
    assert count(saehd(resolution, archi, widths)) == expected


@pytest.mark.parametrize(("resolution", "widths", "expected"), AMP_COUNTS)
def test_parameter_counts_of_amp(resolution, widths, expected):
    assert count(amp(resolution, widths)) == expected


def original_name(path):
    """The original's name of a parameter: (encoder, down1, kernel) as encoder/down1/weight:0."""
    *parts, kind = (entry.key for entry in path)
    return "/".join([*parts, {"kernel": "weight:0", "bias": "bias:0"}[kind]])


def numbers_of(path, like):
    """The check's parameters: seeded by the original's name, so that orders and names count too."""
    rng = np.random.RandomState(zlib.crc32(original_name(path).encode()))
    values = rng.standard_normal(like.shape)
    values = values / np.sqrt(np.prod(like.shape[:-1])) if like.ndim > 1 else values * 0.1
    return values.astype(np.float32)


# norm of the features, code at (0, 0), swap's mean and sd, its pixel (1, 3), means of the masks
NETWORKS = {
    "df": (
        *(5.14814, (-0.007867, -0.007797, -0.002169), 0.486398, 0.045901),
        *((0.431815, 0.500235, 0.527540), 0.518385, 0.528518),
    ),
    "df-ud": (
        *(45.25309, (-0.139823, -0.004528, -0.133716), 0.511672, 0.071377),
        *((0.469893, 0.533720, 0.512480), 0.519698, 0.525160),
    ),
    "df-udc": (
        *(45.25437, (-0.447325, 0.543548, -0.501848), 0.488656, 0.082938),
        *((0.508048, 0.472167, 0.545026), 0.525023, 0.533854),
    ),
    "df-t": (
        *(3.22173, (-0.189574, 0.063080, -0.034833), 0.521686, 0.032099),
        *((0.514138, 0.555816, 0.509330), 0.524913, 0.529392),
    ),
    "liae-ud": (
        *(45.25309, (0.269587, 0.309489, -0.052510), 0.497190, 0.072065),
        *((0.588626, 0.549766, 0.513875), 0.489650, 0.489779),
    ),
    "liae-udt": (
        *(22.62686, (0.302552, -1.082537, -0.091316), 0.489425, 0.061282),
        *((0.530643, 0.505032, 0.432862), 0.492770, 0.492597),
    ),
}


@pytest.mark.parametrize("archi", NETWORKS)
def test_whole_networks_give_the_originals_numbers(archi):
    net = build_net(saehd(64, archi))
    params = jax.tree_util.tree_map_with_path(numbers_of, shapes_of(net))
    picture = np.random.RandomState(7).uniform(0, 1, (1, 64, 64, 3)).astype(np.float32)

    @jax.jit
    def run(params, picture):
        def see(net):
            features = net.encoder(picture)
            code = net.inter(features) if net.is_df else net.inter_AB(features)
            return features, code, net.swap(picture)

        return net.apply({"params": params}, method=see)

    features, code, (face, mask, dst_mask) = run(params, picture)
    norm, first, mean, sd, pixel, of_mask, of_dst_mask = NETWORKS[archi]
    assert np.linalg.norm(features) == pytest.approx(norm, rel=1e-5)
    np.testing.assert_allclose(code[0, 0, 0, :3], first, atol=1e-5)
    found = [np.mean(face), np.std(face), *face[0, 1, 3], np.mean(mask), np.mean(dst_mask)]
    np.testing.assert_allclose(found, [mean, sd, *pixel, of_mask, of_dst_mask], atol=1e-5)


def test_a_pixel_shuffle_takes_rows_before_columns():
    of_one = depth_to_space(jnp.arange(8.0).reshape(1, 1, 1, 8))
    np.testing.assert_array_equal(of_one.reshape(2, 4), [[0, 1, 2, 3], [4, 5, 6, 7]])
    of_four = depth_to_space(jnp.arange(16.0).reshape(1, 2, 2, 4))[0, ..., 0]
    rows = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    np.testing.assert_array_equal(of_four, rows)


def test_a_downscale_pads_all_sides_alike():
    """The kernel's number is at the lower right of what SAME would take."""
    kernel = jnp.arange(25.0).reshape(5, 5, 1, 1)
    params = {"params": {"conv1": {"kernel": kernel, "bias": jnp.zeros(1)}}}
    ramp = jnp.arange(16.0).reshape(1, 4, 4, 1)[:, ::-1, ::-1]  # a Down is given mirrored maps
    down = jax.jit(lambda x: Down(1, Archi()).apply(params, x)[:, ::-1, ::-1])(ramp)
    np.testing.assert_array_equal(down[0, ..., 0], [[936, 1264], [1190, 1500]])


def test_flattening_goes_channel_by_channel(key):
    """Features, without a dense layer, are the last map's first channel, then its second one."""
    encoder = Encoder(4, Archi())
    x = jax.random.uniform(key, (1, 32, 32, 3))
    params = jax.jit(encoder.init)(key, x)
    bias = jnp.arange(32.0)
    params["params"]["down1"]["downs_3"]["conv1"] |= {"bias": bias}
    params["params"]["down1"]["downs_3"]["conv1"] |= {"kernel": jnp.zeros((5, 5, 16, 32))}
    features = jax.jit(encoder.apply)(params, x)
    np.testing.assert_array_equal(features[0], np.repeat(bias, 4))


def test_unflattening_goes_channel_by_channel():
    inter = Inter(2, None, 3, Archi(deep=True))
    params = {"params": {"dense2": {"kernel": jnp.eye(12), "bias": jnp.zeros(12)}}}
    code = jax.jit(inter.apply)(params, jnp.arange(12.0)[None])
    np.testing.assert_array_equal(code[0, 0, 0], [0, 4, 8])


def test_the_norm_is_the_root_of_the_mean_square(key):
    encoder = Encoder(4, Archi(norm=True))
    x = jax.random.uniform(key, (2, 32, 32, 3))
    params = jax.jit(encoder.init)(key, x)
    normed = jax.jit(encoder.apply)(params, x)
    plain = np.asarray(jax.jit(Encoder(4, Archi()).apply)(params, x))
    root = np.sqrt((plain**2).mean(axis=-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(normed, plain / root, rtol=1e-5)


@pytest.fixture(scope="module", params=["liae-udtc", "amp"])
def tiny(request):
    """(network, params, src faces, dst faces) of 32 pixels."""
    widths = "16/8/4/4"
    own = amp(32, "16/12/8/4/4") if request.param == "amp" else saehd(32, request.param, widths)
    net = build_net(own)
    params = jax.tree_util.tree_map_with_path(numbers_of, shapes_of(net))
    faces = np.random.default_rng(0).random((2, 3, 32, 32, 3), np.float32)
    return net, params, *faces


@pytest.mark.slow
def test_plain_convolutions_recomputed_maps_and_gradients_are_the_same(tiny):
    net, params, src, dst = tiny

    def outputs_and_gradients(net):
        def loss(params):
            outputs = net.apply({"params": params}, src, dst)
            outputs |= {"swap": net.apply({"params": params}, dst, method="swap")}
            return sum(jnp.mean(x**2) for x in jax.tree.leaves(outputs)), outputs

        (_, outputs), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        return jax.tree.leaves((outputs, grads))

    expected = outputs_and_gradients(net)
    found = outputs_and_gradients(net.clone(conv_impl="xla", remat=True))
    for ours, theirs in zip(found, expected, strict=True):
        assert np.linalg.norm(ours - theirs) <= 1e-4 * np.linalg.norm(theirs) + 1e-6


def test_the_swap_is_the_src_path_on_dst(tiny):
    net, params, src, dst = tiny
    net = net.clone(morph_factor=1.0) if hasattr(net, "morph") else net
    rebuilt = jax.jit(net.apply)({"params": params}, dst, src)
    *swap, _ = jax.jit(lambda faces: net.apply({"params": params}, faces, method="swap"))(dst)
    for ours, theirs in zip(swap, rebuilt["src"], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.fixture(scope="module")
def morphing():
    net = build_net(amp(32, "16/12/8/4/4"))
    params = jax.tree_util.tree_map_with_path(numbers_of, shapes_of(net))
    faces = np.random.default_rng(0).random((2, 3, 32, 32, 3), np.float32)
    return net, {"params": params}, *faces


def test_morph_goes_from_dst_rebuilt_to_src(morphing):
    net, params, _, dst = morphing
    own, _ = jax.jit(net.apply)(params, dst, dst)["dst"]
    faces = [
        jax.jit(lambda x, m=m: net.clone(morph=m).apply(params, x, method="swap")[0])(dst)
        for m in (0.0, 0.5, 1.0)
    ]
    np.testing.assert_allclose(faces[0], own, atol=1e-6)
    ahead = [np.abs(face - own).mean() for face in faces]
    assert 0 < ahead[1] < ahead[2]


def test_training_draws_src_channels_anew_for_each_face(morphing):
    """Exactly half of them, whichever; the same key gives the same ones."""
    net, params, src, dst = morphing

    @jax.jit
    def rebuilt(keys):
        return net.apply(params, src, dst, keys)

    keys = jax.random.split(jax.random.key(3), 3)
    first, again = rebuilt(keys), rebuilt(keys)
    other = rebuilt(jax.random.split(jax.random.key(4), 3))
    np.testing.assert_array_equal(first["src"][0], again["src"][0])
    np.testing.assert_array_equal(first["dst"][0], other["dst"][0])
    assert (np.abs(first["src"][0] - other["src"][0]).max(axis=(1, 2, 3)) > 1e-6).all()


def test_only_a_network_that_can_morph_is_asked_to(morphing):
    net, params, _, dst = morphing
    merge = {"erode_modifier": 0, "blur_modifier": 0, "border": 0, "masked_hist_match": True}
    swapper = make_swapper(amp(32, "16/12/8/4/4") | merge, params["params"], morph=0.0)
    own, _ = jax.jit(net.apply)(params, dst, dst)["dst"]
    np.testing.assert_allclose(jax.jit(swapper.predict)(swapper.params, dst)[0], own, atol=1e-6)
    with pytest.raises(UserError, match=r"morph=0\.5: only model=amp can do that, not net=saehd"):
        make_swapper(saehd(64, "df") | merge, {}, morph=0.5)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (saehd(64, "dfhd"), r"model\.args\.archi=dfhd: expected df or liae"),
        (saehd(64, "df-"), r"model\.args\.archi=df-: expected"),
        (saehd(64, "liae-uu"), r"model\.args\.archi=liae-uu: expected"),
        (saehd(64, "liae-ux"), r"model\.args\.archi=liae-ux: expected"),
        (saehd(72, "df"), r"model\.resolution=72: expected a multiple of 16"),
        (saehd(80, "df-d"), r"model\.resolution=80: expected a multiple of 32"),
        (saehd(208, "liae-t"), r"model\.resolution=208: expected a multiple of 32"),
        (amp(80), r"model\.resolution=80: expected a multiple of 32"),
        (saehd(64, "df", "0/16/16/16"), r"model\.args\.ae_dims=0: expected a whole number from 1"),
        (amp(64, morph_factor=1.5), r"model\.args\.morph_factor=1\.5: expected a share"),
    ],
)
def test_mistakes_name_the_key(model, message):
    with pytest.raises(UserError, match=message):
        build_net(model)


def test_odd_widths_count_as_the_next_even_one():
    assert count(saehd(64, "df", "32/15/15/15")) == count(saehd(64, "df", SMALL))
