"""Settings that change from a frame on: read, refused, and used for the right frames."""

import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from omegaconf import OmegaConf
from workspaces import WITHOUT_FACE, convert_workspace, read_clip

from odfs_jax.config import MergeConfig
from odfs_jax.conversion import convert as conversion
from odfs_jax.conversion.shots import (
    MAX_RAMPS,
    MAX_SETTINGS,
    MAX_SHOTS,
    find_shots,
    ramp_merges,
    read_shots,
)
from odfs_jax.errors import UserError

ASSETS = Path(__file__).parents[1] / "assets"


@pytest.fixture
def base():
    merge = MergeConfig(mode="hist_match", erode=5.0, args={"masked": True})
    return OmegaConf.structured(merge)


def shots_of(tmp_path, text, base):
    path = tmp_path / "dst.shots.yaml"
    path.write_text(text)
    return read_shots(path, base)


def test_every_shot_starts_from_the_commands_settings(tmp_path, base):
    text = "- {from: 3, erode: 10, blur: 2}\n- from: 9\n- {from: 12, mode: overlay, blur: 7}\n"
    shots = shots_of(tmp_path, text, base)
    assert [shot.start for shot in shots] == [0, 3, 9, 12]
    assert [(s.merge.mode, s.merge.erode, s.merge.blur) for s in shots] == [
        ("hist_match", 5, 0),
        ("hist_match", 10, 2),
        ("hist_match", 5, 0),
        ("overlay", 5, 7),
    ]
    assert [dict(s.merge.args) for s in shots] == [{"masked": True}] * 3 + [{}]
    assert shots[0].settings == shots[2].settings != shots[1].settings
    assert base.erode == 5 and base.mode == "hist_match"


def test_a_first_shot_at_0_takes_the_place_of_the_commands(tmp_path, base):
    shots = shots_of(tmp_path, "- {from: 0, erode: 1}", base)
    assert [(shot.start, shot.merge.erode) for shot in shots] == [(0, 1)]
    assert len(shots_of(tmp_path, "", base)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("from: 3", r"dst\.shots\.yaml: expected a list of shots"),
        ("- 3", "expected a list of shots"),
        ("- erode: 3", "from: None: expected the number of a frame"),
        ("- from: -1", "from: -1: expected the number"),
        ("- from: ['${oc.env:HOME}']", "references are not resolved here"),
        ("- from: true", "from: True: expected the number"),
        ("- from: 5\n- from: 5", "from: 5 stands after from: 5"),
        ("- {from: 5, eroed: 3}", "the shot from 5: Key 'eroed' not in 'MergeConfig'"),
        ("- {from: 5, erode: much}", "the shot from 5: Value 'much'"),
        ("- from: 5: 6", "not YAML"),
        ("- !!python/object/apply:os.system ['true']", "tags .* are not taken"),
        ("- {from: 1, mode: '${oc.env:HOME}'}", "references are not resolved here"),
        ("- {from: 1, '${oc.env:HOME}': 1}", "references are not resolved here"),
        ("- {from: 1, mode: '???'}", "references are not resolved here"),
        ("- {from: 1, erode: .nan}", "the shot from 1"),
        ("- {from: 1, args: {masked: 2001-01-01}, 3: 4}", "the shot from 1 has the unknown key 3"),
        (f"- from: 1{'0' * 400}", "is too large"),
        ("- {from: 5, mode: [1]}", "the shot from 5"),
        ("- {from: 5, ramp: -1}", "the shot from 5: ramp"),
        ("- {from: 5, ramp: 2.5}", "the shot from 5: ramp"),
        ("- {from: 0, ramp: 5}", "the shot from 0: ramp: there is no shot before it"),
    ],
)
def test_what_is_no_list_of_shots_is_refused(tmp_path, base, text, message):
    with pytest.raises(UserError, match=message):
        shots_of(tmp_path, text, base)


def test_numbers_go_evenly_in_a_ramp(tmp_path, base):
    text = "- {from: 3, ramp: 4, erode: 10, mode: overlay, sharpen: 50, color_smoothing: 9}"
    before, shot = shots_of(tmp_path, text, base)
    merges = ramp_merges(before.merge, shot)
    assert {number: merge.erode for number, merge in merges.items()} == {3: 6, 4: 7, 5: 8, 6: 9}
    assert [merge.sharpen for merge in merges.values()] == pytest.approx([10, 20, 30, 40])
    assert {(m.mode, m.color_smoothing, m.blur) for m in merges.values()} == {("overlay", 9, 0)}
    assert ramp_merges(before.merge, before) == {}


def test_hostile_files_cost_seconds_at_most(tmp_path, base):
    started = time.perf_counter()
    for text in (
        (ASSETS / "billion_laughs.shots.yaml").read_text(),
        "".join(f"- from: {number}\n  mode: raw\n" for number in range(MAX_SHOTS + 1)),
        "".join(f"- from: {number}\n  erode: {number}e-3\n" for number in range(MAX_SETTINGS + 1)),
        "".join(f"- {{from: {n}, ramp: 999}}\n" for n in range(1, MAX_RAMPS // 999 + 2)),
        "[" * 100_000,
        "- " + "{a: " * 50_000,
    ):
        with pytest.raises(UserError) as error:
            shots_of(tmp_path, text, base)
        assert len(str(error.value)) < 500
    many = "".join(f"- {{from: {n}, erode: {n % 2}}}\n" for n in range(1, MAX_SHOTS))
    assert len(shots_of(tmp_path, many, base)) == MAX_SHOTS
    assert time.perf_counter() - started < 60


def test_the_file_beside_the_clip_is_found(tmp_path):
    clip, folder = tmp_path / "dst.mp4", tmp_path / "frames.v2"
    folder.mkdir()
    assert find_shots(None, clip) is None
    (tmp_path / "dst.shots.yaml").touch()
    (tmp_path / "frames.v2.shots.yaml").touch()
    assert find_shots(None, clip) == tmp_path / "dst.shots.yaml"
    assert find_shots(None, folder) == tmp_path / "frames.v2.shots.yaml"
    with pytest.raises(UserError, match=r"no-such.yaml: no such file"):
        find_shots("no-such.yaml", clip)


def pictures(folder):
    return [cv2.imread(str(path)) for path in sorted(folder.glob("*.png"))]


def test_each_frame_is_merged_as_its_shot_says(workspace, monkeypatch):
    """The frames are those of whole runs with either setting; settings seen twice compile once."""
    alone = "merge.color_smoothing=0"  # colors are averaged within a shot
    convert_workspace(workspace, f"output.path={workspace}/plain", alone)
    convert_workspace(workspace, f"output.path={workspace}/matched", "merge=hist_match", alone)
    shots = "- {from: 1, mode: hist_match}\n- from: 3\n- {from: 4, mode: hist_match}\n"
    (workspace / "dst.shots.yaml").write_text(shots)
    built = []
    build = conversion.build_merge
    monkeypatch.setattr(
        conversion, "build_merge", lambda *given: built.append(given) or build(*given)
    )
    convert_workspace(workspace, f"output.path={workspace}/result", alone)
    assert len(built) == 2
    plain, matched, result = (pictures(workspace / n) for n in ("plain", "matched", "result"))
    for index, near in enumerate([plain, matched, matched, plain, matched, matched]):
        far = matched if near is plain else plain
        difference = np.abs(result[index].astype(int) - near[index])
        assert difference.max() <= 2  # a batch of other faces may have wider regions
        if index != WITHOUT_FACE:
            assert np.abs(result[index].astype(int) - far[index]).max() > 20


def test_a_ramp_between_shots(workspace, monkeypatch):
    """Opacity goes evenly to its new value; one program does all frames."""
    alone = "merge.color_smoothing=0"  # colors are averaged within a shot
    convert_workspace(workspace, f"output.path={workspace}/plain", alone)
    (workspace / "dst.shots.yaml").write_text("- {from: 3, ramp: 2, opacity: 40}\n")
    merges = []
    build = conversion.build_merge

    def building(*given):
        merges.append(build(*given))
        return merges[-1]

    monkeypatch.setattr(conversion, "build_merge", building)
    convert_workspace(workspace, f"output.path={workspace}/result", alone)
    assert len({id(merge.programs.composite) for merge in merges}) == 1 < len(merges)
    plain, result = (pictures(workspace / name) for name in ("plain", "result"))
    decoded, *_ = read_clip(workspace / "dst.mp4")
    own = [frame.to_ndarray(format="bgr24").astype(int) for frame in decoded]
    for number, share in enumerate((1, 1, 1, 0.8, 0.6, 0.4)):
        new = plain[number] - own[number]
        if number == WITHOUT_FACE:
            np.testing.assert_array_equal(result[number], plain[number])
            continue
        # New colors beyond black and white are cut last.
        much = (np.abs(new) > 40) & (plain[number] > 0) & (plain[number] < 255)
        shares = (result[number] - own[number])[much] / new[much]
        assert much.sum() > 99 and np.median(shares) == pytest.approx(share, abs=0.01)
        assert np.abs(np.quantile(shares, (0.1, 0.9)) - share).max() < 0.06


def test_a_bad_shot_is_refused_before_anything_is_written(workspace):
    (workspace / "dst.shots.yaml").write_text("- from: 2\n- {from: 4, erode: 101}\n")
    before = sorted(workspace.iterdir())
    with pytest.raises(UserError, match=r"the shot from 4: merge.erode=101: expected -100..100"):
        convert_workspace(workspace, f"output.path={workspace}/result")
    (workspace / "dst.shots.yaml").write_text("- {from: 4, mode: nonsense}\n")
    with pytest.raises(UserError, match=r"the shot from 4: merge.mode=nonsense: not one of"):
        convert_workspace(workspace)
    assert sorted(workspace.iterdir()) == before
