"""The table and the picture sheet."""

from pathlib import Path

import numpy as np

from odfs_jax.evaluation.report import FIGURES, LABEL, sheet, side_by_side, table
from odfs_jax.evaluation.truth import load_truth

DEMO = Path(__file__).parents[2] / "assets" / "demo"


def test_the_sheet_cuts_all_pictures_of_a_row_alike():
    t = load_truth(DEMO)[0]
    picture = side_by_side([t.image, 255 - t.image], t.landmarks, 96)
    assert picture.shape == (96 + 32, 192, 3)
    assert np.abs(255 - picture[:, 96:].astype(int) - picture[:, :96]).max() <= 1
    nose = t.landmarks[30].round().astype(int)  # near the middle of the face
    box = 0.6 * np.ptp(t.landmarks, 0).max()
    middle = (t.landmarks.min(0) + t.landmarks.max(0)) / 2
    x, y = ((t.landmarks[30] - middle) / box * 48 + 48).round().astype(int)
    assert np.abs(picture[y, x].astype(int) - t.image[nose[1], nose[0]]).max() < 20


def test_the_sheet_has_a_row_for_each_frame_below_the_names():
    t = load_truth(DEMO)[0]
    picture = sheet(["dst", "swap"], [([t.image] * 2, t.landmarks)] * 3, 96)
    assert picture.shape == (LABEL + 3 * 128, 192, 3)
    assert (picture[:LABEL] < 128).any() and (picture[:LABEL] > 250).mean() > 0.8


def test_the_table_marks_blanks_that_are_as_good_as_the_swap():
    values = {
        "swap": {"ssim": 0.7, "gmsd": 0.2, "sharpness": 0.8, "spill": None},
        "flat": {"ssim": 0.71, "gmsd": 0.26, "sharpness": 0.0},
        "dst": {"ssim": 0.66, "gmsd": 0.21, "sharpness": 1.1},
        "truth": {},
    }
    lines = table(values).splitlines()
    cells = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in lines[2:]}
    stripped = {name: [cell.strip() for cell in row] for name, row in cells.items()}
    assert stripped["SSIM"] == ["0.700", "0.660", "0.710*", "high", "flat"]
    assert stripped["GMSD"] == ["0.200", "0.210", "0.260", "low", ""]
    assert stripped["sharpness, of the truth's"] == ["0.800", "1.100*", "0.000", "near 1", "dst"]
    assert list(stripped) == ["GMSD", "sharpness, of the truth's", "SSIM"]  # leading ones first
    assert "truth" not in lines[0] and len({len(line) for line in lines}) == 1


def test_figures_have_names_of_their_own():
    assert len({f.key for f in FIGURES}) == len({f.label for f in FIGURES}) == len(FIGURES)
