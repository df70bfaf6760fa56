"""Renaming as one act: stopped at every step there is, it is taken back, and no face is lost."""

import contextlib
import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from odfs_jax.curation import rename
from odfs_jax.curation.rename import JOURNAL, Move
from odfs_jax.data import atomic
from odfs_jax.errors import BadFileError, UserError

COUNT = 5
STEPS = 3 + 2 * COUNT  # journal writes and renames of a sort; an undo has 2 + 2 * COUNT


class PowerCut(BaseException):
    """Nothing in the program catches it."""


@pytest.fixture
def folder(tmp_path):
    """Five files, named so that old and new names overlap; each holds its first name."""
    folder = tmp_path / "aligned"
    folder.mkdir()
    for name in ("00003.png", "00001.png", "00000.png", "b.png", "00009_0.png"):
        (folder / name).write_text(name)
    return folder


def content(folder):
    """{place: what is written there} of all faces, those in the trash included."""
    places = [*folder.glob("*.png"), *rename.trash_folder(folder).glob("*.png")]
    return {str(path.relative_to(folder.parent)): path.read_text() for path in places}


def order(folder):
    return [folder / n for n in ("b.png", "00000.png", "00009_0.png", "00003.png", "00001.png")]


SORTED = {
    "aligned/00000.png": "b.png",
    "aligned/00001.png": "00000.png",
    "aligned/00002.png": "00009_0.png",
    "aligned_trash/00003.png": "00003.png",
    "aligned_trash/00001.png": "00001.png",
}


def stop_after(monkeypatch, steps):
    """Lets `steps` renames and journal writes happen, then cuts the power."""
    left = iter(range(steps))

    def limited(act):
        def run(*args):
            if next(left, None) is None:
                raise PowerCut
            return act(*args)

        return run

    monkeypatch.setattr(rename, "_move", limited(rename._move))
    monkeypatch.setattr(rename, "_write", limited(rename._write))


def test_sort_and_undo(folder):
    before = content(folder)
    assert rename.apply_moves(folder, rename.plan_moves(folder, order(folder), 3)) == 0
    assert content(folder) == SORTED and not rename.is_interrupted(folder)
    assert [now.name for now, _ in rename.undo_pairs(folder)] == [
        "00000.png", "00001.png", "00002.png", "00003.png", "00001.png"
    ]  # fmt: skip
    assert rename.undo(folder) == COUNT
    assert content(folder) == before and not (folder / JOURNAL).exists()
    with pytest.raises(UserError, match="nothing to undo"):
        rename.undo(folder)


@pytest.mark.parametrize("steps", range(STEPS))
def test_a_sort_stopped_anywhere_is_taken_back(folder, monkeypatch, steps):
    before = content(folder)
    moves = rename.plan_moves(folder, order(folder), 3)
    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        stop_after(patch, steps)
        rename.apply_moves(folder, moves)
    assert sorted(content(folder).values()) == sorted(before.values())
    assert rename.is_interrupted(folder) == (steps > 0)
    rename.recover(folder)
    assert content(folder) == before and not rename.is_interrupted(folder)


@pytest.mark.parametrize("steps", range(STEPS - 1))
def test_an_undo_stopped_anywhere_is_finished(folder, monkeypatch, steps):
    before = content(folder)
    rename.apply_moves(folder, rename.plan_moves(folder, order(folder), 3))
    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        stop_after(patch, steps)
        rename.undo(folder)
    assert sorted(content(folder).values()) == sorted(before.values())
    if steps:
        assert rename.is_interrupted(folder)
        rename.recover(folder)
    else:
        rename.undo(folder)
    assert content(folder) == before and not (folder / JOURNAL).exists()


@pytest.mark.parametrize("first", range(1, STEPS, 2))
def test_taking_back_stopped_anywhere_is_taken_up_again(folder, monkeypatch, first):
    """The power is cut in the sort, then again and again in what takes it back."""
    before = content(folder)
    moves = rename.plan_moves(folder, order(folder), 3)
    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        stop_after(patch, first)
        rename.apply_moves(folder, moves)
    for _ in range(STEPS):
        with monkeypatch.context() as patch:
            stop_after(patch, 2)
            try:
                rename.recover(folder)
                break
            except PowerCut:
                assert sorted(content(folder).values()) == sorted(before.values())
    rename.recover(folder)
    assert content(folder) == before


names = st.lists(st.integers(0, 12), min_size=1, max_size=8, unique=True)


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(names, st.randoms(use_true_random=False), st.integers(1, 8), st.integers(0, 20))
def test_any_folder_stopped_anywhere(tmp_path, monkeypatch, numbers, random, keep, steps):
    folder = tmp_path / "aligned"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(rename.trash_folder(folder), ignore_errors=True)
    folder.mkdir()
    for number in numbers:
        (folder / f"{number:05d}.png").write_text(str(number))
    before = content(folder)
    shuffled = random.sample(sorted(folder.iterdir()), len(numbers))
    moves = rename.plan_moves(folder, shuffled, keep)
    with monkeypatch.context() as patch, contextlib.suppress(PowerCut):
        stop_after(patch, steps)
        rename.apply_moves(folder, moves)
    assert sorted(content(folder).values()) == sorted(before.values())
    if steps < 3 + 2 * len(numbers):
        rename.recover(folder)
        assert content(folder) == before
        return
    after = content(folder)
    kept = [after[f"aligned/{n:05d}.png"] for n in range(min(keep, len(numbers)))]
    assert kept == [before[f"aligned/{path.name}"] for path in shuffled[:keep]]
    assert sorted(after.values()) == sorted(before.values())


def test_numbers_that_other_files_have_are_passed_over(folder):
    (folder / "00001.png").write_text("not a face, say")
    faces = [folder / "b.png", folder / "00003.png"]
    assert rename.plan_moves(folder, faces, None) == [
        Move("b.png", "00002.png"), Move("00003.png", "00003.png")
    ]  # fmt: skip


def test_more_faces_than_five_digits_name(tmp_path):
    faces = [tmp_path / f"{index}.png" for index in range(100_001)]
    new = [move.new for move in rename.plan_moves(tmp_path, faces, None)]
    assert new == sorted(new) and new[-1] == "100000.png"


def test_the_trash_is_never_overwritten(folder):
    trash = rename.trash_folder(folder)
    trash.mkdir()
    for name in ("00001.png", "00001-1.png"):
        (trash / name).write_text(f"old {name}")
    rename.apply_moves(folder, rename.plan_moves(folder, order(folder), 3))
    found = content(folder)
    assert found["aligned_trash/00001.png"] == "old 00001.png"
    assert found["aligned_trash/00001-1.png"] == "old 00001-1.png"
    assert found["aligned_trash/00001-2.png"] == "00001.png"


def test_the_trash_of_a_linked_folder_is_beside_the_real_one(folder, tmp_path):
    (tmp_path / "workspace").mkdir()
    link = tmp_path / "workspace" / "aligned"
    link.symlink_to(folder)
    rename.apply_moves(link, rename.plan_moves(link, [link / p.name for p in order(folder)], 3))
    assert content(folder) == SORTED


def test_faces_deleted_meanwhile_and_afterwards(folder):
    before = content(folder)
    moves = rename.plan_moves(folder, order(folder), 3)
    (folder / "b.png").unlink()
    assert rename.apply_moves(folder, moves) == 1
    (folder / "00002.png").unlink()
    assert rename.undo(folder) == COUNT - 2
    gone = {"aligned/b.png", "aligned/00009_0.png"}
    assert content(folder) == {k: v for k, v in before.items() if k not in gone}


def test_a_new_file_with_an_old_name_stops_the_undo_before_it_begins(folder):
    rename.apply_moves(folder, rename.plan_moves(folder, order(folder), None))
    (folder / "b.png").write_text("new")
    after = content(folder)
    with pytest.raises(UserError, match=r"b.png: came after the sort and is in the way"):
        rename.undo(folder)
    assert content(folder) == after and not rename.is_interrupted(folder)


def test_a_new_file_in_the_way_of_taking_back_is_kept(folder, monkeypatch):
    before = content(folder)
    moves = rename.plan_moves(folder, order(folder), 3)
    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        stop_after(patch, 1 + COUNT)
        rename.apply_moves(folder, moves)
    (folder / "b.png").write_text("new")
    with pytest.raises(UserError, match=r"b.png: in the way of a face"):
        rename.recover(folder)
    (folder / "b.png").rename(folder / "elsewhere.png")
    rename.recover(folder)
    assert content(folder) == before | {"aligned/elsewhere.png": "new"}


def test_extracting_anew_leaves_nothing_to_undo(folder):
    rename.apply_moves(folder, rename.plan_moves(folder, order(folder), None))
    for path in folder.glob("*.png"):
        path.unlink()
    (folder / "00000_0.png").write_text("new")
    assert rename.undo(folder) == 0
    assert content(folder) == {"aligned/00000_0.png": "new"}


def test_a_second_sort_can_be_undone_once(folder):
    rename.apply_moves(folder, rename.plan_moves(folder, order(folder), 3))
    files = sorted(folder.glob("*.png"), reverse=True)
    rename.apply_moves(folder, rename.plan_moves(folder, files, 1))
    assert content(folder)["aligned/00000.png"] == "00009_0.png"
    rename.undo(folder)
    assert content(folder) == SORTED


good = {"version": 1, "step": "sorted", "token": "ab", "moves": [{"old": "a.png", "new": "b.png"}]}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        json.dumps(good | {"version": 2}),
        json.dumps(good | {"step": "gone"}),
        json.dumps(good | {"step": ["sorted"]}),
        json.dumps(good | {"token": "../x"}),
        json.dumps(good | {"token": 7}),
        json.dumps(good | {"moves": 3}),
        json.dumps(good | {"moves": [{"old": "a.png"}]}),
        json.dumps(good | {"moves": [{"old": "../a.png", "new": "b.png"}]}),
        json.dumps(good | {"moves": [{"old": "a.png", "new": "/etc/passwd"}]}),
        json.dumps(good | {"moves": [{"old": "a.png", "new": 5}]}),
    ],
)
def test_a_journal_from_elsewhere_is_not_trusted(folder, text):
    before = content(folder)
    atomic.write_text(folder / JOURNAL, text)
    for act in (rename.recover, rename.undo, rename.is_interrupted):
        with pytest.raises(BadFileError, match=r"\.odfs_sort\.json: not a journal"):
            act(folder)
    assert content(folder) == before


def test_the_good_journal_is_read(folder):
    atomic.write_text(folder / JOURNAL, json.dumps(good))
    assert rename.undo_pairs(folder) == [(folder / "b.png", folder / "a.png")]
