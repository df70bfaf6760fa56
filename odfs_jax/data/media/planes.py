"""The samples of a video frame as arrays: what a merge left alone is written as it was read.

Through RGB and back, chroma would lose a little everywhere and 10 bits would become 8.
"""

from collections.abc import Callable

import av
import numpy as np

from odfs_jax.data.media import yuv


def blended(
    stored: av.VideoFrame, image: np.ndarray, untouched: np.ndarray | None, target: "Target"
) -> av.VideoFrame:
    """`stored` in the format of `target`, with `image` (RGB [H, W, 3]) where not `untouched`.

    `untouched` is bool [H, W], None: everywhere. A chroma sample is kept when every pixel that
    shares it is untouched. Where `stored` has the format of `target` its samples are copied, else
    they are converted without a detour by 8-bit RGB.
    """
    base = target.of_frame(stored)
    if untouched is None:
        return base
    new = yuv.from_rgb(image, target.pixel_format, target.result)
    for kept, changed in zip(yuv.samples(base), yuv.samples(new), strict=True):
        np.copyto(changed, kept, where=_at(untouched, *kept.shape[:2])[..., None])
    return new


class Target:
    """The pixel format of a result, and the tags on both sides."""

    def __init__(self, pixel_format: str, source: yuv.ColourTags, result: yuv.ColourTags) -> None:
        self.pixel_format, self._source, self.result = pixel_format, source, result

    def of_frame(self, stored: av.VideoFrame) -> av.VideoFrame:
        """`stored` in this format; `stored` itself when that is its own."""
        # yuvj420p is yuv420p with the range in its name; the range stands in the tags, too.
        if stored.format.name.replace("yuvj", "yuv") == self.pixel_format and (
            stored.format.is_rgb or self._source == self.result
        ):
            return stored
        return yuv.reformat(stored, self.pixel_format, self._source, self.result)


def turned(frame: av.VideoFrame, turn: Callable[[np.ndarray], np.ndarray]) -> av.VideoFrame | None:
    """`frame` with `turn` (a quarter turn or mirror image) done to its samples.

    None when its layout cannot be turned: 4:2:2 lies down as 4:4:0, which few formats are.
    """
    if not _is_turnable(frame.format.name):
        return None
    planes = [turn(plane) for plane in yuv.samples(frame)]
    height, width = planes[0].shape[:2]
    result = av.VideoFrame(width, height, frame.format.name)
    for new, old in zip(yuv.samples(result), planes, strict=True):
        new[:] = old
    result.colorspace, result.color_range = frame.colorspace, frame.color_range
    return result


def _at(untouched: np.ndarray, height: int, width: int) -> np.ndarray:
    """`untouched` [H, W] for samples of [height, width] that several pixels share."""
    down, right = (-(-a // b) for a, b in zip(untouched.shape, (height, width), strict=True))
    if (down, right) == (1, 1):
        return untouched
    overhang = ((0, height * down - untouched.shape[0]), (0, width * right - untouched.shape[1]))
    padded = np.pad(untouched, overhang, constant_values=True)
    kept = np.ones((height, width), bool)
    for row in range(down):
        for column in range(right):
            kept &= padded[row::down, column::right]
    return kept


def _is_turnable(name: str) -> bool:
    square = av.VideoFormat(name, 64, 64)
    return all(part.width == part.height for part in square.components)
