"""What the faces that go into a network, and those that come out of it, look like.

Pictures are float32 RGB [..., 3] in [0, 1].
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from odfs_jax.faces.types import FaceType

LUMA = (0.299, 0.587, 0.114)  # BT.601: weights of red, green and blue


@dataclass(frozen=True)
class FaceSpec:
    """An aligned face of `face_type`, `resolution` x `resolution` pixels, in color or gray.

    A network's inputs always have three channels (a gray face has three equal ones), so that one
    layer can read faces of both kinds. A gray output or target has one channel.
    """

    face_type: FaceType
    resolution: int
    gray: bool = False

    @property
    def margin(self) -> float:
        """Pixels around the mean face, on each side."""
        return self.face_type.padding * self.resolution

    @property
    def shift(self) -> float:
        """Pixels by which the mean face lies below the middle of the picture."""
        return self.face_type.shift * self.resolution

    @property
    def face_side(self) -> float:
        """Side of the mean face's unit square in pixels: how finely a face is resolved."""
        return self.resolution - 2 * self.margin

    def to_input(self, pictures: jax.Array) -> jax.Array:
        """RGB [..., 3] as a network input [..., 3]; of a gray spec, three equal channels."""
        return jnp.repeat(to_gray(pictures), 3, axis=-1) if self.gray else pictures

    def to_target(self, pictures: jax.Array) -> jax.Array:
        """RGB [..., 3] as what a network must output: [..., 3], or [..., 1] of a gray spec."""
        return to_gray(pictures) if self.gray else pictures

    def matrix_from(self, other: "FaceSpec") -> np.ndarray:
        """float32 [2, 3] from pixels of a face as `other` has it to the pixels that this spec has.

        A named a and b named b make the matrix `a_from_b = a.matrix_from(b)`.
        """
        factor = self.face_side / other.face_side
        shift_x = self.margin - factor * other.margin
        shift_y = self.margin + self.shift - factor * (other.margin + other.shift)
        return np.array([[factor, 0.0, shift_x], [0.0, factor, shift_y]], np.float32)


def to_gray(pictures: jax.Array) -> jax.Array:
    """The BT.601 luma [..., 1] of RGB `pictures` [..., 3]."""
    r, g, b = (pictures[..., i : i + 1] for i in range(3))
    return LUMA[0] * r + LUMA[1] * g + LUMA[2] * b


def to_rgb(pictures: jax.Array) -> jax.Array:
    """Gray [..., 1] or RGB [..., 3] `pictures` as RGB [..., 3]."""
    return jnp.broadcast_to(pictures, (*pictures.shape[:-1], 3))
