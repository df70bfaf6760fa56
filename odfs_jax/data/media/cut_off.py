"""Is the end of a clip's file there? Containers tell how long they are; a copy that stopped is not.

Sources: RFC 8794 and RFC 9559 (Matroska, WebM), ISO/IEC 14496-12, 4.2 (MP4, MOV), the RIFF and
OpenDML specifications (AVI), the FLV specification E.5, ASF 3.2, ISO/IEC 13818-1, 2.4.3 and 2.5.3
(transport and program streams), RFC 3533 section 6 (Ogg), GIF89a section 27.
"""

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from odfs_jax.data import foreign

HEAD = 1 << 16  # bytes at either end of a file in which what is looked for stands


def cut_off(path: Path, container: str) -> str | None:
    """What shows that the end of the clip at `path` is missing; None when nothing does.

    `container` is libav's name of its format, "matroska,webm". Containers without a rule of their
    own here show nothing.
    """
    rule = next((rule for name, rule in RULES.items() if name in container.split(",")), None)
    if rule is None:
        return None
    with foreign.open_regular(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        try:
            return rule(file, size)
        except (struct.error, IndexError):
            return None  # not laid out as usual


def _shorter(size: int, expected: int) -> str | None:
    if expected <= size:
        return None
    return f"{size:,} of {expected:,} bytes are there"


def _matroska(file: BinaryIO, size: int) -> str | None:
    at = 0
    while at < size:  # the header, then the segment, perhaps with something void before it
        file.seek(at)
        head = file.read(16)
        length_at = 9 - head[0].bit_length()  # bytes of the element's name
        width = 9 - head[length_at].bit_length()
        content = int.from_bytes(head[length_at : length_at + width], "big")
        content &= (1 << 7 * width) - 1
        if content == (1 << 7 * width) - 1:
            return None  # of unknown size: written live
        at += length_at + width + content
        if head.startswith(b"\x18\x53\x80\x67"):
            return _shorter(size, at)
    return _shorter(size, at)


def _mp4(file: BinaryIO, size: int) -> str | None:
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        (length,) = struct.unpack_from(">I", head)
        if length == 1:
            (length,) = struct.unpack_from(">Q", head, 8)
        if length < 8:
            return None  # up to the end of the file, or not a box
        at += length
    return _shorter(size, at)


def _riff(file: BinaryIO, size: int) -> str | None:
    at = 0
    while at + 8 <= size:
        file.seek(at)
        name, length = struct.unpack("<4sI", file.read(8))
        if name != b"RIFF":
            return None  # something else behind the clip
        at += 8 + length + length % 2
    return _shorter(size + 1, at)  # the last filling byte is left out by some


def _flv(file: BinaryIO, size: int) -> str | None:
    name, number = b"\x00\x08filesize\x00", ">d"
    head = file.read(HEAD)
    at = head.find(name)
    if at < 0:
        return None
    (expected,) = struct.unpack_from(number, head, at + len(name))
    return _shorter(size, int(expected)) if 0 < expected < 1e15 else None


def _asf(file: BinaryIO, size: int) -> str | None:
    head = file.read(HEAD)
    at = head.find(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))  # File Properties
    if at < 0:
        return None
    (expected,) = struct.unpack_from("<Q", head, at + 40)
    return _shorter(size, expected) if expected < 1 << 50 else None


def _transport(file: BinaryIO, size: int) -> str | None:
    head = file.read(HEAD)
    for packet in (188, 192, 204):
        for start in range(packet):
            syncs = head[start::packet][:-1]
            if len(syncs) > 4 and set(syncs) == {0x47}:
                before = 4 if packet == 192 else 0  # of the sync byte, in a packet
                inside = (size - start + before) % packet
                return "the file ends inside a packet" if inside else None
    return None


def _program(file: BinaryIO, size: int) -> str | None:
    start = max(0, size - HEAD)
    file.seek(start)
    tail = file.read()
    at = tail.find(b"\0\0\1\xba")
    while at >= 0 and at + 6 <= len(tail) and tail.startswith(b"\0\0\1", at):
        kind = tail[at + 3]
        if kind == 0xB9:
            return None
        if kind == 0xBA:
            at += 14 + (tail[at + 13] & 7) if tail[at + 4] >> 6 == 1 else 12
        else:
            at += 6 + struct.unpack_from(">H", tail, at + 4)[0]
    return "the file ends inside a packet" if at > len(tail) else None


def _ogg(file: BinaryIO, size: int) -> str | None:
    file.seek(max(0, size - 2 * HEAD))
    tail = file.read()
    at = tail.rfind(b"OggS")
    return None if at < 0 or tail[at + 5] & 4 else "the last page is not there"


def _gif(file: BinaryIO, size: int) -> str | None:
    file.seek(max(0, size - HEAD))
    return None if file.read().rstrip(b"\0").endswith(b";") else "the trailer is not there"


RULES: dict[str, Callable[[BinaryIO, int], str | None]] = {
    "matroska": _matroska,
    "mp4": _mp4,
    "avi": _riff,
    "flv": _flv,
    "asf": _asf,
    "mpegts": _transport,
    "mpeg": _program,
    "ogg": _ogg,
    "gif": _gif,
}
