"""The face types: how much of the head an aligned picture shows."""

import enum


class FaceType(enum.StrEnum):
    """How much of the head an aligned picture shows; a smaller type can be cropped from a larger.

    A picture of type `avatar` stays upright whatever the roll of the head, and `mark_only` is the
    whole frame. Models work on the other types, whose pictures turn with the face.
    """

    HALF = "half"
    FULL = "full"
    HEAD = "head"
    WHOLE = "whole"
    AVATAR = "avatar"
    MARK_ONLY = "mark_only"

    @property
    def turns(self) -> bool:
        """True when the picture turns with the face, so that the mean face has a place in it."""
        return self not in (FaceType.AVATAR, FaceType.MARK_ONLY)

    @property
    def padding(self) -> float:
        """Margin around the mean face on each side, as a share of the picture's side.

        Source: docs/reference_2018.md section 2. Raises ValueError for the types whose
        pictures do not turn with the face.
        """
        if not self.turns:
            raise ValueError(f"a {self} picture has no margin around the mean face")
        return {"half": 0.0, "full": 12 / 64, "head": 24 / 64, "whole": 0.40}[self.value]

    @property
    def shift(self) -> float:
        """How far the mean face lies below the middle, as a share of the picture's side."""
        return 0.07 if self is FaceType.WHOLE else 0.0

    def contains(self, other: "FaceType") -> bool:
        """True when `other` can be cropped from a picture of this type, however the head is turned.

        From `mark_only`, a whole frame, every type can be, as far as the face lies in the frame.
        """
        return other in CONTAINED[self]


_HALF, _FULL = {FaceType.HALF}, {FaceType.HALF, FaceType.FULL}
CONTAINED = {
    FaceType.HALF: _HALF,
    FaceType.FULL: _FULL,
    FaceType.HEAD: _FULL | {FaceType.HEAD},
    FaceType.WHOLE: _FULL | {FaceType.HEAD, FaceType.WHOLE},
    FaceType.AVATAR: _FULL | {FaceType.AVATAR},
    FaceType.MARK_ONLY: set(FaceType),
}
