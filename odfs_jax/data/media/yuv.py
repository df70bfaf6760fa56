"""Pixel formats of video: RGB to YUV and back, and the samples of a frame as arrays.

libswscale falls back to BT.601 whatever a stream is tagged with, so matrix and range are always
passed, in both directions. Transfer and primaries are never converted: RGB means the clip's own.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import av
import cv2
import numpy as np
from av.codec.codec import find_best_pix_fmt_of_list
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from odfs_jax.data.media.fields import FieldMarker
from odfs_jax.errors import UserError

# Luma survives the way to RGB and back unchanged with these, chroma at 59 dB (measured).
SCALING = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)

# Matrix coefficients, ITU-T H.273 table 4, as far as libswscale knows them.
RGB, BT709, UNSPECIFIED = 0, 1, 2
MATRICES = {
    BT709: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
}
HD_HEIGHT = 720  # untagged clips from this height on are BT.709, lower ones BT.601


@dataclass(frozen=True)
class ColorTags:
    """Color description of a stream: H.273 code points; range 0 unspecified, 1 limited, 2 full."""

    primaries: int = BT709
    transfer: int = BT709
    matrix: int = BT709
    range: int = int(ColorRange.MPEG)

    def __post_init__(self) -> None:
        if self.matrix not in (RGB, UNSPECIFIED, *MATRICES):
            raise UserError(f"color matrix {self.matrix} (H.273) is not supported; convert first")


def tags_of(frame: av.VideoFrame) -> ColorTags:
    """The tags of a decoded frame; the old `yuvj` formats mean full range. Raises UserError."""
    full = frame.format.name.startswith("yuvj")
    return ColorTags(
        primaries=int(frame.color_primaries),
        transfer=int(frame.color_trc),
        matrix=int(frame.colorspace),
        range=int(ColorRange.JPEG) if full else int(frame.color_range),
    )


def to_rgb(frame: av.VideoFrame, tags: ColorTags, threads: int = 0) -> np.ndarray:
    """uint8 RGB [H, W, 3] of a decoded frame of any pixel format and depth.

    Uses as many `threads`, 0: all cores. Several frames at once, a thread each, are faster.
    """
    if frame.format.is_rgb:
        return reformat(frame, "rgb24", tags, tags, threads).to_ndarray()
    return _joined(samples(reformat(frame, "gbrp", tags, tags, threads)))


def to_rgb16(frame: av.VideoFrame, tags: ColorTags) -> np.ndarray:
    """uint16 RGB [H, W, 3] of a decoded frame, 65535 for white."""
    if frame.format.is_rgb:
        return reformat(frame, "rgb48le", tags, tags).to_ndarray()
    planes = samples(reformat(frame, "gbrp16le", tags, tags))
    return _joined([plane.view("<u2") for plane in planes])


def _joined(planes: list[np.ndarray]) -> np.ndarray:
    """RGB [H, W, 3] of the planes G, B and R.

    libswscale converts YUV to planar and to packed RGB with the same values, but has vector code
    for planar only: planes and a merge take half the time.
    """
    green, blue, red = planes
    return cv2.merge([red, green, blue])


def from_rgb(
    image: np.ndarray, pixel_format: str, tags: ColorTags, mark: FieldMarker | None = None
) -> av.VideoFrame:
    """The video frame in `pixel_format` of `image` (RGB or RGBA [H, W, C], uint8 or uint16).

    With `mark` its chroma is that of fields.
    """
    name = {(3, 1): "rgb24", (4, 1): "rgba", (3, 2): "rgb48le", (4, 2): "rgba64le"}
    layout = name[image.shape[2], image.itemsize]
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=layout)
    return reformat(frame if mark is None else mark(frame), pixel_format, tags, tags)


def reformat(
    frame: av.VideoFrame,
    pixel_format: str,
    source: ColorTags,
    result: ColorTags,
    threads: int = 0,
) -> av.VideoFrame:
    """`frame`, tagged `source`, in `pixel_format` with the matrix and range of `result`.

    RGB has full range whatever its tags say. Between two RGB formats nothing is computed.
    """
    is_rgb = frame.format.is_rgb, av.VideoFormat(pixel_format).is_rgb
    scaler = _scaler(frame.format.name, pixel_format)
    if all(is_rgb):
        return scaler.reformat(frame, format=pixel_format)
    if frame.format.name == pixel_format and _coding(source, frame) == _coding(result, frame):
        return frame
    (from_matrix, from_range), (to_matrix, to_range) = (
        _coding(tags, frame) for tags in (source, result)
    )
    return scaler.reformat(
        frame,
        format=pixel_format,
        src_colorspace=to_matrix if is_rgb[0] else from_matrix,
        dst_colorspace=from_matrix if is_rgb[1] else to_matrix,
        src_color_range=ColorRange.JPEG if is_rgb[0] else from_range,
        dst_color_range=ColorRange.JPEG if is_rgb[1] else to_range,
        interpolation=SCALING,
        threads=threads,
    )


def _scaler(source: str, result: str) -> VideoReformatter:
    """This thread's scaler between two formats; a frame's own would be set up for each frame."""
    return _SCALERS.__dict__.setdefault(f"{source} {result}", VideoReformatter())


_SCALERS = threading.local()


def output_format(
    codec: av.Codec, source: str, width: int, height: int, alpha: bool = False
) -> str:
    """The pixel format of `codec` nearest to `source` that holds frames of [height, width].

    With `alpha`, one that has transparency. A lossy encoder needs even sizes for subsampled chroma;
    odd ones become 4:4:4 rather than lose a row of the plate. Raises UserError.
    """
    names = [f.name for f in codec.video_formats or () if not f.name.startswith("yuvj")]
    if alpha:
        names = [name for name in names if has_alpha(name)]
    elif (width % 2 or height % 2) and not only_lossless(codec) and not full_chroma(source):
        names = [name for name in names if full_chroma(name)]
        source = "yuv444p10le" if _depth(source) > 8 else "yuv444p"
    best = (
        find_best_pix_fmt_of_list(names, source.replace("yuvj", "yuv"), has_alpha=alpha)[0]
        if names
        else None
    )
    if best is None:
        transparent = "transparent " if alpha else ""
        raise UserError(
            f"output.codec={codec.name} has no pixel format for {transparent}{width}x{height} "
            f"frames of {source}"
        )
    return best.name


def output_tags(tags: ColorTags, pixel_format: str) -> ColorTags:
    """`tags` as they hold for `pixel_format`: between RGB and YUV the matrix must change."""
    is_rgb = av.VideoFormat(pixel_format).is_rgb
    if is_rgb and tags.matrix in MATRICES:
        return ColorTags(tags.primaries, tags.transfer, RGB, int(ColorRange.JPEG))
    if not is_rgb and tags.matrix == RGB:
        return ColorTags(tags.primaries, tags.transfer, BT709, int(ColorRange.MPEG))
    return tags


def samples(frame: av.VideoFrame) -> list[np.ndarray]:
    """uint8 [h, w, bytes] of each plane: views that write into `frame`."""
    views = []
    for index, plane in enumerate(frame.planes):
        size = _bytes(frame.format, index)
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height]
        views.append(rows[:, : plane.width * size].reshape(plane.height, plane.width, size))
    return views


def _bytes(layout: av.VideoFormat, plane: int) -> int:
    """Bytes from one sample of a plane to the next; chroma of NV12 comes in pairs."""
    if not layout.is_planar:
        return layout.padded_bits_per_pixel // 8
    return sum((part.bits + 7) // 8 for part in layout.components if part.plane == plane)


def blend_samples(
    stored: av.VideoFrame, image: np.ndarray, untouched: np.ndarray | None, target: "TargetFormat"
) -> av.VideoFrame:
    """`stored` in the format of `target`, with `image` (RGB [H, W, 3]) where not `untouched`.

    `untouched` is bool [H, W]; None means all pixels. A chroma sample is kept when every pixel that
    shares it is untouched. Where `stored` has the format of `target` its samples are copied, else
    they are converted without 8-bit RGB in between: through RGB and back, chroma would lose a
    little everywhere and 10 bits would become 8.
    """
    base = target.of_frame(stored)
    if untouched is None:
        return base
    new = from_rgb(image, target.pixel_format, target.result, target.mark)
    pairs = zip(samples(base), samples(new), strict=True)
    fields = (slice(None),) if target.mark is None else (slice(0, None, 2), slice(1, None, 2))
    for (kept, changed), rows in product(pairs, fields):
        old, own = kept[rows], untouched[rows]
        np.copyto(changed[rows], old, where=_shared_by(own, *old.shape[:2])[..., None])
    return new


class TargetFormat:
    """The pixel format of a result, the tags on both sides, and `mark` where it has fields."""

    def __init__(
        self,
        pixel_format: str,
        source: ColorTags,
        result: ColorTags,
        mark: FieldMarker | None = None,
    ) -> None:
        self.pixel_format, self._source, self.result = pixel_format, source, result
        self.mark = mark

    def of_frame(self, stored: av.VideoFrame) -> av.VideoFrame:
        """`stored` in this format; `stored` itself when that is its own."""
        # yuvj420p is yuv420p with the range in its name; the range stands in the tags, too.
        if stored.format.name.replace("yuvj", "yuv") == self.pixel_format and (
            stored.format.is_rgb or self._source == self.result
        ):
            return stored
        return reformat(stored, self.pixel_format, self._source, self.result)


def rotated(
    frame: av.VideoFrame, rotate: Callable[[np.ndarray], np.ndarray]
) -> av.VideoFrame | None:
    """`frame` with `rotate` (a quarter turn or mirror image) applied to the samples of each plane.

    None when its layout cannot be rotated: 4:2:2 would become 4:4:0, which few formats are.
    """
    if not _is_rotatable(frame.format.name):
        return None
    planes = [rotate(plane) for plane in samples(frame)]
    height, width = planes[0].shape[:2]
    result = av.VideoFrame(width, height, frame.format.name)
    for new, old in zip(samples(result), planes, strict=True):
        new[:] = old
    result.colorspace, result.color_range = frame.colorspace, frame.color_range
    return result


def _shared_by(untouched: np.ndarray, height: int, width: int) -> np.ndarray:
    """bool [height, width]: the samples of a plane all of whose pixels are `untouched` [H, W]."""
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


def _is_rotatable(name: str) -> bool:
    components = av.VideoFormat(name, 64, 64).components
    return all(part.width == part.height for part in components)


def only_lossless(codec: av.Codec) -> bool:
    """True for an encoder that is always lossless, as FFV1; x264 is so only at its best quality."""
    return codec.lossless and not codec.lossy


def is_rgb(name: str) -> bool:
    """True for a pixel format of RGB or of a palette of it."""
    return av.VideoFormat(name).is_rgb or name == "pal8"


def subsampled(source: str | None) -> str:
    """4:2:0 of the depth of the pixel format `source`, or of 8 bits."""
    return "yuv420p10le" if source is not None and _depth(source) > 8 else "yuv420p"


def has_alpha(name: str) -> bool:
    """True for a pixel format with transparency."""
    return any(part.is_alpha for part in av.VideoFormat(name).components)


def _coding(tags: ColorTags, frame: av.VideoFrame) -> tuple[Colorspace, ColorRange]:
    """The matrix and range of a YUV frame of `frame`'s height."""
    matrix = MATRICES.get(tags.matrix)  # none: RGB, or unspecified
    if matrix is None:
        matrix = Colorspace.ITU709 if frame.height >= HD_HEIGHT else Colorspace.ITU601
    return matrix, ColorRange.JPEG if tags.range == ColorRange.JPEG else ColorRange.MPEG


def full_chroma(name: str) -> bool:
    """True when every pixel has chroma samples of its own (4:4:4 or RGB)."""
    pixel = av.VideoFormat(name)
    return pixel.is_rgb or all(
        (part.width, part.height) == (64, 64) for part in av.VideoFormat(name, 64, 64).components
    )


def _depth(name: str) -> int:
    return max(part.bits for part in av.VideoFormat(name).components)
