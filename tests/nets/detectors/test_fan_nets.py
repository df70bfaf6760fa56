"""FAN against face-alignment's own network, and the decoding of its heat maps."""

import warnings

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from odfs_jax.extraction.weights import flat_from_torch
from odfs_jax.nets.detectors import fan


@pytest.fixture(scope="module")
def torch():
    pytest.importorskip("face_alignment")
    return pytest.importorskip("torch")


def random_fan(torch, stacks):
    """face-alignment's FAN with random weights and random statistics of its batch norms."""
    from face_alignment.models.fan import FAN

    torch.manual_seed(0)
    net = FAN(stacks).eval()
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2)
            layer.weight.data.uniform_(0.5, 1.5)
            layer.bias.data.normal_(0, 0.1)
    return net


@pytest.mark.parametrize(("stacks", "size"), [(4, 64), (1, 128)])
def test_heat_maps_equal_face_alignments(torch, stacks, size):
    net = random_fan(torch, stacks)
    x = np.random.default_rng(0).uniform(0, 1, (2, size, size, 3)).astype(np.float32)
    with torch.no_grad():
        theirs = net(torch.tensor(x.transpose(0, 3, 1, 2)))[-1].numpy()
    flat = flat_from_torch({name: value.numpy() for name, value in net.state_dict().items()})
    variables = unflatten_dict(flat, sep="/")
    ours = jax.jit(fan.FanNet(stacks).apply)(variables, x)
    assert ours.shape == (2, size // 4, size // 4, 68) and np.abs(theirs).max() > 0.5
    np.testing.assert_allclose(np.moveaxis(ours, -1, 1), theirs, atol=1e-4, rtol=0)


def test_a_gaussian_peak_is_found_between_pixels():
    rng = np.random.default_rng(0)
    where = rng.uniform(2, 61, (3, 68, 2)).astype(np.float32)
    sigma = rng.uniform(1, 3, (3, 1, 1, 68))
    y, x = np.mgrid[:64, :64][:, None, :, :, None]
    square = (x - where[:, None, None, :, 0]) ** 2 + (y - where[:, None, None, :, 1]) ** 2
    maps = (0.8 * np.exp(-square / (2 * sigma**2))).astype(np.float32)
    points, height = jax.jit(fan.peaks)(maps)
    np.testing.assert_allclose(points, where, atol=0.01)
    assert np.min(height) > 0.6 and np.max(height) <= 0.8


def test_peaks_are_within_half_a_pixel_of_face_alignments(torch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from face_alignment.utils import _get_preds_fromhm
    maps = np.random.default_rng(0).uniform(0, 1, (2, 68, 64, 64)).astype(np.float32)
    best = maps.reshape(2, 68, -1).argmax(axis=-1)
    theirs, _ = _get_preds_fromhm.py_func(maps, best)  # from the map's edge, in quarters
    ours, height = fan.peaks(np.moveaxis(maps, 1, -1))
    assert np.abs(np.asarray(ours) + 0.5 - theirs).max() <= 0.5
    np.testing.assert_array_equal(height, maps.max(axis=(2, 3)))


def test_peaks_at_edges_and_of_flat_maps_stay_inside():
    maps = np.zeros((1, 8, 8, 3), np.float32)
    maps[0, 0, 7, 0] = 1  # a corner
    maps[0, 4, 3, 1] = -1  # a hole: the rest is flat
    maps[..., 2] = -5
    points = np.asarray(fan.peaks(maps)[0])
    assert np.isfinite(points).all() and np.abs(points[0, 0] - [7, 0]).max() <= 0.5
    assert ((points > -1) & (points < 8)).all()
