"""Contact sheets: every picture of the merge is there, and the merge itself is the same."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from odfs_jax.config import MergeConfig
from odfs_jax.conversion.merge import build_merge
from odfs_jax.conversion.pipeline import (
    CELL,
    COLUMNS,
    LABEL,
    FaceMerger,
    sheets_folder,
    write_sheet,
)
from odfs_jax.conversion.target_faces import TargetFaces
from odfs_jax.data.aligned_png import Source
from odfs_jax.data.media.frames import Frame


def test_the_folder_lies_beside_the_result():
    assert sheets_folder(Path("a/result.mp4")) == Path("a/result_debug")
    assert sheets_folder(Path("a/result")) == Path("a/result_debug")


def test_pictures_lie_in_their_order(tmp_path):
    shades = {"one": np.full((8, 8), 0.2), "two": np.full((8, 8, 3), 0.6)}
    write_sheet(tmp_path / "sheets", "face", shades)
    sheet = cv2.imread(str(tmp_path / "sheets" / "face.png"))
    assert sheet.shape == (CELL + LABEL, COLUMNS * CELL, 3)
    middle = sheet[LABEL + CELL // 2, CELL // 2 :: CELL, 0]
    assert middle.tolist() == [51, 153, 255, 255]


@pytest.fixture(scope="module")
def merge(identity_swapper):
    swapper = identity_swapper(32, lambda faces: 1 - faces)
    return swapper, build_merge(swapper, MergeConfig(mode="hist_match"))


def test_every_face_has_a_sheet_and_the_result_is_the_same(
    tmp_path, merge, face_points, smooth_picture
):
    results = []
    for folder in (None, tmp_path / "sheets"):
        merger = FaceMerger(*merge, batch_size=2, sheets=folder)
        source = Source("c.mp4", 0, 0, 200, 150, (0.0,) * 4, face_points((60, 75), 40))
        other = Source("c.mp4", 0, 0, 200, 150, (0.0,) * 4, face_points((140, 75), 30))
        frames = (Frame("c.mp4", 0, 0, smooth_picture(150, 200)) for _ in range(1))
        targets = TargetFaces({0: [(Path("a.png"), source), (Path("b.png"), other)]})
        (result,) = merger.frames(frames, targets)
        results.append(result.image)
    np.testing.assert_array_equal(*results)
    sheets = sorted((tmp_path / "sheets").iterdir())
    assert len(sheets) == 2 and all(file.name.startswith("00000_") for file in sheets)
    sheet = cv2.imread(str(sheets[0]))
    assert sheet.shape == (3 * (CELL + LABEL), COLUMNS * CELL, 3)  # eleven pictures
    dst, merged = sheet[:CELL, :CELL], sheet[-CELL:, 2 * CELL : 3 * CELL]
    assert np.abs(dst.astype(int) - merged).mean() > 3
