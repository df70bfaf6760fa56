"""XMP packets, written and read where each format keeps them.

Source: XMP specification part 3, ISO 16684.
"""

import struct
from pathlib import Path
from typing import Any

from odfs_jax.data import foreign
from odfs_jax.data.media import png
from odfs_jax.errors import BadFileError

PNG_KEYWORD = b"XML:com.adobe.xmp\0"
TIFF_TAG, DESCRIPTION_TAG = 700, 270
MAX_PICTURE = 1 << 30  # bytes of a PNG
MP4_UUID = bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC")
MAX_BYTES = 1 << 20  # of a packet that is read, so that a hostile file cannot cost memory
MAX_BOXES = 10_000


def add_to_png(content: bytes, packet: bytes) -> bytes:
    """The PNG `content` with `packet`; the pixels are not encoded again."""
    return png.with_chunk(content, b"iTXt", PNG_KEYWORD + bytes(4) + packet)


def append_to_mp4(path: Path, packet: bytes) -> None:
    """Adds `packet` to the MP4 or MOV at `path`, as a box at its end."""
    body = MP4_UUID + packet
    with path.open("ab") as file:
        file.write(struct.pack(">I", 8 + len(body)) + b"uuid" + body)


def read(path: Path) -> bytes | None:
    """The XMP packet of a PNG, TIFF, MP4 or MOV; None when there is none or it cannot be found."""
    readers = {".png": _read_png, ".tif": _read_tiff, ".tiff": _read_tiff}
    readers |= dict.fromkeys((".mp4", ".mov", ".m4v"), _read_mp4)
    reader = readers.get(path.suffix.lower())
    return reader(path) if reader else None


def _read_png(path: Path) -> bytes | None:
    try:
        found = png.chunks(foreign.read_bytes(path, MAX_PICTURE))
    except (ValueError, BadFileError):
        return None
    packets = (data for kind, data in found if kind == b"iTXt" and data.startswith(PNG_KEYWORD))
    return next((data[len(PNG_KEYWORD) + 4 :] for data in packets), None)


def _read_tiff(path: Path) -> bytes | None:
    packet = tiff_tag(path, TIFF_TAG)
    return packet if isinstance(packet, bytes) and len(packet) <= MAX_BYTES else None


def tiff_tag(path: Path, code: int) -> Any:
    """The value of a tag of the TIFF at `path`; None when there is none or it cannot be read."""
    import tifffile  # only where there are TIFFs, for it makes every command start later

    try:
        with foreign.open_regular(path) as file, tifffile.TiffFile(file) as tiff:
            tag = tiff.pages.first.tags.get(code)
            return None if tag is None else tag.value
    except Exception:  # a damaged or hostile file makes tifffile raise what it likes
        return None


def _read_mp4(path: Path) -> bytes | None:
    with foreign.open_regular(path) as file:
        for _ in range(MAX_BOXES):
            head = file.read(8)
            if len(head) < 8:
                return None
            size, kind = struct.unpack(">I4s", head)
            skip = size - 8
            if size == 1:
                wide = file.read(8)
                skip = struct.unpack(">Q", wide)[0] - 16 if len(wide) == 8 else -1
            if kind == b"uuid" and 16 <= skip <= MAX_BYTES:
                body = file.read(skip)
                if body.startswith(MP4_UUID):
                    return body[16:]
                continue
            if skip < 0:  # a box to the end of the file, or nonsense
                return None
            file.seek(skip, 1)
    return None
