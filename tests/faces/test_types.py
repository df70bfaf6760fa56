"""The face types."""

import pytest

from odfs_jax.faces.types import FaceType


def test_padding_of_the_spec():
    assert [FaceType(name).padding for name in ("half", "full", "head")] == [0, 12 / 64, 24 / 64]


@pytest.mark.parametrize(
    ("large", "small", "fits"),
    [
        ("full", "half", True),
        ("half", "full", False),
        ("head", "full", True),
        ("full", "full", True),
    ],
)
def test_a_type_is_cut_out_of_a_larger_one_only(large, small, fits):
    assert FaceType(large).contains(FaceType(small)) == fits
