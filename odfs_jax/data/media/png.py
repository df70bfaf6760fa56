"""PNG files: encoding, reading the chunks with checks, adding chunks without touching pixels.

Source: Portable Network Graphics specification, third edition, sections 5 and 11.3.3 (texts).
"""

import struct
import zlib

import cv2
import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_TEXT_BYTES = 1 << 20  # far above what is written; a hostile file must not cost memory

Chunk = tuple[bytes, bytes]


def encode(image: np.ndarray) -> bytes:
    """`image` (uint8: gray [H, W], RGB [H, W, 3] or RGBA [H, W, 4]) as a PNG file."""
    if image.ndim == 3:
        order = cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
        image = cv2.cvtColor(image, order)
    _, encoded = cv2.imencode(".png", image)
    return encoded.tobytes()


def decode(content: bytes) -> np.ndarray:
    """uint8 RGB [H, W, 3] of a PNG file. Raises ValueError; check its size first."""
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError("the picture in this PNG cannot be decoded")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def chunks(content: bytes) -> list[Chunk]:
    """(type, data) of every chunk up to IEND. Raises ValueError when the file is not whole."""
    if not content.startswith(SIGNATURE):
        raise ValueError("not a PNG file")
    found: list[Chunk] = []
    position = len(SIGNATURE)
    while True:
        if position + 12 > len(content):
            raise ValueError("truncated PNG (no IEND chunk)")
        (length,) = struct.unpack_from(">I", content, position)
        end = position + 12 + length
        if end > len(content):
            raise ValueError("truncated PNG (a chunk runs past the end of the file)")
        body = content[position + 4 : end - 4]
        if struct.unpack_from(">I", content, end - 4)[0] != zlib.crc32(body):
            raise ValueError("damaged PNG (checksum of a chunk is wrong)")
        found.append((body[:4], body[4:]))
        if body[:4] == b"IEND":
            return found
        position = end


def image_size(content: bytes) -> tuple[int, int]:
    """(width, height) from the header. Raises ValueError."""
    kind, data = chunks(content)[0]
    if kind != b"IHDR" or len(data) != 13:
        raise ValueError("damaged PNG (no header)")
    return struct.unpack_from(">II", data)


def read_text(content: bytes, keyword: str) -> str | None:
    """The text stored under `keyword`, None when there is none. Raises ValueError.

    Editors save texts again as they like: plain, compressed (zTXt) or as UTF-8 (iTXt).
    """
    for kind, data in chunks(content):
        if _is_text(kind, data, keyword):
            if len(data) > MAX_TEXT_BYTES:
                raise ValueError(f"text chunk {keyword!r} of {len(data)} bytes is too large")
            return TEXTS[kind](data[len(keyword) + 1 :])
    return None


def _is_text(kind: bytes, data: bytes, keyword: str) -> bool:
    return kind in TEXTS and data.startswith(keyword.encode("latin-1") + b"\0")


def _compressed_text(data: bytes) -> str:
    return _inflated(data).decode("latin-1")


def _international_text(data: bytes) -> str:
    """After the keyword: whether compressed, by what, a language, the keyword in it, the text."""
    _language, _translated, text = data[2:].split(b"\0", 2)
    return (text if data[:1] == b"\0" else _inflated(data[1:2] + text)).decode()


def _inflated(data: bytes) -> bytes:
    """`data`, a number for the method and what it compressed, up to MAX_TEXT_BYTES."""
    if data[:1] != b"\0":
        raise ValueError("text compressed in an unknown way")
    inflating = zlib.decompressobj()
    try:
        text = inflating.decompress(data[1:], MAX_TEXT_BYTES)
    except zlib.error as error:
        raise ValueError(f"damaged compressed text ({error})") from error
    if not inflating.eof:
        raise ValueError(f"compressed text that is cut, or has more than {MAX_TEXT_BYTES} bytes")
    return text


TEXTS = {
    b"tEXt": lambda data: data.decode("latin-1"),
    b"zTXt": _compressed_text,
    b"iTXt": _international_text,
}


def with_text(content: bytes, keyword: str, text: str) -> bytes:
    """`content` with `text` (latin-1) under `keyword`, replacing an older text; pixels are kept."""
    kept = [chunk for chunk in chunks(content) if not _is_text(*chunk, keyword)]
    data = keyword.encode("latin-1") + b"\0" + text.encode("latin-1")
    kept.insert(1, (b"tEXt", data))  # right after the header
    return SIGNATURE + b"".join(_pack(kind, data) for kind, data in kept)


def with_profile(content: bytes, profile: bytes) -> bytes:
    """`content` with an ICC profile; pixels are kept."""
    return with_chunk(content, b"iCCP", b"ICC\0\0" + zlib.compress(profile))


def with_chunk(content: bytes, kind: bytes, data: bytes) -> bytes:
    """`content` with one more chunk right after the header."""
    kept = chunks(content)
    kept.insert(1, (kind, data))
    return SIGNATURE + b"".join(_pack(*chunk) for chunk in kept)


def _pack(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
