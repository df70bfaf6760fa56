"""What is trained on which machine, and the line over all stages."""

import logging
from types import SimpleNamespace

import pytest

from odfs_jax.config import compose, fitting, require_complete, with_stages
from odfs_jax.errors import UserError
from odfs_jax.runtime.progress import duration, progress
from odfs_jax.swap.overview import Overview, shown
from odfs_jax.swap.plan import (
    PRESETS,
    make_plan,
    read_plan,
    seconds_per_iteration,
)
from odfs_jax.swap.swap import check_training
from odfs_jax.training.memory import TooLargeError

CPU, CARD = SimpleNamespace(platform="cpu"), SimpleNamespace(platform="gpu")


def plan_for(
    gigabytes, hours=None, preset="auto", device=CARD, seconds=0.1, iterations=None, fits=()
):
    """The plan for a card of so many GB, on which each preset takes `seconds` an iteration."""
    tried = []

    def measure(plan):
        tried.append(plan.preset)
        if fits and plan.preset not in fits:
            raise TooLargeError("too large")
        return seconds

    free = int(gigabytes * 1e9)
    plan = make_plan(preset, hours, iterations, [device], free, measure)
    return plan, tried


@pytest.mark.parametrize(
    ("gigabytes", "chosen", "batch"),
    [(1, "small", 8), (3, "medium", 8), (4, "large", 8), (6, "huge", 8), (24, "huge", 16)],
)
def test_a_card_trains_the_largest_preset_that_fits(gigabytes, chosen, batch):
    plan, _ = plan_for(gigabytes, hours=24)
    assert (plan.preset, plan.batch_size) == (chosen, batch)
    assert plan.iterations == 500_000  # as many as more hours would make


def test_few_hours_take_a_smaller_preset():
    plan, tried = plan_for(24, hours=1.5)  # 54,000 iterations
    assert plan.preset == "large" and tried == ["huge", "large"]
    assert plan.iterations == 54_000 and plan.seconds == 0.1
    assert any("huge would get 54000 iterations" in why for why in plan.why)


def test_what_the_compiled_step_does_not_fit_is_not_taken():
    plan, tried = plan_for(24, hours=24, fits=("small", "medium"))
    assert plan.preset == "medium" and tried == ["huge", "large", "medium"]
    with pytest.raises(TooLargeError):
        plan_for(24, hours=24, preset="huge", fits=("small",))


def test_without_a_card_the_recipe_of_the_demo_is_trained_and_nothing_measured():
    plan, tried = plan_for(16, device=CPU)
    assert (plan.preset, plan.iterations, tried) == ("small", 3000, [])
    # As configs/experiment/demo.yaml has them.
    as_in_the_demo = {
        "augment.warp_until=2300",
        "augment.transform_until=2000",
        "optimizer.warmup=100",
    }
    assert as_in_the_demo <= set(plan.settings())
    plan, tried = plan_for(16, device=CPU, hours=2)
    assert (plan.preset, plan.iterations, tried) == ("small", 72_000, ["small"])
    plan, _ = plan_for(16, device=CPU, hours=0.002)
    assert "optimizer.warmup=3" in plan.settings()  # a rate that rises to the end is refused
    assert plan.iterations == 100 and "would be 72; fewer are no use" in plan.why[-1]


def test_the_users_own_iterations_need_no_measurement():
    plan, tried = plan_for(24, iterations=7)
    assert (plan.preset, plan.iterations, tried) == ("huge", 7, [])


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("preset=giant", "expected auto, small, medium, large, huge"),
        ("train.batchsize=4", r"^train\.batchsize: no such setting; did you mean batch_size\?"),
        ("train.model.args.archi=df", None),  # a preset has it
    ],
)
def test_settings_of_the_training_are_checked_before_anything_begins(setting, said):
    config = compose("swap", with_stages([setting]))
    if said is None:
        check_training(config, [])
        return
    with pytest.raises(UserError, match=said):
        check_training(config, [])


@pytest.mark.slow
def test_iterations_are_timed_and_nothing_of_them_is_kept(tmp_path, write_faceset, monkeypatch):
    monkeypatch.setattr("odfs_jax.swap.plan.TIMED_SECONDS", 0.0)
    for seed, side in enumerate(("src", "dst")):
        write_faceset(tmp_path / side / "aligned", 2, seed=seed)
    tiny = ("model.width=0.01", "model.resolution=32", "batch_size=2", "save_minutes=0.01")
    config = compose("train", ["model=h64", *tiny, f"workspace={tmp_path}"])
    require_complete(config)
    assert 0 < seconds_per_iteration(config) < 60
    assert {path.name for path in tmp_path.iterdir()} == {"src", "dst"}
    config.hardware.memory_gb = 1e-6
    with pytest.raises(TooLargeError):
        seconds_per_iteration(config)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_composes(preset):
    plan, _ = plan_for(24, preset=preset, iterations=9000)
    config = compose("train", fitting(plan.settings(), ["batch_size=2"]))
    require_complete(config)
    assert config.model.resolution == PRESETS[preset].pixels and config.name == preset
    assert (config.iterations, config.batch_size, config.augment.warp_until) == (9000, 2, 6900)


def test_a_noted_plan_is_read_back_for_the_same_settings_only():
    plan, _ = plan_for(24, hours=2)
    noted = {"of": "a", **vars(plan), "why": list(plan.why)}
    assert read_plan(noted, "a") == plan
    assert read_plan(noted, "b") is None
    for damage in ({"preset": "giant"}, {"iterations": 0}, {"batch_size": "8"}, {"why": "x"}):
        assert read_plan(noted | damage, "a") is None


def test_settings_of_the_stages_are_lists_on_the_command_line():
    arguments = [
        "src=a.mov",
        "train.model.width=0.5",
        "hours=2",
        "train.name=it's",
        "convert.merge=raw",
    ]
    config = compose("swap", with_stages(arguments))
    require_complete(config)
    assert list(config.train) == ["model.width=0.5", "name=it's"] and config.hours == 2
    assert list(config.convert) == ["merge=raw"] and list(config.extract) == []


def test_the_line_over_all_stages_says_what_is_left():
    overview = Overview({"extract dst": 40, "plan": None, "train": None, "convert": 40})
    overview.expect("plan", 0)
    overview.expect("train", 600)
    overview.hear("extract dst", 0, 40)
    assert overview.line(0) == "[1/4] extract dst 0/40 (0%)"
    overview.hear("extract dst", 1, 40)  # it compiles: no measure of the others
    overview.hear("extract dst", 21, 40)
    assert overview.line(20) == "[1/4] extract dst 21/40 (52%), 19 s left; 11 min in all"
    overview.hear("reading faces", 3, 5)
    assert overview.line(20).startswith("[1/4] extract dst")
    overview.hear("train", 1000, 3000)  # of an earlier run
    overview.hear("train", 1001, 3000)
    overview.hear("train", 2001, 3000)
    assert overview.line(100) == "[3/4] train 2001/3000 (67%), 2 min left; 2 min in all"


def test_loops_tell_the_overview_and_the_log_goes_to_a_file(tmp_path, capsys):
    own = logging.getLogger("odfs_jax.of_this_test")
    own.setLevel(logging.INFO)
    before = logging.getLogger().handlers[:]
    overview = Overview({"convert": 2, "evaluate": 2})
    with shown(overview, tmp_path / "swap.log"):
        assert list(progress(iter("ab"), 2, "convert")) == ["a", "b"]
        own.info("a detail")
        own.warning("a face left out \x1b[2J")
    assert logging.getLogger().handlers == before
    first, last, warning = capsys.readouterr().err.splitlines()
    assert first == "[1/2] convert 0/2 (0%)" and last.startswith(
        "[1/2] convert 2/2 (100%), 0 s left"
    )
    assert warning == "a face left out \\x1b[2J"
    written = (tmp_path / "swap.log").read_text()
    assert "a detail\n" in written and "a face left out" in written


def test_durations_in_words():
    assert [duration(s) for s in (0.4, 45, 130, 3600, 12_000)] == [
        "0 s", "45 s", "2 min", "60 min", "3 h 20 min",
    ]  # fmt: skip
