"""The face types: how much of the head an aligned picture shows."""

import enum
import math


class FaceType(enum.StrEnum):
    """How much of the head an aligned picture shows; a smaller type can be cropped from a larger.

    A picture of type `avatar` stays upright whatever the roll of the head, and `mark_only` is the
    whole frame. Models work on the other types, whose pictures turn with the face. Those that begin
    with `dfl_` are DeepFaceLab 2.0's: other margins, and another fit, see `align.alignment_matrix`.
    """

    HALF = "half"
    FULL = "full"
    HEAD = "head"
    WHOLE = "whole"
    AVATAR = "avatar"
    MARK_ONLY = "mark_only"
    DFL_HALF = "dfl_half"
    DFL_MIDFULL = "dfl_midfull"
    DFL_FULL = "dfl_full"
    DFL_WHOLE = "dfl_whole"
    DFL_HEAD = "dfl_head"

    @property
    def turns(self) -> bool:
        """True when the picture turns with the face, so that the mean face has a place in it."""
        return self not in (FaceType.AVATAR, FaceType.MARK_ONLY)

    @property
    def is_dfl(self) -> bool:
        """True when the face is fitted as DeepFaceLab 2.0 does, False as in 2018."""
        return self in DFL_MARGINS

    @property
    def padding(self) -> float:
        """Margin around the mean face on each side, as a share of the picture's side.

        Sources: docs/reference_2018.md section 2, docs/from_deepfacelab.md. Raises ValueError for
        the types whose pictures do not turn with the face.
        """
        if not self.turns:
            raise ValueError(f"a {self} picture has no margin around the mean face")
        if self.is_dfl:
            margin = DFL_MARGINS[self]
            return margin / (1 + 2 * margin)
        return {"half": 0.0, "full": 12 / 64, "head": 24 / 64, "whole": 0.40}[self.value]

    @property
    def shift(self) -> float:
        """How far the mean face lies below the middle, as a share of the picture's side."""
        if self in DFL_SHIFTS:
            return DFL_SHIFTS[self] * (1 - 2 * self.padding)
        return 0.07 if self is FaceType.WHOLE else 0.0

    def contains(self, other: "FaceType") -> bool:
        """True when `other` can be cropped from a picture of this type, however the head is turned.

        From `mark_only`, a whole frame, every type can be, as far as the face lies in the frame.
        """
        return other in CONTAINED[self]


# Margins around the mean face's unit square and how far it lies below the middle, in its sides.
DFL_MARGINS = {
    FaceType.DFL_HALF: 0.0,
    FaceType.DFL_MIDFULL: 0.0675 * math.sqrt(2),
    FaceType.DFL_FULL: 0.2109375 * math.sqrt(2),
    FaceType.DFL_WHOLE: 0.40 * math.sqrt(2),
    FaceType.DFL_HEAD: 0.70 * math.sqrt(2),
}
DFL_SHIFTS = {FaceType.DFL_WHOLE: 0.07, FaceType.DFL_HEAD: 0.50}

_HALF, _FULL = {FaceType.HALF}, {FaceType.HALF, FaceType.FULL}
_DFL_HALF = {FaceType.DFL_HALF}
_DFL_MIDFULL = _DFL_HALF | {FaceType.DFL_MIDFULL}
_DFL_FULL = _DFL_MIDFULL | {FaceType.DFL_FULL}
CONTAINED = {
    FaceType.HALF: _HALF,
    FaceType.FULL: _FULL | _DFL_MIDFULL,
    FaceType.HEAD: _FULL | _DFL_FULL | {FaceType.HEAD, FaceType.DFL_WHOLE},
    FaceType.WHOLE: set(FaceType) - {FaceType.AVATAR, FaceType.MARK_ONLY},
    FaceType.AVATAR: _FULL | _DFL_FULL | {FaceType.AVATAR},
    FaceType.MARK_ONLY: set(FaceType),
    FaceType.DFL_HALF: _DFL_HALF,
    FaceType.DFL_MIDFULL: _DFL_MIDFULL,
    FaceType.DFL_FULL: _HALF | _DFL_FULL,
    FaceType.DFL_WHOLE: _FULL | _DFL_FULL | {FaceType.DFL_WHOLE},
    FaceType.DFL_HEAD: _HALF | _DFL_FULL | {FaceType.DFL_HEAD},
}
