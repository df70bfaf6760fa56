"""Area reductions against a plain loop over pixels."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import jax
import numpy as np
import pytest

from odfs_jax.extraction.detectors import integral


def reduced(image, height, width):
    """Adaptive average pooling by its definition."""
    rows = [
        (i * image.shape[0] // height, -(-(i + 1) * image.shape[0] // height))
        for i in range(height)
    ]
    cols = [
        (j * image.shape[1] // width, -(-(j + 1) * image.shape[1] // width)) for j in range(width)
    ]
    image = image.astype(np.float64)
    return np.array([[image[a:b, c:d].mean((0, 1)) for c, d in cols] for a, b in rows])


@pytest.fixture(scope="module")
def frame():
    return np.random.default_rng(1).integers(0, 256, (37, 52, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(37, 52), (20, 31), (7, 3), (1, 1), (50, 80)])
def test_whole_frame(frame, size):
    integrals = integral.integral_images([frame[::-1], frame], 2)
    result = jax.jit(integral.reduce_frame, static_argnums=(2, 3))(integrals, 1, *size)
    np.testing.assert_allclose(result, reduced(frame, *size), atol=1e-4)


@pytest.mark.parametrize("rect", [(0, 0, 52, 37), (5, 7, 6, 8), (10, 3, 41, 33), (51, 36, 52, 37)])
def test_rectangle(frame, rect):
    result = jax.jit(integral.reduce_rect, static_argnums=2)(
        integral.integral_images([frame], 1)[0], np.array(rect, np.int32), 24
    )
    left, top, right, bottom = rect
    np.testing.assert_allclose(result, reduced(frame[top:bottom, left:right], 24, 24), atol=1e-4)


def test_integral_images_are_opencvs(monkeypatch, frame):
    expected = [cv2.integral(frame), cv2.integral(frame[::-1].copy()), np.zeros((38, 53, 3))]
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda name=backend: name)
        found = integral.integral_images([frame, frame[::-1]], 3)
        np.testing.assert_array_equal(found, np.stack(expected))


def test_a_cpu_shares_the_sums_memory():
    if jax.default_backend() != "cpu":
        pytest.skip("a CPU's way")
    for width in range(20, 30):
        sums = integral._reusable_array((2, 31, width, 3))
        assert jax.device_put(sums).unsafe_buffer_pointer() == sums.ctypes.data


def test_only_the_same_thread_writes_over_the_sums(frame):
    other = np.ascontiguousarray(frame[::-1])
    first = integral.integral_images([frame], 1)
    with ThreadPoolExecutor(1) as pool:
        elsewhere = pool.submit(integral.integral_images, [other], 1).result()
    np.testing.assert_array_equal(first[0], cv2.integral(frame))
    np.testing.assert_array_equal(elsewhere[0], cv2.integral(other))
    again = integral.integral_images([other], 1)
    np.testing.assert_array_equal(again[0], cv2.integral(other))
    if jax.default_backend() == "cpu":
        assert again.unsafe_buffer_pointer() == first.unsafe_buffer_pointer()


def test_sums_that_wrap_come_out_right():
    frame = np.full((64, 64, 3), 200, np.uint8)
    near_the_limit = integral.integral_images([frame], 1) + np.int32(2**31 - 1000)
    result = integral.reduce_frame(jax.numpy.asarray(near_the_limit), 0, 8, 8)
    np.testing.assert_array_equal(result, np.full((8, 8, 3), 200, np.float32))
