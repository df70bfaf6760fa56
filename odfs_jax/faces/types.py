"""The face types: how much of the head an aligned picture shows."""

import enum


class FaceType(enum.StrEnum):
    """A face type; a smaller one may be cut out of a larger one, never the other way."""

    HALF = "half"
    FULL = "full"
    HEAD = "head"

    @property
    def padding(self) -> float:
        """Margin around the mean face on each side, as a share of the picture (spec section 2)."""
        return {"half": 0.0, "full": 12 / 64, "head": 24 / 64}[self.value]

    def contains(self, other: "FaceType") -> bool:
        """True when `other` can be cut out of a picture of this type."""
        return self.padding >= other.padding
