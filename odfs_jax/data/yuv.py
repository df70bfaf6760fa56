"""RGB and the colour formats of video, with matrix and range said in both directions.

libswscale falls back to BT.601 whatever a stream is tagged with, so nothing here is left to a
default. Transfer and primaries are never converted: RGB means the clip's own.
"""

from dataclasses import dataclass

import av
import numpy as np
from av.codec.codec import find_best_pix_fmt_of_list
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from odfs_jax.errors import UserError

# Luma survives the way to RGB and back unchanged with these, chroma at 59 dB (measured).
SCALING = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)

# Matrix coefficients, ITU-T H.273 table 4. Those missing are none that libswscale knows.
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
class ColourTags:
    """Colour description of a stream: H.273 code points; range 0 unsaid, 1 limited, 2 full."""

    primaries: int = BT709
    transfer: int = BT709
    matrix: int = BT709
    range: int = int(ColorRange.MPEG)

    def __post_init__(self) -> None:
        if self.matrix not in (RGB, UNSPECIFIED, *MATRICES):
            raise UserError(f"colour matrix {self.matrix} (H.273) is not supported; convert first")


def tags_of(frame: av.VideoFrame) -> ColourTags:
    """The tags of a decoded frame; the old `yuvj` formats mean full range. Raises UserError."""
    full = frame.format.name.startswith("yuvj")
    return ColourTags(
        primaries=int(frame.color_primaries),
        transfer=int(frame.color_trc),
        matrix=int(frame.colorspace),
        range=int(ColorRange.JPEG) if full else int(frame.color_range),
    )


def to_rgb(frame: av.VideoFrame, tags: ColourTags) -> np.ndarray:
    """uint8 RGB [H, W, 3] of a decoded frame of any pixel format and depth."""
    if frame.format.is_rgb:
        return frame.reformat(format="rgb24").to_ndarray()
    matrix = _matrix(tags, frame.height)
    return frame.reformat(
        format="rgb24",
        src_colorspace=matrix,
        dst_colorspace=matrix,
        src_color_range=_range(tags),
        dst_color_range=ColorRange.JPEG,
        interpolation=SCALING,
    ).to_ndarray()


def from_rgb(image: np.ndarray, pixel_format: str, tags: ColourTags) -> av.VideoFrame:
    """The video frame in `pixel_format` of `image` (uint8 RGB [H, W, 3])."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    if av.VideoFormat(pixel_format).is_rgb:
        return frame.reformat(format=pixel_format)
    matrix = _matrix(tags, image.shape[0])
    return frame.reformat(
        format=pixel_format,
        src_colorspace=matrix,
        dst_colorspace=matrix,
        src_color_range=ColorRange.JPEG,
        dst_color_range=_range(tags),
        interpolation=SCALING,
    )


def output_format(codec: av.Codec, source: str, width: int, height: int) -> str:
    """The pixel format of `codec` nearest to `source` that holds [height, width].

    Subsampled chroma needs even sizes; odd ones go to 4:4:4 rather than lose a row of the plate.
    """
    names = [f.name for f in codec.video_formats or () if not f.name.startswith("yuvj")]
    if width % 2 or height % 2:
        names = [name for name in names if _full_chroma(name)]
        source = "yuv444p10le" if _depth(source) > 8 else "yuv444p"
    best = find_best_pix_fmt_of_list(names, source.replace("yuvj", "yuv"))[0] if names else None
    if best is None:
        raise UserError(
            f"output.codec={codec.name} has no pixel format for {width}x{height} frames of {source}"
        )
    return best.name


def output_tags(tags: ColourTags, pixel_format: str) -> ColourTags:
    """`tags` as they hold for `pixel_format`: an RGB clip stored as YUV needs a matrix."""
    if av.VideoFormat(pixel_format).is_rgb or tags.matrix != RGB:
        return tags
    return ColourTags(tags.primaries, tags.transfer, BT709, int(ColorRange.MPEG))


def _matrix(tags: ColourTags, height: int) -> Colorspace:
    if tags.matrix in (RGB, UNSPECIFIED):
        return Colorspace.ITU709 if height >= HD_HEIGHT else Colorspace.ITU601
    return MATRICES[tags.matrix]


def _range(tags: ColourTags) -> ColorRange:
    return ColorRange.JPEG if tags.range == ColorRange.JPEG else ColorRange.MPEG


def _full_chroma(name: str) -> bool:
    pixel = av.VideoFormat(name)
    return pixel.is_rgb or all(
        (part.width, part.height) == (64, 64) for part in av.VideoFormat(name, 64, 64).components
    )


def _depth(name: str) -> int:
    return max(part.bits for part in av.VideoFormat(name).components)
