"""Shapes of the three networks; what they compute: tests/extraction/detectors/test_mtcnn.py."""

import jax
import jax.numpy as jnp
import pytest

from odfs_jax.extraction.weights import mtcnn_params
from odfs_jax.nets.detectors import mtcnn as nets


@pytest.fixture(scope="module")
def params():
    return mtcnn_params()


def shapes(net, params, shape):
    result = jax.eval_shape(net.apply, params, jax.ShapeDtypeStruct(shape, jnp.float32))
    return [part.shape for part in result]


@pytest.mark.parametrize(("size", "cells"), [((12, 12), (1, 1)), ((41, 30), (16, 10))])
def test_pnet_gives_one_cell_each_two_pixels(params, size, cells):
    found = shapes(nets.PNet(), params["pnet"], (2, *size, 3))
    assert found == [(2, *cells), (2, *cells, 4)]


def test_rnet_and_onet(params):
    assert shapes(nets.RNet(), params["rnet"], (3, 24, 24, 3)) == [(3,), (3, 4)]
    assert shapes(nets.ONet(), params["onet"], (3, 48, 48, 3)) == [(3,), (3, 4), (3, 5, 2)]


@pytest.mark.parametrize("name", ["PNet", "RNet", "ONet"])
def test_the_weight_files_fit_the_networks_exactly(params, name):
    size = {"PNet": 12, "RNet": 24, "ONet": 48}[name]
    net = getattr(nets, name)()
    wanted = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
    assert jax.tree.map(jnp.shape, params[name.lower()]) == jax.tree.map(jnp.shape, wanted)
