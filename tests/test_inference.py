"""The function that conversion swaps faces with: what it takes, what it returns, in which types."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from omegaconf import OmegaConf

from odfs_jax.config import compose
from odfs_jax.errors import UserError
from odfs_jax.faces.spec import FaceSpec, to_gray
from odfs_jax.faces.types import FaceType
from odfs_jax.inference import make_masker, make_swapper
from odfs_jax.nets import build_mask_net, build_net


def pictures(count: int, height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(0).random((count, height, width, 3), np.float32)
    return np.stack([cv2.GaussianBlur(image, (0, 0), 1) for image in noise])


def random_model(*settings):
    """(A thin model of these settings, random weights for it.)"""
    model = compose("train", [*settings, "model.width=0.03125"]).model
    model = OmegaConf.to_container(model)
    net = build_net(model)
    shapes = jax.eval_shape(net.init, jax.random.key(0), *net.blank())["params"]
    rng = np.random.default_rng(0)  # compiling the network's own start takes longer
    return model, jax.tree.map(lambda a: rng.normal(0, 0.2, a.shape).astype(np.float32), shapes)


def test_a_swapper_in_bfloat16_keeps_biases_and_faces_float32():
    model, params = random_model("model=h64", "model.resolution=32")
    full, half = (make_swapper(model, params, p) for p in ("float32", "bfloat16"))
    for leaf in jax.tree.leaves(half.params):
        assert leaf.dtype == (jnp.bfloat16 if leaf.ndim > 1 else jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(full.params)} == {np.dtype(np.float32)}
    faces = pictures(2, 32, 32)
    found, expected = (jax.jit(s.predict)(s.params, faces) for s in (half, full))
    for ours, exact in zip(found, expected, strict=True):
        assert ours.dtype == jnp.float32
        apart = np.abs(np.asarray(ours) - exact)
        assert 0 < apart.mean() < 0.02
    with pytest.raises(UserError, match="precision=float16: expected one of float32, bfloat16"):
        make_swapper(model, params, "float16")


def test_a_swapper_shows_a_network_what_it_declares():
    """AVATAR sees gray: it cannot tell colors of the same luma apart. Its swap is in color."""
    small = ["model.resolution=32", "model.args.small_resolution=16"]
    model, params = random_model("model=avatar", *small)
    swapper = make_swapper(model, params)
    assert swapper.input_spec == FaceSpec(FaceType.HALF, 16, gray=True)
    assert swapper.output_spec == FaceSpec(FaceType.FULL, 32)
    faces = pictures(2, 16, 16)
    luma = np.repeat(np.asarray(to_gray(faces)), 3, axis=-1)
    swap = jax.jit(swapper.predict)
    (face, mask, dst_mask), (same, *_) = swap(params, faces), swap(params, luma)
    assert dst_mask is None
    assert face.shape == (2, 32, 32, 3) and mask.shape == (2, 32, 32, 1)
    np.testing.assert_allclose(face, same, atol=1e-5)
    assert np.abs(np.asarray(swap(params, faces[::-1])[0]) - face).max() > 1e-3


def test_a_swap_with_xla_convolutions_can_be_exported_for_a_gpu_on_a_cpu():
    """The exported program is one convolution a layer; it depends on no device of this machine."""
    model, params = random_model("model=h64", "model.resolution=32")
    faces = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), params)
    counts = {}
    for impl in ("auto", "xla"):
        swapper = make_swapper(model, params, conv_impl=impl)
        exported = jax.export.export(jax.jit(swapper.predict), platforms=["cuda"])
        counts[impl] = exported(shapes, faces).mlir_module().count("stablehlo.convolution")
    layers = sum(leaf.ndim == 4 for leaf in jax.tree.leaves(params["shared"]))
    layers += sum(leaf.ndim == 4 for leaf in jax.tree.leaves(params["decoder_src"]))
    layers += sum(leaf.ndim == 4 for leaf in jax.tree.leaves(params["decoder_dst"]["mask"]))
    assert counts["xla"] == layers > counts["auto"]
    swap, plain = (make_swapper(model, params, conv_impl=impl) for impl in ("auto", "xla"))
    pixels = pictures(2, 32, 32)
    found = jax.jit(plain.predict)(params, pixels), jax.jit(swap.predict)(params, pixels)
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_mask_is_hidden_where_the_network_doubts():
    model = {
        "net": "mask_unet", "face_type": "full", "resolution": 32, "width": 1.0,
        "args": {"levels": [4, 4]},
    }  # fmt: skip
    net = build_mask_net(model)
    faces = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    params = jax.tree.map(lambda a: 3 * a, net.init(jax.random.key(0), *net.blank())["params"])
    masker = make_masker(model, params)
    found = masker.predict(masker.params, faces)
    likely = jax.nn.sigmoid(net.apply({"params": params}, faces))
    assert found.shape == (2, 32, 32, 1) and masker.spec == net.face_spec
    np.testing.assert_array_equal(found[likely < 0.5], 0)
    np.testing.assert_array_equal(found[likely > 0.91], 1)
    np.testing.assert_allclose(
        found[np.abs(likely - 0.7) < 0.15], (likely[np.abs(likely - 0.7) < 0.15] - 0.5) / 0.4, 1e-4
    )
