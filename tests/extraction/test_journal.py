"""The journal of finished frames: what is written is read, also what a killed run left."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from odfs_jax.errors import BadFileError
from odfs_jax.extraction.journal import JOURNAL, Done, Dropped, ExtractionJournal

SETTINGS = {"size": 256, "detector": {"name": "mtcnn"}}
quick = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
numbers = st.floats(-1e6, 1e6)
dropped = st.builds(
    Dropped, st.text(max_size=30), st.tuples(numbers, numbers, numbers, numbers), numbers
)
frames = st.lists(
    st.builds(
        Done, st.text(max_size=9), st.integers(0, 1 << 40), st.none() | st.integers(-9, 1 << 60),
        st.integers(0, 9), st.lists(dropped, max_size=3).map(tuple), st.booleans(),
    ),
    max_size=6, unique_by=lambda done: done.key,
)  # fmt: skip


@quick
@given(frames)
def test_what_is_added_is_read(tmp_path, done):
    (tmp_path / JOURNAL).unlink(missing_ok=True)
    journal = ExtractionJournal(tmp_path)
    journal.start(SETTINGS)
    for one in done:
        journal.add(one)
    found = ExtractionJournal.read(tmp_path)
    assert (found.run, found.settings, found.replacing) == (journal.run, SETTINGS, False)
    assert found.frames == journal.frames == {one.key: one for one in done}
    assert set(found.runs.values()) <= {journal.run}
    assert [one.frame for one in found.doubtful()] == sorted(d.frame for d in done if d.doubtful)


@quick
@given(frames.filter(len), st.data())
def test_a_line_cut_short_counts_as_not_written(tmp_path, done, data):
    (tmp_path / JOURNAL).unlink(missing_ok=True)
    journal = ExtractionJournal(tmp_path)
    journal.start(SETTINGS)
    for one in done:
        journal.add(one)
    path = tmp_path / JOURNAL
    whole = path.read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    path.write_bytes(whole[: len(whole) - data.draw(st.integers(1, last))])
    again = ExtractionJournal.read(tmp_path)
    assert list(again.frames.values()) == done[:-1]
    again.add(done[-1])
    assert path.read_bytes() == whole


def test_a_second_start_goes_on_and_a_replacing_one_forgets_what_it_makes_again(tmp_path):
    journal = ExtractionJournal(tmp_path)
    journal.start(SETTINGS)
    for number in range(4):
        journal.add(Done("a.mp4", number, number * 512, 1))
    again = ExtractionJournal.read(tmp_path)
    again.start({"size": 1})
    assert (again.run, again.settings) == (journal.run, SETTINGS)
    again.start({"size": 64}, again=[1, 2, 77])
    again.add(Done("a.mp4", 2, 1024, 1))
    found = ExtractionJournal.read(tmp_path)
    assert found.run == again.run != journal.run and found.settings == {"size": 64}
    assert found.replacing and sorted(found.frames) == [0, 2, 3]
    assert found.runs == {0: journal.run, 3: journal.run, 2: again.run}
    again.end_replacing()
    assert not ExtractionJournal.read(tmp_path).replacing


def test_no_journal_is_an_empty_one(tmp_path):
    journal = ExtractionJournal.read(tmp_path / "none")
    assert (journal.run, journal.settings, journal.frames) == (None, None, {})


GOOD = {"file": "a", "frame": 1, "pts": None, "faces": 1, "dropped": [], "seen": False}


@pytest.mark.parametrize(
    "line",
    [
        "no json", "[]", "7", "[" * 100_000, '{"frame": 1}',
        json.dumps(GOOD | {"frame": "1"}), json.dumps(GOOD | {"file": 3}),
        json.dumps(GOOD | {"faces": None}), json.dumps(GOOD | {"dropped": [1]}),
        json.dumps({"run": "x", "version": 99}), json.dumps({"run": "x", "version": 1}),
    ],
)  # fmt: skip
def test_a_foreign_file_is_named(tmp_path, line):
    (tmp_path / JOURNAL).write_text(line + "\n")
    with pytest.raises(BadFileError, match=r"extract\.jsonl: not a journal of this program"):
        ExtractionJournal.read(tmp_path)
