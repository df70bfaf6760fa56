"""One picture, of any format that is read: checked, upright, RGB, with its color profile.

The size is taken from the header and limited before anything is decoded. A picture is refused
rather than shown with a gray or torn part, as far as its format lets damage be noticed: JPEG's
entropy code, the checksums of PNG and of deflated TIFF, LZW's codes, the end of all of them.
"""

import io
import logging
import re
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from odfs_jax.data import foreign
from odfs_jax.data.media import png
from odfs_jax.data.parallel import Budget
from odfs_jax.errors import BadFileError

MAX_PIXELS = 1 << 27  # of a picture: 16,384 x 8,192
MAX_BYTES = 1 << 30  # of a file: an uncompressed picture of 16 bits and that size
MAX_PROFILE = 1 << 22  # bytes of a color profile
DECODING = Budget(MAX_PIXELS)  # pixels that all threads decode at once
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "DIB", "WEBP", "GIF", "TGA", "AVIF", "JPEG2000")
FORMATS += ("PPM",)
JPEGS = ("JPEG", "MPO")  # what Pillow calls them; MPO: several in a file, of which the first counts
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap height and width
ORIENTATION, COMPRESSION, BITS, EXTRA = 274, 259, 258, 338  # tags of TIFF and EXIF
STRIPS, STRIP_SIZES, TILES, TILE_SIZES = 273, 279, 324, 325
DEFLATED = (8, 32946)  # TIFF's compression with zlib, two numbers for it
PREMULTIPLIED = 1  # TIFF's ExtraSamples: colors were multiplied by their alpha
STANDALONE = {0x01, *range(0xD0, 0xD8)}  # JPEG markers without a length: TEM, RST0 to RST7
PADDING = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9")
MAX_PADDING = 64  # bytes
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9

# Broken EXIF data of a sound picture; Pillow names no file. Limits are ours, before it decodes.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Picture:
    """`image` is RGB [H, W, 3], upright, uint8 or uint16; `profile` an ICC profile of RGB."""

    image: np.ndarray
    profile: bytes | None


def read(path: Path) -> Picture:
    """The picture at `path`; of an animation the first. Raises BadFileError."""
    try:
        return decode(foreign.read_bytes(path, MAX_BYTES))
    except ValueError as error:
        raise BadFileError(path, str(error)) from error


def decode(content: bytes) -> Picture:
    """The picture in the bytes of a file; of an animation the first. Raises ValueError."""
    # A hostile or damaged file makes Pillow raise what it likes: any of it means a bad file.
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as header:
            width, height = header.size
            if width * height > MAX_PIXELS:
                raise ValueError(f"{width}x{height} pixels, more than {MAX_PIXELS} in all")
            with DECODING.hold(width * height):
                return Picture(_decoded(header, content), _profile(header))
    except Image.UnidentifiedImageError as error:
        raise ValueError("not a picture that can be read") from error
    except Exception as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error


def size(path: Path) -> tuple[int, int] | None:
    """(width, height) of the picture at `path`, upright, from its header; None: not readable."""
    try:
        with foreign.open_regular(path) as file, Image.open(file, formats=FORMATS) as header:
            turned = header.getexif().get(ORIENTATION, 1) in SIDEWAYS
            return header.size[::-1] if turned else header.size
    except Exception:  # as in `read`, which says what is wrong
        return None


def _decoded(header: Image.Image, content: bytes) -> np.ndarray:
    if header.format == "PNG":
        png.chunks(content)  # raises ValueError unless the file is whole
        return _by_opencv(content)
    if header.format in JPEGS:
        return _jpeg(header, content)
    if header.format == "TIFF":
        return _tiff(header, content)
    upright = ImageOps.exif_transpose(header)
    if upright.mode.startswith("I;16"):
        return np.repeat(np.asarray(upright, np.uint16)[..., None], 3, axis=2)
    return np.asarray(upright.convert("RGB"))  # transparency is dropped, not blended


def _by_opencv(content: bytes) -> np.ndarray:
    """16 bits are kept, EXIF's orientation is applied."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:
        raise ValueError("not a picture that can be read") from error
    if image is None:
        raise ValueError("damaged, it cannot be decoded")
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"{image.dtype} pixels; expected 8 or 16 bits")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


# JPEG


def _jpeg(header: Image.Image, content: bytes) -> np.ndarray:
    content = content[: jpeg_end(content)]
    height, width, *_ = simplejpeg.decode_jpeg_header(content)
    if (width, height) != header.size:
        raise ValueError("a JPEG with two sizes")
    if header.mode == "CMYK":
        _check_jpeg(content, "CMYK")
        return _by_opencv(content)
    return upright(_check_jpeg(content, "RGB"), header.getexif().get(ORIENTATION, 1))


def _check_jpeg(content: bytes, color: str) -> np.ndarray:
    """The pixels, as libjpeg decodes them. ValueError for damage, which it otherwise glosses over.

    A padding of a few equal bytes before the end is no damage, though libjpeg warns of it.
    """
    try:
        return simplejpeg.decode_jpeg(content, color)
    except ValueError as error:
        extra = PADDING.fullmatch(str(error))
        padding = set(content[-2 - int(extra[1]) : -2]) if extra else ()
        if not extra or int(extra[1]) > MAX_PADDING or len(padding) > 1:
            raise ValueError(f"damaged JPEG ({error})") from error
        return simplejpeg.decode_jpeg(content, color, strict=False)


def jpeg_end(content: bytes) -> int:
    """Where the first picture of a JPEG file ends. Raises ValueError when it does not.

    What may follow is another picture (a map of depth, a preview) or a film (a motion photo).
    Source: ITU-T T.81, annex B.
    """
    position = 2  # behind the start of image
    while position + 4 <= len(content):
        if content[position] != 0xFF:
            raise ValueError("damaged JPEG (no marker where one is expected)")
        marker = content[position + 1]
        if marker == 0xFF:  # markers may be padded
            position += 1
        elif marker in STANDALONE:
            position += 2
        else:
            position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
            if marker == START_OF_SCAN:
                position = _scan_end(content, position)
        if content[position : position + 2] == bytes((0xFF, END_OF_IMAGE)):
            return position + 2
    raise ValueError("truncated JPEG (no end after its last scan)")


def _scan_end(content: bytes, position: int) -> int:
    """The position of the marker that ends the scan; 0xFF in coded data is followed by a 0."""
    while (position := content.find(b"\xff", position)) >= 0 and position + 1 < len(content):
        following = content[position + 1]
        if following not in (0, 0xFF) and following not in STANDALONE:
            return position
        position += 1 if following == 0xFF else 2
    raise ValueError("truncated JPEG (no end after its last scan)")


def upright(image: np.ndarray, orientation: object) -> np.ndarray:
    """`image` [H, W, C], stored with EXIF's `orientation` (1 to 8, else as 1), turned upright."""
    if orientation in SIDEWAYS:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


# TIFF


def _tiff(header: Image.Image, content: bytes) -> np.ndarray:
    tags = header.tag_v2
    if tags.get(COMPRESSION) in DEFLATED:
        _check_deflated(tags, content)
    bits = tags.get(BITS, (1,))
    if max(bits) > 8:
        if len(bits) == 4 and PREMULTIPLIED in tags.get(EXTRA, ()):
            raise ValueError("premultiplied alpha of 16 bits; expected straight alpha")
        return _by_opencv(content)
    header.load()  # stops at damage; turns the picture upright
    if header.mode in ("RGB", "RGBA", "RGBX", "L", "LA", "P", "1"):
        return np.asarray(header.convert("RGB"))
    return _by_opencv(content)


def _check_deflated(tags: Image.Exif, content: bytes) -> None:
    """Raises ValueError for a strip whose checksum is wrong, which libtiff does not look at."""
    places, sizes = (STRIPS, STRIP_SIZES) if STRIPS in tags else (TILES, TILE_SIZES)
    for start, size in zip(tags[places], tags[sizes], strict=True):
        inflating = zlib.decompressobj()
        rest = content[start : start + size]
        try:
            while not inflating.eof and rest:
                inflating.decompress(rest, 1 << 20)
                rest = inflating.unconsumed_tail
        except zlib.error as error:
            raise ValueError(f"damaged TIFF ({error})") from error
        if not inflating.eof:
            raise ValueError("truncated TIFF (a strip ends early)")


# Color profiles


def _profile(header: Image.Image) -> bytes | None:
    """The ICC profile, when it is one for RGB: gray or CMYK pixels have become RGB."""
    profile = header.info.get("icc_profile")
    if not isinstance(profile, bytes) or len(profile) > MAX_PROFILE or profile[16:20] != b"RGB ":
        return None
    return profile
