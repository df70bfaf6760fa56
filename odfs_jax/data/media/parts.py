"""A result that several workers write, each a part of its frames: what waits in `<result>.partial`.

`.settings` in it is all that the result is made with, the same for every part; `.shard.2-of-4` says
that a part was begun, and whether it has ended. Pictures lie there as they will lie in the result;
a part of a clip is a file of encoded packets, `2-of-4.packets`, which begins with a key frame. Who
ends last joins them.
"""

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from odfs_jax.data import atomic, foreign
from odfs_jax.errors import BadFileError, UserError
from odfs_jax.frame_ranges import FrameRanges, Shard

PARTIAL = ".partial"  # appended to the whole name of a result
SETTINGS = ".settings"
MARK = ".shard."
ENDED = "ended"
MAX_SETTINGS = 1 << 24  # bytes
VERSION = 1
HEADER = struct.Struct("<qqIB")  # of a packet: pts, duration, bytes, whether it is a key
HEVC_INFO = b"\0\0\0\1\x4e\1"  # how x265's note of its own settings and threads begins


@dataclass(frozen=True)
class Part:
    """The part `shard` of a result: the frames `own`."""

    shard: Shard
    own: FrameRanges


def partial_of(path: Path) -> Path:
    """The folder in which the parts of the result `path` are collected."""
    return path.with_name(path.name + PARTIAL)


# ---- Which parts there are


def begin(partial: Path, settings: str, shard: Shard) -> None:
    """Begins a part in the folder `partial`, or goes on with it; one worker at a time.

    `settings` is JSON of an object. Raises UserError when other parts were begun with others.
    """
    known = partial / SETTINGS
    if not partial.exists():
        with atomic.replacing_folder(partial) as new:
            (new / SETTINGS).write_text(settings)
    if not known.is_file():
        raise UserError(f"{partial}: not left by a run of ours; move it or set output.path=")
    others = [path for path in _marks(partial) if not path.name.endswith(f"-of-{shard.count}")]
    differing = _differing(known, settings) if not others else ["shards"]
    if differing:
        raise UserError(
            f"{partial}: its parts were begun with other settings ({', '.join(differing)}); give "
            "these, or delete it to begin again"
        )
    mark = partial / f"{MARK}{shard}"
    if not mark.exists():
        atomic.write_text(mark, "")


def end(partial: Path, shard: Shard) -> None:
    """Notes that a part has ended."""
    atomic.write_text(partial / f"{MARK}{shard}", ENDED)


def has_ended(partial: Path, shard: Shard) -> bool:
    """True when all frames of the part are there."""
    mark = partial / f"{MARK}{shard}"
    return mark.is_file() and foreign.read_bytes(mark, len(ENDED)) == ENDED.encode()


def missing(partial: Path, count: int) -> list[int]:
    """The numbers of those of the `count` parts that have not ended."""
    return [n for n in range(count) if not has_ended(partial, Shard(n, count))]


def _marks(partial: Path) -> list[Path]:
    return sorted(partial.glob(f"{MARK}*-of-*"))


def _differing(known: Path, settings: str) -> list[str]:
    """The names of the settings that differ from those in the file `known`."""
    try:
        old = foreign.mapping(foreign.parse_json(foreign.read_bytes(known, MAX_SETTINGS)), "file")
    except ValueError as error:
        raise BadFileError(known, f"not the settings of a result ({error}); delete it") from error
    new = json.loads(settings)
    return sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))


# ---- Packets of a clip


def packets_file(partial: Path, shard: Shard) -> Path:
    """The file of the packets of a part."""
    return partial / f"{shard}.packets"


@contextmanager
def writing_packets(path: Path, extradata: bytes | None) -> Iterator[Callable[[av.Packet], None]]:
    """Yields a function that writes a packet; the file appears at the end of the block.

    `extradata` is what the encoder's decoder must know beforehand.
    """
    head = {"version": VERSION, "extradata": (extradata or b"").hex()}
    with atomic.replacing(path) as temporary, temporary.open("wb") as file:
        file.write(json.dumps(head).encode() + b"\n")

        def put(packet: av.Packet) -> None:
            fields = packet.pts, packet.duration or 0, packet.size, packet.is_keyframe
            file.write(HEADER.pack(*fields))
            file.write(memoryview(packet))

        yield put


def joined_packets(
    files: Sequence[Path], extradata: bytes | None, time_base: Fraction
) -> Iterator[av.Packet]:
    """The packets of all `files`, in order, with decode times that go through.

    These are the presentation times, delayed by as many frames as the encoder reorders. Raises
    UserError when a part was encoded for another decoder than `extradata` tells of, and
    BadFileError.
    """
    indexes = [_index_of(path, extradata) for path in files]
    pts = np.concatenate([index["pts"] for index in indexes])
    times = np.sort(pts)
    late = np.arange(len(pts)) - np.searchsorted(times, pts)  # how long a packet waits at least
    delay = int(late.max(initial=0))
    step = int(times[1] - times[0]) if len(times) > 1 else 1
    before = times[:1] - step * np.arange(delay, 0, -1)
    decode_times = iter(np.concatenate([before, times])[: len(pts)].tolist())
    for path, index in zip(files, indexes, strict=True):
        with foreign.open_regular(path) as file:
            for row in index:
                file.seek(int(row["place"]))
                packet = av.Packet(file.read(int(row["size"])))
                packet.time_base, packet.pts = time_base, int(row["pts"])
                packet.dts = next(decode_times)
                packet.duration, packet.is_keyframe = int(row["duration"]), bool(row["key"])
                yield packet


ROW = np.dtype([("pts", "i8"), ("duration", "i8"), ("size", "i8"), ("key", "?"), ("place", "i8")])


def _index_of(path: Path, extradata: bytes | None) -> np.ndarray:
    """Of each packet of a file: ROW. Raises UserError and BadFileError."""
    rows, size = [], foreign.size_of_regular(path)
    with foreign.open_regular(path) as file:
        try:
            head = foreign.mapping(foreign.parse_json(file.readline(1 << 20)), "head")
            if head.get("version") != VERSION:
                raise ValueError(f"version {foreign.shown(head.get('version'))}")
            own = bytes.fromhex(foreign.text(head.get("extradata"), "extradata", 1 << 20))
            place = file.tell()
            while place < size:
                file.seek(place)
                pts, duration, length, is_key = HEADER.unpack(file.read(HEADER.size))
                place += HEADER.size
                rows.append((pts, duration, length, bool(is_key), place))
                place += length
            if place != size:
                raise ValueError("its end is missing")
        except (ValueError, struct.error) as error:
            raise BadFileError(path, f"not a part of a clip ({error}); delete it") from error
    if own.split(HEVC_INFO)[0] != (extradata or b"").split(HEVC_INFO)[0]:
        raise UserError(
            f"{path}: another version of the encoder wrote this part; delete it and its mark "
            f"{MARK}{path.stem}, and run that shard again"
        )
    return np.array(rows, ROW)
