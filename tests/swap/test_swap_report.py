"""What the report advises, from faces, losses and figures."""

import numpy as np
import pytest

from odfs_jax.swap.report import advice, falling, missing_poses, text_of

FRONT = np.array([[0.0, 0.0], [5.0, -3.0]])


def facts(**others):
    plan = {
        "preset": "small", "name": "small", "model": "demo", "resolution": 80,
        "iterations": 3600, "iteration_seconds": 0.5, "batch_size": 8, "why": ["because"],
    }  # fmt: skip
    evaluation = {
        "result": "r.mp4", "frames": 50, "frames_with_truth": 0, "frames_unchanged": 0,
        "values": {"swap": {"identity": 1.0}},
    }  # fmt: skip
    known = {
        "result": "r.mp4", "src": "a", "dst": "b", "workspace": "w", "plan": plan,
        "seconds": {"train": 61.0}, "faces": {"src": 900, "dst": 100}, "frames": 100,
        "frames_to_look_at": 0, "poses_missing": {}, "cores": 2, "device": "cpu",
        "evaluation": evaluation, "advice": [],
    }  # fmt: skip
    return known | others


def test_poses_that_src_lacks_are_named_and_mirror_images_count():
    dst = np.array([[0, 0], [-40, 0], [-40, 20], [38, 0], [3, 30], [0, -30], [10, 8]], float)
    assert missing_poses(FRONT, dst) == {
        "turned to the picture's left": 1,
        "turned to the picture's left, looking up": 1,
        "turned to the picture's right": 1,
        "looking up": 1,
        "looking down": 1,
    }
    seen = np.concatenate([FRONT, [[40, 2]]])
    assert "turned to the picture's left" not in missing_poses(seen, dst)
    assert missing_poses(np.empty((0, 2)), dst[:1]) == {"from the front": 1}


def rows(losses):
    return [{"step": i, "losses": {"a": v, "b": None}} for i, v in enumerate(losses)]


def test_a_loss_that_still_falls_is_seen():
    assert falling(rows([1.0] * 9)) is None
    assert falling(rows([1.0] * 20)) == 0
    assert falling(rows([*([1.0] * 18), 0.5, 0.5])) == pytest.approx(0.5)


def test_figures_of_held_out_faces_are_no_losses():
    measured = rows([*([1.0] * 18), 0.5, 0.5])
    for row in measured:
        better = {"src_held_out": 0.1 * row["step"], "src_held_out/sharpness": 0.9, "iou": 0.8}
        row["losses"] |= better
    assert falling(measured) == pytest.approx(0.5)


def test_each_lack_has_its_advice():
    few = advice(facts(), rows([1.0] * 20))
    assert len(few) == 3 and "preset=medium" in few[0] and "python convert.py workspace=w" in few[2]
    assert "matter of taste" in few[1] and "merge.scale" in few[1]
    many = advice(
        facts(
            faces={"src": 40, "dst": 100},
            poses_missing={"looking up": 30, "looking down": 2},
            frames_to_look_at=7,
            evaluation=facts()["evaluation"]
            | {"frames_unchanged": 3, "values": {"swap": {"identity": 0.4}}},
        ),
        rows([*([1.0] * 18), 0.5, 0.5]),
    )
    words = "\n".join(many)
    for said in ("30 of dst's 100 faces are looking up", "src has 40 faces", "7 of 100 frames",
                 "still fell by 50%", "40% of the new faces", "3 frames are as dst"):  # fmt: skip
        assert said in words
    assert "looking down" not in words


def test_a_short_training_is_told_what_it_lacks():
    short = facts(plan=facts()["plan"] | {"iterations": 500})
    said = advice(short, rows([1.0] * 2))[0]
    assert said.startswith("500 iterations are few, small wants 3000: hours=0.42 preset=small")
    short["plan"]["iteration_seconds"] = None
    assert "train.iterations=3000 preset=small" in advice(short, [])[0]


def test_the_report_says_what_was_chosen_and_why():
    text = "\n".join(text_of(facts(advice=["more"])))
    for said in ("preset small: demo, 80 pixels, 3600 iterations, batch 8", "  - because", "- more",
                 "train 61 s", "50 frames with a face"):  # fmt: skip
        assert said in text
