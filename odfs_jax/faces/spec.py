"""A view: how a network takes a face in, or gives it out."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from odfs_jax.faces.types import FaceType

LUMA = (0.299, 0.587, 0.114)  # BT.601


@dataclass(frozen=True)
class View:
    """An aligned face of `face_type` at `resolution` pixels a side, in colour or grey.

    Every network takes three channels in, a grey picture in three equal ones, so that one layer
    may see both kinds. Given out, a grey picture has one channel.
    """

    face_type: FaceType
    resolution: int
    grey: bool = False

    @property
    def margin(self) -> float:
        """Pixels around the mean face, on each side."""
        return self.face_type.padding * self.resolution

    @property
    def shift(self) -> float:
        """Pixels by which the mean face lies lower than in the middle."""
        return self.face_type.shift * self.resolution

    @property
    def face_side(self) -> float:
        """Pixels of the mean face's unit square: how finely the view shows a face."""
        return self.resolution - 2 * self.margin

    def taken_in(self, pictures: jax.Array) -> jax.Array:
        """RGB [..., 3] as the network gets it, [..., 3]."""
        return jnp.repeat(grey(pictures), 3, axis=-1) if self.grey else pictures

    def given_out(self, pictures: jax.Array) -> jax.Array:
        """RGB [..., 3] as the network must give it, [..., 3], or [..., 1] of a grey view."""
        return grey(pictures) if self.grey else pictures


def between(view: View, other: View) -> np.ndarray:
    """Matrix [2, 3] from the pixels of `view` to those of `other`, of the same face."""
    factor = other.face_side / view.face_side
    shift_x = other.margin - factor * view.margin
    shift_y = other.margin + other.shift - factor * (view.margin + view.shift)
    return np.array([[factor, 0.0, shift_x], [0.0, factor, shift_y]], np.float32)


def grey(pictures: jax.Array) -> jax.Array:
    """The luma [..., 1] of RGB [..., 3]."""
    r, g, b = (pictures[..., i : i + 1] for i in range(3))
    return LUMA[0] * r + LUMA[1] * g + LUMA[2] * b


def colour(pictures: jax.Array) -> jax.Array:
    """Pictures as a view gives them out, [..., 1] or [..., 3], as RGB [..., 3]."""
    return jnp.broadcast_to(pictures, (*pictures.shape[:-1], 3))
