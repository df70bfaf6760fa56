"""benchmarks/measured_step.py: how many operations a training step does."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest


@pytest.fixture(scope="module")
def measured_step():
    path = Path(__file__).parents[1] / "benchmarks" / "measured_step.py"
    spec = importlib.util.spec_from_file_location("measured_step", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def count(measured_step, function, *shapes: tuple[int, ...]) -> int:
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return measured_step.operations(jax.make_jaxpr(function)(*inputs).jaxpr)


def test_a_loops_products_count_as_often_as_it_runs(measured_step):
    def product(a, b):
        return jax.lax.map(lambda row: jax.jit(jnp.matmul)(row, b), a)

    assert count(measured_step, product, (7, 2, 3), (3, 5)) == 2 * 7 * 2 * 3 * 5


def test_of_two_branches_the_longer_one_counts(measured_step):
    def either(a):
        return jax.lax.cond(a[0, 0] > 0, lambda a: a @ a @ a, lambda a: a @ a, a)

    assert count(measured_step, either, (4, 4)) == 2 * (2 * 4**3)


def test_a_convolution_and_both_gradients_are_three_times_the_same(measured_step):
    def convolve(x, kernel):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=layout)

    shapes = (2, 8, 8, 3), (4, 4, 3, 5)
    forward = 2 * (2 * 4 * 4 * 5) * (4 * 4 * 3)  # of each value that comes out, its kernel's

    def loss(x, kernel):
        return (convolve(x, kernel) ** 2).sum()

    assert count(measured_step, convolve, *shapes) == forward
    assert count(measured_step, jax.grad(loss, (0, 1)), *shapes) == 3 * forward
