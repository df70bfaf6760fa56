"""Color conversion by planes against libswscale's own packed RGB, and sizes that fill no row."""

import av
import numpy as np
import pytest

from odfs_jax.data.media import yuv

LIMITED, FULL = yuv.ColorTags(), yuv.ColorTags(range=2)
FORMATS = (
    "yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv411p", "yuv440p", "nv12", "uyvy422", "gray",
    "yuva420p", "yuv420p10le", "yuv422p10le", "yuv444p12le", "p010le", "gray10le",
)  # fmt: skip


def noise(pixel_format: str) -> av.VideoFrame:
    """A frame of random samples, most outside of RGB, whose rows do not fill whole vectors."""
    rng = np.random.default_rng(3)
    frame = av.VideoFrame(354, 82, pixel_format)
    bits = max(part.bits for part in frame.format.components)
    shift = 6 if pixel_format == "p010le" else 0  # its ten bits are the upper ones
    for plane in yuv.samples(frame):
        height, width, size = plane.shape
        if bits == 8:
            plane[:] = rng.integers(0, 256, plane.shape, np.uint8)
        else:
            values = rng.integers(0, 1 << bits, (height, width, size // 2), np.uint16) << shift
            plane[:] = values.view(np.uint8)
    return frame


@pytest.mark.parametrize("tags", [LIMITED, FULL], ids=["limited", "full"])
@pytest.mark.parametrize("pixel_format", FORMATS)
def test_planes_give_the_same_rgb_as_packed_pixels(pixel_format, tags):
    frame = noise(pixel_format)
    packed = yuv.reformat(frame, "rgb24", tags, tags).to_ndarray()
    assert np.array_equal(yuv.to_rgb(frame, tags), packed)
    deep = yuv.reformat(frame, "rgb48le", tags, tags).to_ndarray()
    assert np.array_equal(yuv.to_rgb16(frame, tags), deep)
    assert packed.std() > 20  # not one color


def test_one_thread_gives_what_many_give():
    frame = noise("yuv420p")
    assert np.array_equal(yuv.to_rgb(frame, LIMITED, threads=1), yuv.to_rgb(frame, LIMITED))


@pytest.mark.parametrize("pixel_format", ["rgb24", "bgr24", "gbrp", "rgb48le"])
def test_rgb_stays_as_it_is(pixel_format):
    image = np.random.default_rng(4).integers(0, 256, (82, 354, 3), np.uint8)
    frame = yuv.from_rgb(image, pixel_format, LIMITED)
    assert np.array_equal(yuv.to_rgb(frame, LIMITED), image)


def test_a_palette_becomes_rgb():
    colors = np.random.default_rng(5).integers(0, 256, (256, 4), np.uint8)  # A, R, G, B
    colors[:, 0] = 255
    numbers = np.arange(352 * 82).reshape(82, 352).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray((numbers, colors), format="pal8")
    assert np.array_equal(yuv.to_rgb(frame, LIMITED), colors[:, 1:][numbers])
