"""Mask networks: XSeg against the original's numbers and against torch, and what they refuse."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from odfs_jax.errors import UserError
from odfs_jax.nets import build_mask_net, with_precision
from odfs_jax.nets.masks import FilterResponseNorm, blur_pool

XSEG = {"net": "xseg", "face_type": "dfl_whole", "resolution": 256, "width": 1.0}
UNET = {"net": "mask_unet", "face_type": "full", "resolution": 32, "width": 1.0}


def xseg(resolution=256, base=32):
    return build_mask_net(XSEG | {"resolution": resolution, "args": {"base": base}}, "xla")


def seeded(net):
    """Parameters as the original's check has them: each seeded by its name in the file."""

    def numbers_of(path, like):
        *parts, kind = (entry.key for entry in path)
        name = "/".join(["XSeg", *parts, {"kernel": "weight"}.get(kind, kind) + ":0"])
        values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(like.shape)
        values = values / np.sqrt(np.prod(like.shape[:-1])) if like.ndim > 1 else values * 0.1
        return values.astype(np.float32)

    shapes = jax.eval_shape(net.init, jax.random.key(0), *net.blank())["params"]
    return jax.tree_util.tree_map_with_path(numbers_of, shapes)


def test_xseg_has_the_originals_tensors():
    leaves = jax.tree.leaves(seeded(xseg()))
    assert (len(leaves), sum(leaf.size for leaf in leaves)) == (222, 17_569_317)


@pytest.mark.slow
def test_xseg_gives_the_originals_numbers():
    faces = np.random.RandomState(7).uniform(0, 1, (1, 256, 256, 3)).astype(np.float32)
    net = xseg()
    logits = np.asarray(jax.jit(net.apply)({"params": seeded(net)}, faces))
    found = [logits.mean(), logits.std(), logits[0, 0, 0, 0], logits[0, 1, 3, 0]]
    np.testing.assert_allclose(found, [0.049101, 0.007297, 0.012860, 0.043858], atol=2e-6)


def test_xseg_is_what_torch_computes():
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    net = xseg(64, 4)
    params = seeded(net)
    faces = np.random.RandomState(7).uniform(0, 1, (1, 64, 64, 3)).astype(np.float32)
    found = np.asarray(jax.jit(net.apply)({"params": params}, faces))

    tensors = jax.tree.map(torch.from_numpy, params)

    def unit(x, name, up=False):
        own = tensors[name]
        kernel = own["conv"]["kernel"].permute(3, 2, 0, 1)
        if up:  # SAME of a transposed convolution: nothing before, one behind is cut off
            x = functional.conv_transpose2d(x, kernel, own["conv"]["bias"], 2)[:, :, :-1, :-1]
        else:
            x = functional.conv2d(x, kernel, own["conv"]["bias"], padding=1)
        power = (x**2).mean((2, 3), keepdim=True) + own["frn"]["eps"].abs()
        x = x / power.sqrt() * own["frn"]["weight"].view(1, -1, 1, 1)
        x = x + own["frn"]["bias"].view(1, -1, 1, 1)
        return torch.maximum(x, own["tlu"]["tau"].view(1, -1, 1, 1))

    def pooled(x, taps):
        taps = torch.tensor(taps, dtype=torch.float32)
        kernel = torch.outer(taps, taps) / taps.sum() ** 2
        before = (len(taps) - 1) // 2
        x = functional.pad(x, (before, len(taps) - 1 - before) * 2)
        channels = x.shape[1]
        return functional.conv2d(x, kernel.expand(channels, 1, -1, -1), stride=2, groups=channels)

    x, skips = torch.from_numpy(faces).permute(0, 3, 1, 2), []
    for level, (depth, taps) in enumerate(
        [(2, [1, 3, 3, 1]), (2, [1, 2, 1]), (2, [1, 1])] + 3 * [(3, [1, 1])]
    ):
        for number in range(1, depth + 1):
            x = unit(x, f"conv{level}{number}")
        skips.append(x)
        x = pooled(x, taps)
    shape = x.shape
    for name in ("dense1", "dense2"):
        x = x.reshape(1, -1) @ tensors[name]["kernel"] + tensors[name]["bias"]
    x = x.reshape(shape)
    for level, depth in ((5, 3), (4, 3), (3, 3), (2, 2), (1, 2), (0, 2)):
        x = torch.cat([unit(x, f"up{level}", up=True), skips[level]], 1)
        for number in range(depth, 0, -1):
            x = unit(x, f"uconv{level}{number}")
    last = tensors["out_conv"]
    x = functional.conv2d(x, last["kernel"].permute(3, 2, 0, 1), last["bias"], padding=1)
    np.testing.assert_allclose(found, x.permute(0, 2, 3, 1).numpy(), atol=2e-5)


def test_blur_pools_and_the_norm_are_the_originals():
    x = np.zeros((1, 4, 4, 1), np.float32)
    x[0, 1, 1] = 64
    expected = {4: [[9, 3], [3, 1]], 3: [[4, 4], [4, 4]], 2: [[16, 0], [0, 0]]}
    for taps in ((1, 3, 3, 1), (1, 2, 1), (1, 1)):
        np.testing.assert_array_equal(blur_pool(x, taps)[0, ..., 0], expected[len(taps)])
    x = jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 2, 2, 1)
    found, _ = FilterResponseNorm().init_with_output(jax.random.key(0), x)
    np.testing.assert_allclose(np.ravel(found), [0.365148, 0.730297, 1.095445, 1.460593], atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_a_unet_sees_every_pixel(precision):
    """The logits have the picture's size, and each depends on the pixel that it stands for."""
    net = with_precision(build_mask_net(UNET | {"args": {"levels": [8, 8]}}), precision)
    faces = np.random.default_rng(0).random((1, 32, 32, 3), np.float32)
    params = net.init(jax.random.key(0), *net.blank())

    def corner(faces):
        return net.apply(params, faces)[0, 3, 29, 0]

    value, slope = jax.value_and_grad(corner)(faces)
    assert value.dtype == jnp.float32
    assert np.abs(slope[0, 3, 29]).max() > 0


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (UNET | {"args": {"levels": [8, 8], "base": 3}}, "model.args.base: mask_unet has no such"),
        (UNET | {"args": {}}, "model.args.levels: mask_unet needs this setting"),
        (UNET | {"net": "h64", "args": {}}, "model.net=h64: expected one of mask_unet, xseg"),
        (XSEG | {"resolution": 160, "args": {"base": 4}}, "model.resolution=160: expected a mul"),
    ],
)
def test_settings_that_do_not_fit_are_named(model, message):
    with pytest.raises(UserError, match=message):
        build_mask_net(model)
