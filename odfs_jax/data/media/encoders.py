"""Which encoders there are, what CRF and preset mean to each, and what they are opened with."""

from dataclasses import dataclass, field

import av

from odfs_jax.config import OutputConfig
from odfs_jax.data.media import yuv
from odfs_jax.errors import UserError

X26X = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower")
X26X += ("veryslow", "placebo")
PRORES = ("proxy", "lt", "standard", "hq", "4444", "4444xq")
SUBSAMPLED = PRORES[:4]  # the profiles that are 4:2:2


@dataclass(frozen=True)
class Encoder:
    """What an encoder of libav takes. `crf` (best, worst) and `presets` are empty where unknown."""

    codec: str
    crf: tuple[int, int] | None = None
    default_crf: int | None = None
    presets: tuple[str, ...] = ()
    default_preset: str | None = None
    preset_option: str = "preset"
    fixed: dict[str, str] = field(default_factory=dict)
    quicktime_tag: str | None = None  # what QuickTime wants instead of libav's own


KNOWN = {
    "x264": Encoder("libx264", (0, 51), 16, X26X, "medium"),
    "x265": Encoder(
        *("libx265", (0, 51), 18, X26X, "medium"),
        fixed={"x265-params": "log-level=error"},
        quicktime_tag="hvc1",
    ),
    # Version 3 in slices with checksums: several threads, and damage is noticed.
    "ffv1": Encoder("ffv1", fixed={"level": "3", "slicecrc": "1"}),
    "prores": Encoder("prores_ks", presets=PRORES, preset_option="profile"),
    "libx264rgb": Encoder("libx264rgb", (0, 51), 16, X26X, "medium"),
    "libsvtav1": Encoder("libsvtav1", (0, 63), 25, tuple(map(str, range(14))), "8"),
    "libvpx-vp9": Encoder("libvpx-vp9", (0, 63), 24, fixed={"b": "0"}),
    "libvpx": Encoder("libvpx", (4, 63), 10, fixed={"b": "20M"}),
}


def find_encoder(output: OutputConfig) -> tuple[Encoder, av.Codec]:
    """The encoder `output.codec`: x264, x265, ffv1, prores, or libav's name of any other.

    Raises UserError when there is none, or when it does not take `output.crf` or `output.preset`.
    """
    by_codec = {encoder.codec: encoder for encoder in KNOWN.values()}
    name = output.codec
    encoder = KNOWN.get(name) or by_codec.get(name) or Encoder(name)
    try:
        codec = av.Codec(encoder.codec, "w")
    except ValueError as error:
        raise UserError(
            f"output.codec={name}: no such encoder; for example {', '.join(KNOWN)}"
        ) from error
    if codec.type != "video":
        raise UserError(f"output.codec={name}: an {codec.type} encoder; for example x264")
    if output.crf is not None:
        _check_crf(output, encoder)
    if output.preset is not None and output.preset not in encoder.presets:
        known = f"expected one of {', '.join(encoder.presets)}" if encoder.presets else "leave it"
        raise UserError(f"output.preset={output.preset}: {name} has no such preset; {known}")
    return encoder, codec


def pixel_format(
    codec: av.Codec, output: OutputConfig, source: str | None, width: int, height: int
) -> str:
    """What the result is stored as: `output.pixel_format`, or the nearest to `source`.

    None for `source`: pictures, which become 4:2:0, or 8-bit RGB where nothing may be lost. Raises
    UserError.
    """
    formats = [f.name for f in codec.video_formats or ()]
    chosen = output.pixel_format
    if chosen is not None:
        if chosen not in formats or (output.alpha and not yuv.has_alpha(chosen)):
            usable = [f for f in formats if yuv.has_alpha(f) or not output.alpha]
            raise UserError(
                f"output.pixel_format={chosen}: {output.codec} has: {', '.join(usable) or 'none'}"
            )
        return chosen
    if source is None:
        source = "rgb24" if yuv.only_lossless(codec) else "yuv420p"
    if codec.name == KNOWN["prores"].codec and not output.alpha:
        is_full = yuv.full_chroma(source) if output.preset is None else False
        is_full = is_full or output.preset in PRORES[4:]
        return "yuv444p10le" if is_full or width % 2 else "yuv422p10le"
    return yuv.output_format(codec, source, width, height, alpha=output.alpha)


def options(encoder: Encoder, output: OutputConfig, layout: str) -> dict[str, str]:
    """What `encoder` is opened with for the pixel format `layout`."""
    crf = encoder.default_crf if output.crf is None else output.crf
    preset = output.preset or encoder.default_preset
    if encoder is KNOWN["prores"] and preset is None:
        preset = "4444" if yuv.full_chroma(layout) else "hq"
    if encoder is KNOWN["prores"] and preset in SUBSAMPLED and yuv.full_chroma(layout):
        raise UserError(f"output.preset={preset} is 4:2:2; {layout} needs output.preset=4444")
    chosen = {"crf": crf, encoder.preset_option: preset}
    return encoder.fixed | {k: str(v) for k, v in chosen.items() if v is not None}


def _check_crf(output: OutputConfig, encoder: Encoder) -> None:
    if encoder.crf is None:
        raise UserError(f"output.crf={output.crf}: {output.codec} has no CRF; leave it out")
    best, worst = encoder.crf
    if not best <= output.crf <= worst:
        raise UserError(f"output.crf={output.crf}: {output.codec} takes {best} to {worst}")
