"""Area-averaged reductions of any rectangle, read from one integral image, on the device.

A rectangle of h x w pixels reduced to n x m cells: cell (i, j) is the mean of the rows from
floor(i h / n) to ceil((i+1) h / n) and of the columns likewise (PyTorch's adaptive average pooling;
neighbors may share a row). Four reads a cell whatever the reduction, so a whole pyramid costs
little more than its output. Sums are exact: in the integral image of a frame above 8 Mpx int32 may
wrap, but differences come out right all the same as long as one cell's own sum fits.
"""

import math
import threading
from collections.abc import Sequence

import cv2
import jax
import jax.numpy as jnp
import numpy as np

ALIGNMENT = 64  # bytes, of memory that XLA:CPU shares with NumPy


def integral_images(frames: Sequence[np.ndarray], count: int) -> jax.Array:
    """Of at most `count` frames uint8 [H,W,C]: int32 [count,H+1,W+1,C] on the device.

    Entry (y, x) is the sum of all pixels above and left; it is 0 for frames that are missing. Valid
    until the next call in the same thread: a CPU's sums are written over then. They come from
    OpenCV: 1.2 ms for 1920x1080, where XLA's cumulative sum takes 140 on two cores, and memory
    fresh from the system 5 to 18. A GPU gets the frames, a quarter of the bytes, and adds them up.
    """
    missing = [np.zeros_like(frames[0])] * (count - len(frames))
    if jax.default_backend() == "cpu":
        height, width, channels = frames[0].shape
        sums = _reusable_array((count, height + 1, width + 1, channels))
        for frame, place in zip([*frames, *missing], sums, strict=True):
            cv2.integral(frame, sum=place)  # in place: a copy takes as long as the sums
        return jax.device_put(sums)
    return summed(tuple(jax.device_put([*frames, *missing])))


def _reusable_array(shape: tuple[int, ...]) -> np.ndarray:
    """An int32 array of `shape` that this thread writes again and again, whatever is in it.

    It begins where XLA:CPU takes arrays without a copy, which would take three times as long as the
    sums of 1920x1080.
    """
    last = getattr(_LAST, "sums", None)
    if last is None or last.shape != shape:
        size = math.prod(shape) * np.dtype(np.int32).itemsize
        memory = np.empty(size + ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % ALIGNMENT
        _LAST.sums = last = memory[start : start + size].view(np.int32).reshape(shape)
    return last


_LAST = threading.local()


@jax.jit
def summed(frames: Sequence[jax.Array]) -> jax.Array:
    """The integral images int32 [N,H+1,W+1,C] of N frames uint8 [H,W,C]."""
    sums = jnp.cumsum(jnp.cumsum(jnp.stack(frames).astype(jnp.int32), axis=1), axis=2)
    return jnp.pad(sums, ((0, 0), (1, 0), (1, 0), (0, 0)))


def reduce_frame(integrals: jax.Array, number: jax.Array, height: int, width: int) -> jax.Array:
    """The whole frame `number` of `integrals` [N,H+1,W+1,C] as float32 [height,width,C].

    Values are 0..255.
    """
    top, bottom = _edges(0, integrals.shape[1] - 1, height)
    left, right = _edges(0, integrals.shape[2] - 1, width)
    rows = integrals[number, bottom] - integrals[number, top]
    sums = rows[:, right] - rows[:, left]
    return _mean(sums, bottom - top, right - left)


def reduce_rect(integral: jax.Array, rect: jax.Array, size: int) -> jax.Array:
    """The rectangle `rect` of `integral` [H+1,W+1,C] as float32 [size,size,C], values 0..255.

    `rect` is int32 (left, top, right, bottom) inside the frame, right and bottom exclusive; a
    smaller rectangle than `size` is enlarged by repetition.
    """
    left, right = _edges(rect[0], rect[2], size)
    top, bottom = _edges(rect[1], rect[3], size)
    top_, bottom_ = top[:, None], bottom[:, None]
    left_, right_ = left[None, :], right[None, :]
    sums = (
        integral[bottom_, right_] - integral[top_, right_]
        - integral[bottom_, left_] + integral[top_, left_]
    )  # fmt: skip
    return _mean(sums, bottom - top, right - left)


def _edges(
    start: jax.Array | int, stop: jax.Array | int, cells: int
) -> tuple[jax.Array, jax.Array]:
    """First and past-the-last pixel [cells] of each cell of the stretch `start`..`stop`."""
    i = jnp.arange(cells, dtype=jnp.int32)
    length = stop - start
    return start + i * length // cells, start + -(-(i + 1) * length // cells)


def _mean(sums: jax.Array, heights: jax.Array, widths: jax.Array) -> jax.Array:
    area = heights[:, None, None] * widths[None, :, None]
    return sums.astype(jnp.float32) / area.astype(jnp.float32)
