"""Files of the packets of parts: joined with decode times that go through, refused when damaged."""

from fractions import Fraction

import av
import pytest

from odfs_jax.data.media.parts import joined_packets, writing_packets
from odfs_jax.errors import BadFileError, UserError

BASE = Fraction(1, 1000)


def write(path, times, extradata=b"x"):
    """Packets in decode order, shown at `times`; the first is a key."""
    with writing_packets(path, extradata) as put:
        for number, time in enumerate(times):
            packet = av.Packet(bytes([number]) * (number + 1))
            packet.pts, packet.dts, packet.duration = time, 7, 40
            packet.is_keyframe = not number
            put(packet)
    return path


def test_parts_are_joined_in_order_with_rising_decode_times(tmp_path):
    first = write(tmp_path / "0", [0, 120, 40, 80, 160])
    second = write(tmp_path / "1", [200, 330, 250, 300])  # uneven
    packets = list(joined_packets([first, second], b"x", BASE))
    assert [p.pts for p in packets] == [0, 120, 40, 80, 160, 200, 330, 250, 300]
    assert [p.dts for p in packets] == [-40, 0, 40, 80, 120, 160, 200, 250, 300]
    assert [p.is_keyframe for p in packets] == [True, *[False] * 4, True, *[False] * 3]
    assert bytes(packets[6]) == b"\1\1" and {p.time_base for p in packets} == {BASE}
    assert {p.duration for p in packets} == {40}


def test_all_frames_in_order_are_decoded_when_they_are_shown(tmp_path):
    files = [write(tmp_path / "0", [5, 7]), write(tmp_path / "1", [11])]
    assert [p.dts for p in joined_packets(files, b"x", BASE)] == [5, 7, 11]


def test_another_decoder_is_refused_but_for_what_x265_notes_of_itself(tmp_path):
    path = write(tmp_path / "0", [0], b"parameters\0\0\0\1\x4e\1threads=2")
    assert len(list(joined_packets([path], b"parameters\0\0\0\1\x4e\1threads=64", BASE))) == 1
    with pytest.raises(UserError, match="another version of the encoder wrote this part"):
        next(joined_packets([path], b"others", BASE))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content[:20],
        lambda content: content + b"\0",
        lambda content: content.replace(b'"version": 1', b'"version": 2'),
        lambda content: content.replace(b'"78"', b'"no"'),
        lambda content: b"\xff" * len(content),
        lambda content: content[:60].replace(b"\0", b"\xff") + content[60:],
    ],
)
def test_a_damaged_file_is_refused(tmp_path, damage):
    path = write(tmp_path / "0", [0, 40])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadFileError, match="not a part of a clip"):
        next(joined_packets([path], b"x", BASE))
