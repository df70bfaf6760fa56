"""The setting `frames=`: one grammar for extract and convert, against sets of numbers."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odfs_jax.errors import UserError
from odfs_jax.frame_ranges import FrameRanges, parse_frame_ranges

LONG = 60  # frames of a clip that reaches beyond all ranges drawn below
NUMBERS = st.integers(0, 40)


@st.composite
def written_ranges(draw):
    """(A range as a user writes it, the numbers it means in a clip of LONG frames)."""
    first, last = sorted((draw(NUMBERS), draw(NUMBERS)))
    text, numbers = draw(
        st.sampled_from(
            [
                (f"{first}-{last}", range(first, last + 1)),
                (f"{first}-", range(first, LONG)),
                (f"-{last}", range(last + 1)),
                (f"{first}", range(first, first + 1)),
            ]
        )
    )
    space = st.sampled_from(["", " "])
    return draw(space) + text.replace("-", draw(space) + "-" + draw(space)), numbers


RANGES = st.lists(written_ranges(), min_size=1, max_size=5)


@given(RANGES)
def test_a_list_and_a_text_mean_the_union_of_their_parts(parts):
    texts = [text for text, _ in parts]
    chosen = parse_frame_ranges(texts)
    assert chosen == parse_frame_ranges(",".join(texts))
    expected = set().union(*(numbers for _, numbers in parts))
    assert {i for i in range(LONG) if i in chosen} == expected
    for frames in (0, 1, 17, LONG):
        assert chosen.count(frames) == sum(i < frames for i in expected)
    last = None if any(numbers.stop == LONG for _, numbers in parts) else max(expected)
    assert chosen.stop == (None if last is None else last + 1)


@given(RANGES)
def test_the_ranges_rise_and_leave_frames_out_between_them(parts):
    ranges = parse_frame_ranges([text for text, _ in parts]).ranges
    for (first, last), (next_first, _) in pairwise(ranges):
        assert first <= last < next_first - 1
    assert parse_frame_ranges([_written(*pair) for pair in ranges]).ranges == ranges


def _written(first, last):
    return f"{first}-{'' if last is None else last}"


@given(RANGES, st.integers(1, 6), st.integers(0, 9), st.data())
def test_near_a_frame_are_the_chosen_ones_before_and_after(parts, every, margin, data):
    chosen = parse_frame_ranges([text for text, _ in parts], every)
    numbers = [i for i in range(LONG + 200) if i in chosen]
    place = data.draw(st.integers(0, sum(i < LONG for i in numbers) - 1))
    near = list(chosen.near(numbers[place], margin))
    assert len(near) == len(set(near)) and near[0] == numbers[place]
    assert sorted(near) == numbers[max(0, place - margin) : place + margin + 1]


@pytest.mark.parametrize(
    ("frames", "every", "expected"),
    [
        (None, 1, range(12)), (None, 5, (0, 5, 10)), ("3-5", 1, (3, 4, 5)), ("9-", 2, (9, 11)),
        ("-2", 1, (0, 1, 2)), ("7", 1, (7,)), (" 3 - 8 ", 3, (3, 6)), (7, 1, (7,)),
        (-2, 1, (0, 1, 2)), (["0-1", 4, "10-"], 1, (0, 1, 4, 10, 11)),
        ("2,4 , 6-7", 1, (2, 4, 6, 7)), ("0-5,9-", 2, (0, 2, 4, 9, 11)),
    ],
)  # fmt: skip
def test_every_form_of_the_setting(frames, every, expected):
    chosen = parse_frame_ranges(frames, every)
    assert [i for i in range(12) if i in chosen] == list(expected)
    assert chosen.count(12) == len(list(expected))
    assert chosen.is_all == (chosen == FrameRanges())


@pytest.mark.parametrize(
    ("frames", "every", "message"),
    [
        ("a-b", 1, "frames=a-b: expected FIRST-LAST"), ("-", 1, "frames=-: expected"),
        ("", 1, "frames=: expected"), ("9-3", 1, "the last frame comes before"),
        ("1-2-3", 1, "expected"), (None, 0, "every=0: expected 1 or more"),
        ("1 2", 1, "frames=1 2: expected"), ([1.5], 1, r"frames=1\.5: expected"),
        (["4-2"], 1, "frames=4-2: the last"), ([], 1, r"frames=\[\]: no frames"),
        (True, 1, "frames=True: expected"), ("٣", 1, "frames=٣: expected"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_named(frames, every, message):
    with pytest.raises(UserError, match=message):
        parse_frame_ranges(frames, every)


@given(RANGES, st.integers(1, 7), st.integers(1, 5))
def test_parts_are_the_whole_in_its_order(parts, every, count):
    chosen = parse_frame_ranges([text for text, _ in parts], every)
    frames = [frame for frame in range(LONG) if frame in chosen]
    if len(frames) < count:
        with pytest.raises(UserError, match=f"shards={count}: more than the {len(frames)} frames"):
            chosen.part(0, count, LONG)
        return
    own = [chosen.part(number, count, LONG) for number in range(count)]
    found = [[frame for frame in range(LONG) if frame in part] for part in own]
    assert [frame for part in found for frame in part] == frames
    assert max(map(len, found)) - min(map(len, found)) <= 1
    assert own[-1].stop == chosen.stop
    assert [part.count(LONG) for part in own] == list(map(len, found))
