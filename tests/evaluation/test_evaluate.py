"""The command from a workspace to the JSON, the table and the sheet."""

import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from omegaconf import OmegaConf

from odfs_jax.config import compose
from odfs_jax.data.aligned_png import FaceData, Pose, Source, write_face
from odfs_jax.data.media import png
from odfs_jax.errors import UserError
from odfs_jax.evaluation.evaluate import evaluate
from odfs_jax.evaluation.report import LABEL
from odfs_jax.evaluation.truth import frames_at, load_truth
from odfs_jax.faces.affine import transform
from odfs_jax.faces.align import alignment_matrix
from odfs_jax.faces.crop import crop_face
from odfs_jax.faces.types import FaceType

DEMO = Path(__file__).parents[2] / "assets" / "demo"
COUNT = 7  # frames of the clip; the even ones have truth


def run(workspace: Path, *overrides: str) -> None:
    settings = [f"workspace={workspace}", "hardware.compilation_cache=null", *overrides]
    config = compose("evaluate", ["data=dst", *settings])
    OmegaConf.resolve(config)
    evaluate(config)


def write_faces(folder: Path, names: list[str], images: list, points: list) -> None:
    folder.mkdir(parents=True)
    for number, (name, image, own) in enumerate(zip(names, images, points, strict=True)):
        height, width, _ = image.shape
        matrix = alignment_matrix(own, FaceType.FULL, 128)
        source = Source(name, number, None, width, height, (0.0, 0.0, 9.0, 9.0), own)
        face = FaceData(
            FaceType.FULL, 128, transform(matrix, own), source, Pose(0.0, 0.0, 0.0), "", "", 1.0
        )
        write_face(folder / f"{number:05d}_0.png", crop_face(image, matrix, 128), face)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """Pictures of dst, aligned faces of both, and a perfect swap: the truth inside its hull."""
    root = tmp_path_factory.mktemp("workspace")
    truth = load_truth(DEMO)
    points = [truth[i // 2].landmarks for i in range(COUNT)]
    frames = frames_at(DEMO / "dst.mp4", list(range(COUNT)))
    names = [f"{i:04d}.png" for i in range(COUNT)]
    for folder in ("dst", "result", "gt"):
        (root / folder).mkdir()
    for i, (name, frame) in enumerate(zip(names, frames, strict=True)):
        (root / "dst" / name).write_bytes(png.encode(frame))
        t = truth[i // 2]
        swapped = np.where(t.hull[..., None], t.image, frame)
        (root / "result" / name).write_bytes(png.encode(swapped))
        if i % 2 == 0:
            shutil.copy(DEMO / "truth" / name, root / "gt" / name)
    numbers = list(range(0, COUNT, 2))
    np.savez(root / "gt.npz", frame=numbers, landmarks=points[::2])
    write_faces(root / "dst" / "aligned", names, frames, points)
    others = truth[10:20]
    files = [f"{t.frame:04d}.png" for t in others]
    write_faces(
        root / "src" / "aligned", files, [t.image for t in others], [t.landmarks for t in others]
    )
    return root


def test_a_perfect_swap_gets_perfect_figures(workspace, capsys):
    run(workspace, f"truth={workspace / 'gt'}")
    printed = capsys.readouterr().out
    report = json.loads((workspace / "result_evaluation.json").read_text())
    assert report["frames"] == COUNT and report["frames_with_truth"] == 4
    swap, dst = report["values"]["swap"], report["values"]["dst"]
    # Windows at the rim of the hull see dst beyond it, so not all is 1.
    assert swap["ssim"] > 0.96 and swap["eyes_registered"] > 0.94
    assert swap["eyes_placement"] == 0 and swap["gmsd"] < 1e-6
    assert swap["identity"] == 1 and dst["identity"] == 0
    assert swap["to_src"] < 0.4 < dst["to_src"]
    assert swap["spill"] == 0 and swap["outside_error"] == 0
    assert swap["flicker"] > 2 and dst["flicker"] == 1  # it stands still on every second frame
    assert report["above_dst"]["ssim"] == report["above_dst"]["gmsd"] == 1
    assert [row["frame"] for row in report["by_frame"]] == [0, 2, 4, 6]
    lines = printed.splitlines()
    assert "7 frames with a face, 4 with truth" in lines[0]
    assert lines[4].startswith("| eyes SSIM, registered")
    assert "Above untouched dst: on 100% of the frames" in printed
    picture = cv2.imread(str(workspace / "result_evaluation.png"))
    assert picture.shape == (LABEL + 4 * (256 + 85), 3 * 256, 3)


def test_without_truth_the_rest_is_measured(workspace, tmp_path, capsys):
    result = tmp_path / "other"
    shutil.copytree(workspace / "dst", result, ignore=shutil.ignore_patterns("aligned"))
    run(workspace, f"result={result}")
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "other_evaluation.json").read_text())
    assert report["frames_unchanged"] == COUNT and "nothing swapped" in printed
    assert "SSIM" not in printed and "above_dst" not in report
    values = report["values"]
    assert values["swap"] == values["dst"]
    assert values["swap"]["identity"] == 0 and values["swap"]["spill"] is None
    assert values["flat"]["to_src"] > values["swap"]["to_src"]
    assert cv2.imread(str(tmp_path / "other_evaluation.png")).shape[1] == 2 * 256


def test_without_dlib_all_but_identity_is_measured(workspace, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "dlib", None)
    result = tmp_path / "other"
    shutil.copytree(workspace / "result", result)
    run(workspace, f"result={result}", f"truth={workspace / 'gt'}")
    assert "identity is not measured: dlib is not installed; run: pip install" in caplog.text
    swap = json.loads((tmp_path / "other_evaluation.json").read_text())["values"]["swap"]
    assert swap["ssim"] > 0.96 and swap["flicker"] > 2 and "identity" not in swap


@pytest.mark.slow
def test_the_face_that_changed_is_measured_where_there_are_several(workspace, tmp_path):
    """A second face, which nobody swapped, stands in every frame's data before the first."""
    shutil.copytree(workspace, tmp_path / "w")
    faces = tmp_path / "w" / "dst" / "aligned"
    points = load_truth(DEMO)[0].landmarks * 0.2 + [300, 300]
    names = [f"{i:04d}.png" for i in range(COUNT)]
    images = frames_at(DEMO / "dst.mp4", list(range(COUNT)))
    write_faces(tmp_path / "more", names, images, [points] * COUNT)
    for file in (tmp_path / "more").iterdir():
        file.rename(faces / f"{file.stem[:5]}_00.png")
    run(tmp_path / "w")
    report = json.loads((tmp_path / "w" / "result_evaluation.json").read_text())
    assert report["values"]["swap"]["identity"] == 1 and report["values"]["swap"]["spill"] == 0


def lacks_result(w: Path) -> list[str]:
    return [f"result={w / 'none.mp4'}"]


def lacks_src(w: Path) -> list[str]:
    shutil.rmtree(w / "src")
    return []


def lacks_frames(w: Path) -> list[str]:
    (w / "result" / "0006.png").unlink()
    return []


def has_another_size(w: Path) -> list[str]:
    file = w / "result" / "0003.png"
    cv2.imwrite(str(file), cv2.imread(str(file))[:-2])
    return []


def lacks_a_face(w: Path) -> list[str]:
    (w / "dst" / "aligned" / "00004_0.png").unlink()
    return [f"truth={w / 'gt.npz'}"]


def lacks_all_faces(w: Path) -> list[str]:
    shutil.rmtree(w / "dst" / "aligned")
    shutil.copytree(w / "src" / "aligned", w / "dst" / "aligned")
    return []


def has_no_truth(w: Path) -> list[str]:
    return [f"truth={w / 'dst'}"]


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (lacks_result, "no result here; run: python convert.py data=dst"),
        (lacks_src, "run: python extract.py data=src"),
        (lacks_frames, "other frames than"),
        (has_another_size, "expected the same size"),
        (lacks_a_face, "frame 4 of the truth has no aligned face"),
        (lacks_all_faces, "no face of .*run: python extract.py data=dst"),
        (has_no_truth, "dst.npz beside it"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_mistake_is_told_in_one_line(workspace, tmp_path, mistake, said):
    shutil.copytree(workspace, tmp_path / "w")
    with pytest.raises(UserError, match=said) as error:
        run(tmp_path / "w", *mistake(tmp_path / "w"))
    assert "\n" not in str(error.value)
